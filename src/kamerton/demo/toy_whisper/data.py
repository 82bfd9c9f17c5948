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
COMMA_SHARE: Final = 0.05  # of the sentences: read with a short pause inside, as in the corpus

QUIET: Final = 1e-10  # Whisper's floor under the power spectrum
DYNAMIC_RANGE: Final = 8.0  # Whisper keeps this many powers of ten below the loudest point


@dataclass(frozen=True, slots=True)
class Sentence:
    """One spoken sentence: log10 power mel (80, F) and its compact word ids."""

    mel: NDArray[np.float16]
    words: tuple[int, ...]


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
    logarithm = np.log10(np.maximum(power, QUIET))
    logarithm = np.maximum(logarithm, logarithm.max() - DYNAMIC_RANGE)
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
    texts = [next(stream) for _ in range(count)]
    items = [
        espeak.Utterance(
            _with_comma(text, random) if random.random() < COMMA_SHARE else text,
            rate_wpm=int(random.integers(138, 166)),
            pitch=int(random.integers(46, 55)),
            pitch_range=int(random.integers(40, 61)),
        )
        for text in texts
    ]
    return list(zip(texts, espeak.speak_all(items), strict=True))


def _with_comma(text: str, random: np.random.Generator) -> str:
    words = text.split()
    at = int(random.integers(1, len(words)))
    return " ".join(words[:at]) + ", " + " ".join(words[at:])


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
    logarithm = np.log10(np.maximum(power, QUIET)).astype(np.float16)
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


def held_out(count: int, *, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sentences that training never saw, with their waves at espeak's 22050 Hz."""
    stream = vocabulary.sentences(np.random.default_rng(seed), part="corpus")
    texts = [next(stream) for _ in range(count)]
    spoken = espeak.speak_all([espeak.Utterance(text) for text in texts])
    for text, speech in zip(texts, spoken, strict=True):
        yield text, speech.wave
