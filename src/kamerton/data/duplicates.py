"""Clips that are in a dataset twice: the same samples, the same sound, the same text and length.

A recording that was exported twice (louder, by another codec, with a little more silence before
it) has other samples but the same sound. Comparing every clip with every other would be slow, so
only those are listened to whose words and length agree, as they do when it is one sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.mel import log_mel
from kamerton.config.schema import AudioParams
from kamerton.text.normalise import bare_words

Picture = NDArray[np.float32]

SAME_LENGTH_SHARE = 0.03
# Exports of one recording reach 0.995 (codecs, telephone, 30 dB of noise); a reading that is 2 %
# faster and else the same 0.95; what people read twice, far less.
_SAME_SOUND_CORRELATION = 0.975
_SILENCE = 1e-6  # mean square around the mean, in nats, below which a picture shows nothing
_LARGEST_SHIFT_SECONDS = 0.5
_STEP_SECONDS = 0.01
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 32, 150.0, 3400.0  # what any codec keeps
_RANGE_NATS = 6.0  # 52 dB below the loudest: quieter is the noise of the codec


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the filters of a dataset look at; ``text`` is normalised, the hash is of the samples.

    ``corrected`` says that a person wrote the text, who knows better than any rule on tempo.
    """

    id: str
    text: str
    duration_seconds: float
    pcm_sha256: str
    corrected: bool = False
    speaker: str = ""

    @property
    def characters_per_second(self) -> float:
        """Tempo: characters, spaces included, by second of clip."""
        return len(self.text) / self.duration_seconds if self.duration_seconds > 0 else 0.0

    @property
    def words(self) -> str:
        """The text without stops, which recognisers set as they please."""
        return bare_words(self.text)


SoundsAlike = Callable[[str, str], bool]


def find_duplicates(
    clips: Sequence[Candidate], sounds_alike: SoundsAlike
) -> dict[str, tuple[str, str]]:
    """Clips that repeat an earlier one: id -> (reason, id of the first).

    ``sounds_alike`` is asked about two ids only where length and words agree, the words but for
    one character. A sentence that one speaker read twice is two sounds; it is a duplicate all the
    same if text and length are equal.
    """
    by_sound: dict[str, str] = {}
    alike = _SimilarTexts()
    found: dict[str, tuple[str, str]] = {}
    for clip in clips:
        if clip.pcm_sha256 in by_sound:
            found[clip.id] = ("same_sound", by_sound[clip.pcm_sha256])
            continue
        by_sound[clip.pcm_sha256] = clip.id
        near = [other for other in alike.near(clip) if _same_length(clip, other)]
        heard = next((other for other in near if sounds_alike(clip.id, other.id)), None)
        read = next((other for other in near if _same_reading(clip, other)), None)
        if heard is not None:
            found[clip.id] = ("same_sound_again", heard.id)
        elif read is not None:
            found[clip.id] = ("same_text_and_length", read.id)
        else:
            alike.add(clip)
    return found


def _same_reading(one: Candidate, other: Candidate) -> bool:
    return (one.text, one.speaker) == (other.text, other.speaker)


def _same_length(one: Candidate, other: Candidate) -> bool:
    longer = max(one.duration_seconds, other.duration_seconds)
    return abs(one.duration_seconds - other.duration_seconds) < SAME_LENGTH_SHARE * longer


@dataclass(slots=True)
class _SimilarTexts:
    """Finds texts at most one character apart without comparing every two.

    One edit leaves the first or the second half of a text as it is, so each is filed under both.
    """

    halves: dict[tuple[int, bool, str], list[Candidate]] = field(default_factory=dict)

    def add(self, clip: Candidate) -> None:
        words = clip.words
        middle = len(words) // 2
        for first, half in ((True, words[:middle]), (False, words[middle:])):
            self.halves.setdefault((len(words), first, half), []).append(clip)

    def near(self, clip: Candidate) -> Iterator[Candidate]:
        """Clips whose words are those of ``clip`` but for one character, in order of filing."""
        words, seen = clip.words, set()
        for length in (len(words), len(words) - 1, len(words) + 1):
            middle = length // 2
            tail = len(words) - (length - middle)
            for first, half in ((True, words[:middle]), (False, words[max(0, tail) :])):
                for other in self.halves.get((length, first, half), ()):
                    if other.id not in seen and within_one_edit(words, other.words):
                        seen.add(other.id)
                        yield other


def within_one_edit(one: str, other: str) -> bool:
    """Whether one character replaced, added or left out makes them equal."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1:
        return False
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    rest = one[same:] if len(one) < len(other) else one[same + 1 :]
    return rest == other[same + 1 :]


def same_recording(one: Picture, other: Picture) -> bool:
    """Whether two clips are one sound, at another level, through a codec, or a little later.

    Their pictures are laid over each other at every shift up to half a second. Two readings of one
    sentence never keep step for long; one recording does.
    """
    largest = round(_LARGEST_SHIFT_SECONDS / _STEP_SECONDS)
    shifts = range(-largest, largest + 1)
    return max(_correlation(one, other, shift) for shift in shifts) > _SAME_SOUND_CORRELATION


def picture(wave: NDArray[np.float32], rate_hz: int) -> Picture:
    """Log-mel amplitudes, (bands, frames), each band around its mean so that level and tone go."""
    hop = round(_STEP_SECONDS * rate_hz)
    window = 2 * hop
    audio = AudioParams(
        sample_rate_hz=rate_hz,
        fft_samples=1 << (window - 1).bit_length(),
        window_samples=window,
        hop_samples=hop,
        mel_channels=_BANDS,
        mel_fmin_hz=_LOWEST_HZ,
        mel_fmax_hz=_HIGHEST_HZ,
    )
    loudest = float(np.max(np.abs(wave), initial=1e-9))
    levels = log_mel((wave / loudest).astype(np.float32), audio)
    levels = np.maximum(levels, levels.max() - _RANGE_NATS)
    return np.asarray(levels - levels.mean(axis=1, keepdims=True), dtype=np.float32)


def _correlation(first: Picture, second: Picture, shift: int) -> float:
    """Normalised correlation of what lies over each other when ``second`` is ``shift`` later."""
    one, other = first[:, max(0, shift) :], second[:, max(0, -shift) :]
    size = min(one.shape[1], other.shape[1])
    if size < max(first.shape[1], second.shape[1]) / 2:
        return 0.0
    one, other = one[:, :size], other[:, :size]
    powers = float(np.vdot(one, one)), float(np.vdot(other, other))
    if min(powers) <= _SILENCE * one.size:
        return 0.0
    return float(np.vdot(one, other)) / math.sqrt(powers[0] * powers[1])
