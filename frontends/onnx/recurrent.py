"""Recurrent operators are not imported yet; the reasons are registered here."""

from .registry import refuse

refuse("LSTM", "GRU", "RNN", reason="recurrent layers cannot be imported yet")
