"""Calibration and quantisation: from the graph dialect to qnn."""
