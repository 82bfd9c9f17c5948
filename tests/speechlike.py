"""Signals with what metrics look at in speech: harmonics, moving formants, syllables, pauses."""

import numpy as np


def speechlike(seconds=1.6, rate_hz=16_000, seed=0, pitch_hz=120.0, tempo=1.0):
    """A buzz through moving resonances, in syllables of four per second; peak 0.5."""
    rng = np.random.default_rng(seed)
    size = int(seconds * rate_hz)
    time = np.arange(size) / rate_hz * tempo
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.08 * np.sin(2 * np.pi * 0.9 * time))) / rate_hz
    wave = np.zeros(size)
    syllables = int(np.ceil(time[-1] * 4)) + 1
    first, second = rng.uniform(300, 900, syllables + 1), rng.uniform(1000, 2600, syllables + 1)
    place = time * 4
    formants = [np.interp(place, np.arange(syllables + 1), row) for row in (first, second)]
    for harmonic in range(1, int(0.45 * rate_hz / pitch_hz)):
        frequency = harmonic * pitch_hz
        gain = sum(1 / (1 + ((frequency - formant) / 120) ** 2) for formant in formants)
        wave += (gain + 0.01) * np.sin(harmonic * phase)
    wave *= 0.15 + 0.85 * np.sin(np.pi * (place % 1)) ** 2
    fade = np.minimum(1.0, np.minimum(np.arange(size), np.arange(size)[::-1]) / (0.03 * rate_hz))
    wave *= fade**2
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def noise_at(wave, snr_db, seed=1):
    noise = np.random.default_rng(seed).standard_normal(wave.size)
    return noise * np.sqrt((wave.astype(float) ** 2).mean()) * 10 ** (-snr_db / 20)
