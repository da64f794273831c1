"""Front ends: something from outside becomes IR."""
