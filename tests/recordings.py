"""Recordings with a truth: speech-like bursts at known places, noise, files in any format."""

import functools

import numpy as np
import soundfile

from tests.speechlike import speechlike


def bursts(spans, seconds, rate_hz=16_000, seed=0):
    """Speech-like sound at ``spans`` (seconds), digital silence elsewhere; yours to change."""
    return _bursts(tuple(map(tuple, spans)), seconds, rate_hz, seed).copy()


@functools.lru_cache(maxsize=32)
def _bursts(spans, seconds, rate_hz, seed):
    wave = np.zeros(round(seconds * rate_hz), dtype=np.float32)
    for number, (start, end) in enumerate(spans):
        sound = speechlike(
            end - start, rate_hz, seed=seed + number, pitch_hz=105 + 9 * (number % 7)
        )
        first = round(start * rate_hz)
        wave[first : first + len(sound)] = sound
    return wave


def paced(lengths, pauses):
    """Spans of the given lengths with the given pauses before, between and after: spans, total."""
    spans, time = [], pauses[0]
    for length, pause in zip(lengths, pauses[1:], strict=True):
        spans.append((time, time + length))
        time += length + pause
    return spans, time


def with_noise(wave, kind, snr_db, rate_hz=16_000, seed=1):
    """The wave in white or pink noise or hum, so many dB below its sounding parts."""
    rng = np.random.default_rng(seed)
    size = len(wave)
    if kind == "white":
        noise = rng.standard_normal(size)
    elif kind == "pink":
        spectrum = np.fft.rfft(rng.standard_normal(size))
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        noise = np.fft.irfft(spectrum, size)
    elif kind == "hum":
        time = np.arange(size) / rate_hz
        noise = sum(np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 7))
    else:
        raise ValueError(kind)
    speech_power = np.mean(wave[np.abs(wave) > 1e-4].astype(float) ** 2)
    noise *= np.sqrt(speech_power / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return (wave + noise).astype(np.float32)


def write_sound(path, wave, rate_hz, **options):
    """Write a file in small portions: libvorbis overflows the stack on large ones."""
    channels = wave.shape[1] if wave.ndim > 1 else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate_hz, channels, **options) as file:
        for start in range(0, len(wave), 4096):
            file.write(wave[start : start + 4096])
    return path
