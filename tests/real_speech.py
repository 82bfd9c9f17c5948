"""Real clips joined with pauses, and whether they come back: truth by a rule of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

PAUSES = ("room tone", "faint noise", "silence")
FRAME_SECONDS = 0.01
# Speech begins and ends where the level last comes within this of the clip's loud moments.
SPEECH_DEPTH_DB = 32.0
SOUND_DEPTH_DB = 42.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.9, 2.0  # the longest inside of a clip is 0.5 s
QUIET_SECONDS, QUIET_SHARE = 0.06, 0.02
NOISE_DBFS = -60.0  # over the clips as well, as it would be in a recording
# A cut is inside of a word if this many frames before it and after it all sound.
AROUND_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Joined:
    """Clips in one recording.

    ``speech`` is where each of them begins and ends to speak, in seconds; ``sounding`` whether
    anything sounds, every 10 ms, so that a limit where it does would be inside of a word.
    """

    wave: np.ndarray
    rate_hz: int
    speech: tuple[tuple[float, float], ...]
    sounding: np.ndarray


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the clips that were found compare with those that were joined.

    ``errors`` are the distances between where speech begins and ends and where the found clips do,
    without their padding, two for each clip that came back; ``cuts_inside`` counts limits of found
    clips around which something sounds.
    """

    clips: int
    whole: int
    errors: tuple[float, ...]
    cuts_inside: int

    @property
    def worst(self) -> float:
        return max(self.errors, default=float("inf"))


def read_clips(folder: Path):
    """(name, wave, rate) of each clip, in order."""
    return [
        (path.stem, *soundfile.read(path, dtype="float32"))
        for path in sorted(folder.glob("*.flac"))
    ]


def levels_db(wave, rate_hz):
    """Level every 10 ms, over 30 ms."""
    starts = np.arange(int(len(wave) / rate_hz / FRAME_SECONDS)) * rate_hz // 100
    lengths = np.diff(np.append(starts, len(wave)))
    power = np.add.reduceat(wave.astype(float) ** 2, starts) / lengths
    return 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-12)


def speech_limits(wave, rate_hz):
    """Where speech begins and ends inside of a clip, in seconds, by level alone."""
    level = levels_db(wave, rate_hz)
    loud = np.flatnonzero(level > np.quantile(level, 0.95) - SPEECH_DEPTH_DB)
    return loud[0] * FRAME_SECONDS, (loud[-1] + 1) * FRAME_SECONDS


def room_tone(clips, seconds, rng):
    """The clips' own quietest moments, cross-faded to any length."""
    rate_hz = clips[0][2]
    size = round(QUIET_SECONDS * rate_hz)
    cut = [wave[: len(wave) // size * size].reshape(-1, size) for _, wave, _ in clips]
    pieces = np.concatenate(cut)
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    quietest = np.argsort((pieces**2).mean(axis=1))[: round(QUIET_SHARE * len(pieces))]
    half = size // 2
    fade = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    total = round(seconds * rate_hz)
    tone = np.zeros(total + 2 * size)
    for start in range(0, total + size, half):
        tone[start : start + size] += fade * pieces[rng.choice(quietest)]
    return tone[size : size + total].astype(np.float32)


def join(clips, pauses, seed):
    """The clips in a random order with random pauses before, between and after them."""
    rng = np.random.default_rng(seed)
    rate_hz = clips[0][2]
    order = rng.permutation(len(clips))

    def pause():
        seconds = rng.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
        if pauses == "room tone":
            return room_tone(clips, seconds, rng)
        return np.zeros(round(seconds * rate_hz), dtype=np.float32)

    parts, speech = [pause()], []
    for index in order:
        wave = clips[index][1]
        start = sum(map(len, parts)) / rate_hz
        first, last = speech_limits(wave, rate_hz)
        speech.append((start + first, start + last))
        parts += [wave, pause()]
    whole = np.concatenate(parts)
    level = levels_db(whole, rate_hz)
    sounding = level > np.quantile(level, 0.95) - SOUND_DEPTH_DB
    if pauses == "faint noise":
        noise = rng.standard_normal(len(whole)).astype(np.float32)
        whole += np.float32(10 ** (NOISE_DBFS / 20)) * noise
    return Joined(whole, rate_hz, tuple(speech), sounding)


def judge(joined, found, pad_seconds):
    """Compare found clips, (start, end) in seconds with their padding, with the truth."""
    errors, whole, inside = [], 0, 0
    for first, last in joined.speech:
        own = [span for span in found if span[0] < last and span[1] > first]
        if len(own) != 1:
            continue
        start, end = own[0][0] + pad_seconds, own[0][1] - pad_seconds
        others = [s for s in joined.speech if s != (first, last)]
        alone = not any(own[0][0] < b and own[0][1] > a for a, b in others)
        whole += alone and start - first < 0.15 and last - end < 0.15
        errors += [abs(start - first), abs(end - last)]
    for limit in (limit for span in found for limit in span):
        frame = round(limit / FRAME_SECONDS)
        inside += bool(joined.sounding[frame - AROUND_FRAMES : frame + AROUND_FRAMES].all())
    return Judgement(len(found), whole, tuple(errors), inside)
