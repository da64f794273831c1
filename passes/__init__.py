"""Passes: one a file, in the folder of the level it works on, and the pass manager."""
