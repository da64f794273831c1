"""Passes over kernels of the programmable engine."""
