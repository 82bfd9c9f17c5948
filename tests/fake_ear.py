"""A recogniser that reads which clip it hears from the samples, and errs where it is told to."""

import itertools
import random

import numpy as np

from kamerton.data.attribution import TimedText, WindowAnswer, compression_ratio
from kamerton.data.listening import Sound
from kamerton.data.transcription import Recognition

RATE_HZ = 16000
_UNIT = 64 / 32768  # exact in 16 bits and in floats


def coded(number, seconds):
    """A wave that says which clip it is."""
    return np.full(round(seconds * RATE_HZ), (number + 1) * _UNIT, dtype=np.float32)


def runs(wave):
    """(number, start, end) of each coded stretch, in seconds."""
    edges = np.flatnonzero(np.diff(wave, prepend=0.0, append=0.0))
    return [
        (round(float(wave[a]) / _UNIT) - 1, a / RATE_HZ, b / RATE_HZ)
        for a, b in itertools.pairwise(edges)
        if wave[a]
    ]


def words(number, seconds):
    """A text of ordinary tempo that no other clip has."""
    letters = random.Random(number)
    made = ("".join(letters.choices("aeioklmnrst", k=4)) for _ in range(round(seconds * 2)))
    return " ".join([f"clip {number}", *made])


class FakeEar:
    """Hears ``coded`` clips; ``spoil`` may change the timed texts of a window, or leave some out.

    ``windows`` and ``clips`` list the numbers of what was heard together and alone.
    """

    def __init__(self, spoil=lambda texts: texts, *, windows_at_once=1, languages=None):
        self.spoil = spoil
        self.windows_at_once = windows_at_once
        self.languages = languages or [{"en": 1.0}]
        self.windows, self.clips, self.batches, self.asked = [], [], [], []

    def transcribe(self, waves, language=None):
        return [self._alone(wave, language) for wave in waves]

    def _alone(self, wave, language):
        ((number, start, end),) = runs(wave)
        self.clips.append(number)
        text = words(number, end - start)
        return Recognition(text, language, -0.3, 0.02, compression_ratio(text), 0.0)

    def decode_windows(self, waves, language=None):
        del language
        self.batches.append(len(waves))
        return [self._window(wave) for wave in waves]

    def _window(self, wave):
        assert len(wave) <= 30 * RATE_HZ
        found = runs(wave)
        self.windows.append(tuple(number for number, _, _ in found))
        texts = [
            (number, TimedText(start, end, words(number, end - start), (-0.1, -0.3)))
            for number, start, end in found
        ]
        return WindowAnswer(tuple(text for _, text in self.spoil(texts)), 0.05, ended=True)

    def language_probabilities(self, wave):
        self.asked.append(tuple(number for number, _, _ in runs(wave)))
        return self.languages[(len(self.asked) - 1) % len(self.languages)]


def sounds(seconds, first=0):
    """Coded clips of these lengths."""
    return [
        Sound(f"{number:064x}", length, lambda n=number, s=length: coded(n, s))
        for number, length in enumerate(seconds, start=first)
    ]
