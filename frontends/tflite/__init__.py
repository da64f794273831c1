"""The TFLite front end: `.tflite` files become IR, and the golden producer that writes small ones."""
