"""Passes over the npu dialect: fusion, tiling, order, allocation, tokens."""
