"""Windows as the recogniser meets them: one sentence, or as many clips as 30 seconds hold.

What it must do in a window of 30 s is learned mostly from short pieces of such windows: a piece
knows its place in the window, so that every time is heard, and costs a tenth.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kamerton.demo.toy_whisper import tokens
from kamerton.demo.toy_whisper.data import (
    DYNAMIC_RANGE,
    FRAMES_PER_SECOND,
    QUIET,
    WINDOW_FRAMES,
    Sentence,
    noise_strips,
    normalised,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FRAMES_PER_POSITION: Final = 2  # of the encoder
_SILENCE_SHARE = 0.04
_EDGE_SECONDS = 0.1  # of room noise at both ends of a clip
_INNER_PAUSE_SECONDS = (0.15, 0.9)  # between two sentences of a clip
_NEAR_SECONDS, _WORD_MARGIN_SECONDS = 0.1, 0.2
_NOWHERE = (-9.0, -9.0)
_FLOOR = DYNAMIC_RANGE / 4.0  # digital silence lies this far below the loudest point


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step sees.

    ``mel`` (B, 80, F); ``places`` (B,) encoder position of each one's first frame; ``text`` and
    ``target`` (B, L), target -100 where there is nothing to learn; ``words`` (B, W) CTC targets
    padded with 0; ``word_counts`` (B,). ``heard`` (B, L, 2): between which positions of the encoded
    mel a target is to be heard, -1 where it is not (exact for times, roughly for words).
    """

    mel: NDArray[np.float32]
    places: NDArray[np.int64]
    text: NDArray[np.int64]
    target: NDArray[np.int64]
    heard: NDArray[np.float32]
    words: NDArray[np.int64]
    word_counts: NDArray[np.int64]


class Said(NamedTuple):
    """A sentence in a window: when, in seconds from the first frame, and its compact word ids."""

    start: float
    end: float
    words: tuple[int, ...]


class _Item(NamedTuple):
    mel: NDArray[np.float32]  # (80, F), normalised
    said: list[Said]
    timestamps: bool


class _Room(NamedTuple):
    """The noise of one recording: its mel power, None for none; ``level`` 1 is the speech's."""

    strip: NDArray[np.float32] | None
    level: float


class Batches:
    """Draws training batches for ever; the same seed draws the same ones."""

    def __init__(
        self,
        bank: Sequence[Sentence],
        *,
        seed: int,
        noise: Sequence[NDArray[np.float32]] | None = None,
    ) -> None:
        self._bank = bank
        self._random = np.random.default_rng(seed)
        self._noise = noise_strips(seed=seed) if noise is None else noise

    def alone(self, size: int, *, sentences: int = 1, frames: int | None = None) -> Batch:
        """``size`` clips of up to ``sentences``, in a window of ``frames`` or as they need."""
        counts = self._random.integers(1, sentences + 1, size)
        return self._collate([self._clip_alone(int(count)) for count in counts], frames)

    def packed(
        self, size: int, *, shortest: float, longest: float, frames: int | None = None
    ) -> Batch:
        """``size`` windows of as many clips as fit into ``shortest`` to ``longest`` seconds."""
        seconds = self._random.uniform(shortest, longest)
        return self._collate([self._window(seconds) for _ in range(size)], frames)

    def examination(self, size: int) -> tuple[Batch, list[list[Said]]]:
        """``size`` whole windows from 0 s on, nearly full, and what is said in them."""
        items = [self._window(28.5) for _ in range(size)]
        return self._collate(items, WINDOW_FRAMES), [item.said for item in items]

    def _clip_alone(self, sentences: int) -> _Item:
        """One clip with more or less silence around it, with or without timestamps."""
        random = self._random
        timestamps = bool(random.random() < 0.5)
        if random.random() < _SILENCE_SHARE:
            return _Item(self._silence(), [], timestamps)
        edges = random.uniform(0.02, 0.5), random.uniform(0.02, 0.5)
        power, said = self._clip(sentences, self._room(), edges)
        gain = np.float32(10.0 ** random.uniform(-2.0, 0.5))
        return _Item(normalised(power * gain), said, timestamps)

    def _window(self, seconds: float) -> _Item:
        """Clips of one recording with digital silence between them, with timestamps."""
        random = self._random
        if random.random() < _SILENCE_SHARE:
            return _Item(self._silence(), [], True)
        room = self._room()
        shortest = random.uniform(0.4, 0.7)
        first = 0.0 if random.random() < 0.5 else random.uniform(0.0, 0.4)
        parts = [_gap(first)] if first else []
        said: list[Said] = []
        at = sum(part.shape[1] for part in parts)
        while True:
            sentences = int(random.choice((1, 2, 3), p=(0.8, 0.16, 0.04)))
            edges = (_EDGE_SECONDS * random.uniform(0.5, 1.5),) * 2
            clip, sentences_said = self._clip(sentences, room, edges)
            if said and at + clip.shape[1] > seconds * FRAMES_PER_SECOND:
                break
            start = at / FRAMES_PER_SECOND
            said += [Said(start + s.start, start + s.end, s.words) for s in sentences_said]
            gap = _gap(shortest + max(0.0, random.normal(scale=0.3)))
            parts += [clip * np.float32(10.0 ** random.normal(scale=0.1)), gap]
            at += clip.shape[1] + gap.shape[1]
        return _Item(normalised(np.concatenate(parts[:-1], axis=1)), said, True)

    def _clip(
        self, sentences: int, room: _Room, edges: tuple[float, float]
    ) -> tuple[NDArray[np.float32], list[Said]]:
        """Mel power (80, F) of a few sentences in a room, and when each of them is said."""
        random = self._random
        parts = [_gap(edges[0])]
        said = []
        for index in range(sentences):
            sentence = self._bank[int(random.integers(len(self._bank)))]
            if index:
                parts.append(_gap(random.uniform(*_INNER_PAUSE_SECONDS)))
            start = sum(part.shape[1] for part in parts) / FRAMES_PER_SECOND
            parts.append(np.float32(10.0) ** sentence.mel.astype(np.float32))
            end = start + parts[-1].shape[1] / FRAMES_PER_SECOND
            said.append(Said(start, end, sentence.words))
        power = np.concatenate([*parts, _gap(edges[1])], axis=1)
        if room.strip is None:
            return power, said
        noise = self._stretch(room.strip, power.shape[1])
        return power + np.float32(room.level * power.mean()) * noise, said

    def _room(self) -> _Room:
        random = self._random
        if random.random() < 0.25:
            return _Room(None, 0.0)
        quiet = random.random() < 0.85
        snr_db = random.uniform(22.0, 50.0) if quiet else random.uniform(10.0, 22.0)
        strip = self._noise[int(random.integers(len(self._noise)))]
        return _Room(strip, 10.0 ** (-snr_db / 10.0))

    def _stretch(self, strip: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        at = int(self._random.integers(strip.shape[1] - frames))
        return strip[:, at : at + frames]

    def _silence(self) -> NDArray[np.float32]:
        random = self._random
        strip = self._noise[int(random.integers(len(self._noise)))]
        level = np.float32(10.0 ** random.uniform(-9.0, -1.0))
        return normalised(level * self._stretch(strip, int(random.integers(60, 400))))

    def _collate(self, items: list[_Item], frames: int | None) -> Batch:
        """Bring the items to one size and place them.

        What Whisper puts behind a short recording depends on who calls it: `transcribe` pads the
        spectrogram with zeros, others pad the samples with silence. Both are drawn.
        """
        random = self._random
        longest = max(item.mel.shape[1] for item in items)
        width = min(WINDOW_FRAMES, frames or longest + int(random.integers(0, 40)))
        width += width % FRAMES_PER_POSITION
        mel = np.zeros((len(items), 80, width), dtype=np.float32)
        places = np.zeros(len(items), dtype=np.int64)
        written = []
        for row, (picture, said, timestamps) in enumerate(items):
            if random.random() < 0.5:
                mel[row] = picture.max() - _FLOOR
            shown = min(width, picture.shape[1])
            mel[row, :, :shown] = picture[:, :shown]
            if random.random() < 0.6:
                places[row] = random.integers((WINDOW_FRAMES - width) // FRAMES_PER_POSITION + 1)
            shift = float(places[row]) * FRAMES_PER_POSITION / FRAMES_PER_SECOND
            written.append(_written(said, shift, timestamps=timestamps))
        words = [[1 + word for part in item.said for word in part.words] for item in items]
        return Batch(
            mel,
            places,
            _padded([w.text for w in written], tokens.EOT),
            _padded([w.target for w in written], -100),
            _heard(written),
            _padded(words, 0),
            np.array([len(row) for row in words], dtype=np.int64),
        )


def _gap(seconds: float) -> NDArray[np.float32]:
    return np.full((80, max(1, round(seconds * FRAMES_PER_SECOND))), QUIET, dtype=np.float32)


class _Written(NamedTuple):
    text: list[int]
    target: list[int]
    heard: list[tuple[float, float]]  # seconds from the first frame, for each target


def _written(said: list[Said], shift: float, *, timestamps: bool) -> _Written:
    """Decoder input and the target after each of its tokens; ``shift`` is added to all times."""
    body: list[int] = []
    heard: list[tuple[float, float]] = []
    for start, end, words in said:
        spans = _word_spans(start, end, words)
        if timestamps:
            times = tokens.timestamp(shift + start), tokens.timestamp(min(30.0, shift + end))
            body += [times[0], *words, times[1]]
            near = _NEAR_SECONDS
            heard += [(start - near, start + near), *spans, (end - near, end + near)]
        else:
            body += words
            heard += spans
    if not said and timestamps:
        body, heard = [tokens.timestamp(0.0)], [_NOWHERE]
    if not timestamps:
        body, heard = [tokens.NO_TIMESTAMPS, *body], [_NOWHERE, *heard]
    target = [*body, tokens.EOT]
    if not said:  # Whisper's way of saying so: the token after the start is "no speech"
        target[0] = tokens.NO_SPEECH
    elif not timestamps:  # the caller, not the network, chooses to leave times out
        target[0] = -100
    return _Written([tokens.SOT, *body], target, [*heard, _NOWHERE])


def _word_spans(start: float, end: float, words: tuple[int, ...]) -> list[tuple[float, float]]:
    """Roughly when each word sounds, as if every letter took as long, and a margin."""
    letters = np.cumsum([0, *(len(tokens.decode([word])) for word in words)])
    edges = start + (end - start) * letters / letters[-1]
    return [
        (float(left) - _WORD_MARGIN_SECONDS, float(right) + _WORD_MARGIN_SECONDS)
        for left, right in itertools.pairwise(edges)
    ]


def _heard(written: list[_Written]) -> NDArray[np.float32]:
    longest = max(len(w.heard) for w in written)
    rows = [w.heard + [_NOWHERE] * (longest - len(w.heard)) for w in written]
    seconds = np.array(rows, dtype=np.float32)
    positions = seconds * (FRAMES_PER_SECOND / FRAMES_PER_POSITION)
    return np.where(seconds == _NOWHERE[0], np.float32(-1.0), np.maximum(positions, 0.0))


def _padded(rows: list[list[int]], filler: int) -> NDArray[np.int64]:
    width = max(1, *(len(row) for row in rows))
    return np.array([row + [filler] * (width - len(row)) for row in rows], dtype=np.int64)
