"""Passes over the graph dialect: canonical forms, folding, layout."""
