"""The npu target family: what its engines take, how layers become instructions, and the pipeline."""
