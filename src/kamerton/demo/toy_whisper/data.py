"""What the toy recogniser hears in training: the demo voice, clean, noisy and resynthesised.

It will transcribe recordings and later judge a small synthesiser, so a third of the material went
through a mel spectrogram and Griffin-Lim, most of that blurred and warped as a young model's
spectrograms are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.audio.mel import FLOOR, log_mel
from kamerton.config.schema import AudioParams
from kamerton.demo import espeak, vocabulary
from kamerton.demo.toy_whisper import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RATE_HZ: Final = 16000  # of Whisper's input
FRAMES_PER_SECOND: Final = 100
WINDOW_FRAMES: Final = 3000
AUDIO: Final = AudioParams()

_QUIET = 1e-10  # Whisper's floor under the power spectrum
_DYNAMIC_RANGE = 8.0  # Whisper keeps this many powers of ten below the loudest point


@dataclass(frozen=True, slots=True)
class Sentence:
    """One spoken sentence: log10 power mel (80, F) and its compact word ids."""

    mel: NDArray[np.float16]
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step sees.

    ``mel`` (B, 80, F); ``text`` and ``target`` (B, L), target -100 where there is nothing to
    learn; ``words`` (B, W) CTC targets padded with 0; ``word_counts`` (B,).
    """

    mel: NDArray[np.float32]
    text: NDArray[np.int64]
    target: NDArray[np.int64]
    words: NDArray[np.int64]
    word_counts: NDArray[np.int64]


def power_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's mel power spectrum before its logarithm, (80, F) at 100 frames a second."""
    import torch
    from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

    spectrum = torch.stft(
        torch.from_numpy(wave),
        N_FFT,
        HOP_LENGTH,
        window=torch.hann_window(N_FFT),
        return_complex=True,
    )[:, :-1]
    mel = mel_filters("cpu", 80) @ spectrum.abs().square()
    return np.asarray(mel.numpy())


def normalised(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's input for a mel power spectrum (80, F)."""
    logarithm = np.log10(np.maximum(power, _QUIET))
    logarithm = np.maximum(logarithm, logarithm.max() - _DYNAMIC_RANGE)
    return np.asarray((logarithm + 4.0) / 4.0, dtype=np.float32)


def to_whisper_rate(wave: NDArray[np.float32], from_hz: int) -> NDArray[np.float32]:
    """Resample to Whisper's 16 kHz."""
    import soxr

    return np.asarray(soxr.resample(wave, from_hz, RATE_HZ), dtype=np.float32)


def copy_synthesis(wave: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float32]:
    """``wave`` (at AUDIO's rate) through the project's mel spectrogram and Griffin-Lim."""
    return griffin_lim(log_mel(wave, AUDIO), AUDIO, seed=seed)


def degraded(mel: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """A log-mel as a little-trained model might draw it: blurred, uneven in time, flat, grainy."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    channels, frames = mel.shape
    length = max(2, round(frames * random.uniform(0.85, 1.25)))
    sway = gaussian_filter1d(random.normal(size=length), 12.0, mode="nearest")
    steps = np.exp(0.25 * sway / (sway.std() + 1e-6))
    at = np.cumsum(steps)
    at = (at - at[0]) / (at[-1] - at[0]) * (frames - 1)
    left = np.minimum(at.astype(np.int64), frames - 2)
    share = (at - left).astype(np.float32)
    warped = mel[:, left] * (1.0 - share) + mel[:, left + 1] * share
    blurred = gaussian_filter(warped, (random.uniform(0.0, 1.2), random.uniform(0.0, 1.3)))
    middle = blurred.mean(axis=1, keepdims=True)
    flat = middle + (blurred - middle) * random.uniform(0.8, 1.05)
    grain = gaussian_filter(random.normal(size=(channels, length)), 0.7)
    rough = flat + grain * random.uniform(0.0, 0.5) + random.normal() * 0.15
    floor = random.uniform(np.log(FLOOR), -7.0)
    return np.asarray(np.maximum(rough, floor), dtype=np.float32)


def read_sentences(count: int, *, seed: int, part: str) -> list[tuple[str, espeak.Speech]]:
    """``count`` different sentences of ``part``, read with a little variety of tempo and pitch."""
    random = np.random.default_rng(seed)
    stream = vocabulary.sentences(random, part=part, shortest=2)
    items = [
        espeak.Utterance(
            next(stream),
            rate_wpm=int(random.integers(138, 166)),
            pitch=int(random.integers(46, 55)),
            pitch_range=int(random.integers(40, 61)),
        )
        for _ in range(count)
    ]
    spoken = espeak.speak_all(items)
    return [(item.text, speech) for item, speech in zip(items, spoken, strict=True)]


def sentence_bank(count: int, *, seed: int, part: str = "training") -> list[Sentence]:
    """``2 * count`` originals, and a resynthesis of every second one.

    In turn: an original that is also resynthesised, its resynthesis (two in three from a degraded
    mel), and an original that is not: resynthesis costs ten times what reading does.
    """
    random = np.random.default_rng(seed + 1)
    bank: list[Sentence] = []
    spoken = read_sentences(2 * count, seed=seed, part=part)
    for (text, speech), (other_text, other) in zip(spoken[::2], spoken[1::2], strict=True):
        mel = log_mel(speech.wave, AUDIO)
        if random.random() < 2 / 3:
            mel = degraded(mel, random)
        iterations = int(random.choice((16, 32)))
        again = griffin_lim(mel, AUDIO, iterations=iterations, seed=len(bank))
        bank.append(_sentence(speech.wave, text))
        bank.append(_sentence(again, text))
        bank.append(_sentence(other.wave, other_text))
    return bank


def _sentence(wave: NDArray[np.float32], text: str) -> Sentence:
    power = power_mel(to_whisper_rate(wave, AUDIO.sample_rate_hz))
    logarithm = np.log10(np.maximum(power, _QUIET)).astype(np.float16)
    return Sentence(logarithm, tuple(tokens.encode(text)))


def noise_strips(*, seed: int, seconds: float = 60.0) -> list[NDArray[np.float32]]:
    """Mel power of white noise, pink noise and mains hum with harmonics, each of mean power 1."""
    random = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    white = random.normal(size=samples)
    spectrum = np.fft.rfft(random.normal(size=samples))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.size), 50.0)), samples)
    time = np.arange(samples) / RATE_HZ
    hum = sum(
        np.sin(2 * np.pi * 50.0 * k * time + random.uniform(0, 6.28)) / k for k in range(1, 9)
    )
    hum = hum / np.std(hum) + 0.1 * white
    strips = [power_mel((w / np.std(w)).astype(np.float32)) for w in (white, pink, hum)]
    return [strip / strip.mean() for strip in strips]


class Batches:
    """Draws training batches for ever; the same seed draws the same ones."""

    def __init__(
        self, bank: list[Sentence], *, seed: int, noise: list[NDArray[np.float32]] | None = None
    ) -> None:
        self._bank = bank
        self._random = np.random.default_rng(seed)
        self._noise = noise_strips(seed=seed) if noise is None else noise

    def draw(self, size: int, *, most_sentences: int = 1, frames: int | None = None) -> Batch:
        """``size`` items of up to ``most_sentences``, in a window of ``frames`` or as they need."""
        items = [self._item(most_sentences) for _ in range(size)]
        longest = max(mel.shape[1] for mel, _ in items)
        slack = int(self._random.integers(0, 40))
        width = frames or min(WINDOW_FRAMES, longest + slack)
        width += width % 2
        return _collate(items, width, self._random)

    def _item(
        self, most_sentences: int
    ) -> tuple[NDArray[np.float32], list[tuple[float, float, tuple[int, ...]]]]:
        """Normalised mel (80, F) and what is said in it: (start, end, words), or nothing."""
        random = self._random
        if random.random() < 0.04:
            return self._silence(), []
        count = int(random.integers(1, most_sentences + 1))
        parts: list[NDArray[np.float32]] = [_gap(random.uniform(0.02, 0.5))]
        start = parts[0].shape[1] / FRAMES_PER_SECOND
        words: tuple[int, ...] = ()
        for index in range(count):
            sentence = self._bank[int(random.integers(len(self._bank)))]
            if index:
                parts.append(_gap(random.uniform(0.2, 1.2)))
            parts.append(np.float32(10.0) ** sentence.mel.astype(np.float32))
            words += sentence.words
        end = sum(part.shape[1] for part in parts) / FRAMES_PER_SECOND
        parts.append(_gap(random.uniform(0.02, 0.5)))
        power = self._noisy(np.concatenate(parts, axis=1))
        return normalised(power), [(start, end, words)]

    def _noisy(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        random = self._random
        power = power * np.float32(10.0 ** random.uniform(-2.0, 0.5))
        if random.random() < 0.3:
            return power
        quiet = random.random() < 0.85
        snr_db = random.uniform(20.0, 50.0) if quiet else random.uniform(10.0, 20.0)
        level = power.mean() / 10.0 ** (snr_db / 10.0)
        return power + np.float32(level) * self._strip(power.shape[1])

    def _strip(self, frames: int) -> NDArray[np.float32]:
        strip = self._noise[int(self._random.integers(len(self._noise)))]
        at = int(self._random.integers(strip.shape[1] - frames))
        return strip[:, at : at + frames]

    def _silence(self) -> NDArray[np.float32]:
        random = self._random
        frames = int(random.integers(60, 400))
        level = np.float32(10.0 ** random.uniform(-9.0, -1.0))
        return normalised(level * self._strip(frames))


def _gap(seconds: float) -> NDArray[np.float32]:
    return np.full((80, max(1, round(seconds * FRAMES_PER_SECOND))), _QUIET, dtype=np.float32)


def _collate(
    items: list[tuple[NDArray[np.float32], list[tuple[float, float, tuple[int, ...]]]]],
    frames: int,
    random: np.random.Generator,
) -> Batch:
    """Pad the items to one size, and draw for each whether it is written with timestamps.

    What Whisper puts behind a short recording depends on who calls it: `transcribe` pads the
    spectrogram with zeros, others pad the samples with silence. Both are drawn.
    """
    mel = np.zeros((len(items), 80, frames), dtype=np.float32)
    texts, targets = [], []
    words: list[tuple[int, ...]] = []
    for row, (picture, said) in enumerate(items):
        if random.random() < 0.4:
            mel[row] = picture.min()
        shown = min(frames, picture.shape[1])
        mel[row, :, :shown] = picture[:, :shown]
        text, target = _written(said, timestamps=random.random() < 0.6)
        texts.append(text)
        targets.append(target)
        words.append(tuple(1 + word for _, _, spoken in said for word in spoken))
    return Batch(
        mel,
        _padded(texts, tokens.EOT),
        _padded(targets, -100),
        _padded([list(w) for w in words], 0),
        np.array([len(w) for w in words], dtype=np.int64),
    )


def _written(
    said: list[tuple[float, float, tuple[int, ...]]], *, timestamps: bool
) -> tuple[list[int], list[int]]:
    """Decoder input and the target after each of its tokens."""
    body = [] if timestamps else [tokens.NO_TIMESTAMPS]
    for start, end, words in said:
        middle = list(words)
        if timestamps:
            middle = [tokens.timestamp(start), *middle, tokens.timestamp(end)]
        body += middle
    if not said and timestamps:
        body = [tokens.timestamp(0.0)]
    target = [*body, tokens.EOT]
    if not said:  # Whisper's way of saying so: the token after the start is "no speech"
        target[0] = tokens.NO_SPEECH
    elif not timestamps:  # the caller, not the network, chooses to leave times out
        target[0] = -100
    return [tokens.SOT, *body], target


def _padded(rows: list[list[int]], filler: int) -> NDArray[np.int64]:
    width = max(1, *(len(row) for row in rows))
    return np.array([row + [filler] * (width - len(row)) for row in rows], dtype=np.int64)


def held_out(count: int, *, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sentences that training never saw, with their waves at espeak's 22050 Hz."""
    stream = vocabulary.sentences(np.random.default_rng(seed), part="corpus")
    texts = [next(stream) for _ in range(count)]
    spoken = espeak.speak_all([espeak.Utterance(text) for text in texts])
    for text, speech in zip(texts, spoken, strict=True):
        yield text, speech.wave
