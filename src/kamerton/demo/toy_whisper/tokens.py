"""The compact token set of training, and where each token lives in Whisper's own vocabulary.

Whisper's English vocabulary has 51864 entries, of which this recogniser can ever say about fifty
words. Training with the compact set costs a thirtieth; :mod:`.export` puts the rows back where
Whisper expects them.
"""

from __future__ import annotations

from typing import Final

from kamerton.demo.vocabulary import WORDS

# Whisper's English vocabulary (openai/whisper, tokenizer.py).
FULL_SIZE: Final = 51864
_FULL_EOT, _FULL_SOT = 50256, 50257
_FULL_NO_SPEECH, _FULL_NO_TIMESTAMPS, _FULL_FIRST_TIMESTAMP = 50361, 50362, 50363
_FULL_TIMESTAMPS_PER_SECOND = 50
# Of Whisper's times, every 0.02 s up to 30 s, the toy uses every fifth: fewer tokens to learn, and
# an honest statement of how well it knows the time.
TIMESTAMPS_PER_SECOND: Final = 10
TIMESTAMPS: Final = 30 * TIMESTAMPS_PER_SECOND + 1

EOT: Final = len(WORDS)
SOT: Final = EOT + 1
NO_SPEECH: Final = EOT + 2
NO_TIMESTAMPS: Final = EOT + 3
FIRST_TIMESTAMP: Final = EOT + 4
COMPACT_SIZE: Final = FIRST_TIMESTAMP + TIMESTAMPS

_INDEX: Final = {word: index for index, word in enumerate(WORDS)}


def encode(text: str) -> list[int]:
    """Compact ids of the words of ``text``; KeyError on a word outside the vocabulary."""
    return [_INDEX[word] for word in text.split()]


def decode(ids: list[int]) -> str:
    """The words among ``ids``; special tokens are left out."""
    return " ".join(WORDS[index] for index in ids if index < len(WORDS))


def timestamp(seconds: float) -> int:
    """Compact id of a time from 0 to 30 s, rounded to a tenth of a second."""
    return FIRST_TIMESTAMP + round(seconds * TIMESTAMPS_PER_SECOND)


def seconds_of(token: int) -> float:
    """The time that :func:`timestamp` wrote."""
    return (token - FIRST_TIMESTAMP) / TIMESTAMPS_PER_SECOND


def full_ids() -> list[int]:
    """For each compact id, its id in Whisper's English vocabulary."""
    from whisper.tokenizer import get_tokenizer

    tokenizer = get_tokenizer(multilingual=False)
    words = []
    for word in WORDS:
        ids = tokenizer.encode(f" {word}")
        if len(ids) != 1:
            raise ValueError(f"{word!r} is {len(ids)} tokens of Whisper's vocabulary, not one")
        words.append(ids[0])
    specials = [_FULL_EOT, _FULL_SOT, _FULL_NO_SPEECH, _FULL_NO_TIMESTAMPS]
    step = _FULL_TIMESTAMPS_PER_SECOND // TIMESTAMPS_PER_SECOND
    times = [_FULL_FIRST_TIMESTAMP + step * index for index in range(TIMESTAMPS)]
    return words + specials + times
