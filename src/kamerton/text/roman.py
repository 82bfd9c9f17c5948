"""Roman numerals as people still write them: kings, centuries, chapters."""

import re

# Up to 39: "XL" is a size, "CD" a disc and "MIX" a word more often than a number.
PATTERN = r"(?:X{1,3}(?:IX|IV|V?I{0,3})|IX|IV|VI{0,3}|I{1,3})"
_VALUES = {"I": 1, "V": 5, "X": 10}


def value(numeral: str) -> int:
    """The number of a numeral that PATTERN matches."""
    if not re.fullmatch(PATTERN, numeral):
        raise ValueError(f"{numeral!r} is no numeral")
    digits = [_VALUES[letter] for letter in numeral]
    followed = zip(digits, [*digits[1:], 0], strict=True)
    return sum(-digit if digit < after else digit for digit, after in followed)
