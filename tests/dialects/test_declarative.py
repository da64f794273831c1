"""Parameters as attributes."""

from nacre.dialects.declarative import attribute_of, value_of


def test_numbers_that_are_equal_keep_their_types():
    """1 == 1.0 == True, also as keys of a cache."""
    for value in ((1.0, 0.0), (1, 0), 1, 1.0, True, (2.0,), (2,)):
        again = value_of(attribute_of(value))
        assert again == value and type(again) is type(value)
        if isinstance(value, tuple):
            assert [type(v) for v in again] == [type(v) for v in value]
