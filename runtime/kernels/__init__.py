"""The one numpy definition of every operator: pure functions of arrays and integers, without any IR."""
