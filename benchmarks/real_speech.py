"""Real speech: clips joined with random pauses come back whole, and measure as they should.

    python -m benchmarks.real_speech [--speech ../shared/speech] [--seeds 3]

The folder holds clips of LJ Speech, which are read there and never copied; without it there is
nothing to do, and the exit code is 0. Each clip must come back as one clip, its speech must begin
and end within 150 ms of where it does by a rule of its own (the level, which the detectors do not
look at in this way), and no limit of a clip may lie inside of speech.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from kamerton.audio.loudness import integrated_loudness
from kamerton.audio.pitch import pitch_track
from kamerton.audio.wada import wada_snr_db
from kamerton.config.schema import Params
from kamerton.data.measures import bandwidth_hz
from kamerton.data.segmentation import segment_source
from tests.real_speech import PAUSES, Joined, Judgement, join, judge, read_clips

MOST_ERROR_SECONDS = 0.15
# What a user who wants whole sentences would set: as long as a clip may be, else as it comes. The
# pauses between clips (0.9 to 2 s) are longer than those inside (0.5 s at most) and than
# segment.max_inner_pause_seconds (0.8 s, the default).
SEGMENT = {"target_seconds": 12.0, "max_seconds": 12.0}
# Limits for one woman who reads calmly in a quiet room with a good microphone.
PLAUSIBLE = {
    "median pitch (Hz)": (180.0, 250.0),
    "pitch range, 5 to 95 % (semitones)": (8.0, 20.0),
    "SNR from pauses, median (dB)": (30.0, 65.0),
    "SNR from the waveform, median (dB)": (18.0, 45.0),
    "bandwidth, median (Hz)": (9000.0, 11025.0),
    "loudness as it came, median (LUFS)": (-30.0, -14.0),
    "loudness of cut clips, median (LUFS)": (-24.5, -21.5),
}


def _cut(
    joined: Joined, detector: str, segment: dict[str, float]
) -> tuple[Judgement, list[float], list[float]]:
    """The judgement, and SNR and loudness of the clips that were cut."""
    params = Params.model_validate({"segment": {**segment, "detector": detector}})
    loudness: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "joined.wav")
        soundfile.write(path, joined.wave, joined.rate_hz, subtype="PCM_16")
        done = segment_source(
            path, "00" * 32, params.segment, params.audio,
            emit=lambda _, wave: loudness.append(
                integrated_loudness(wave, params.audio.sample_rate_hz)
            ),
        )  # fmt: skip
    kept = [clip for clip in done.clips if not clip.reasons]
    spans = [(c.start_sample / joined.rate_hz, c.end_sample / joined.rate_hz) for c in kept]
    found = judge(joined, spans, params.segment.pad_seconds)
    return found, [c.snr_db for c in kept if c.snr_db is not None], loudness


def _statistics(clips: list, snrs: list[float], loudness: list[float]) -> dict[str, float]:
    tracks = [pitch_track(wave, rate_hz)[0] for _, wave, rate_hz in clips]
    pitch = np.concatenate([track[track > 0] for track in tracks])
    low, high = np.quantile(pitch, [0.05, 0.95])
    return {
        "median pitch (Hz)": float(np.median(pitch)),
        "pitch range, 5 to 95 % (semitones)": float(12 * np.log2(high / low)),
        "SNR from pauses, median (dB)": float(np.median(snrs)),
        "SNR from the waveform, median (dB)": float(
            np.median([wada_snr_db(wave) or 0.0 for _, wave, _ in clips])
        ),
        "bandwidth, median (Hz)": float(np.median([bandwidth_hz(w, r) for _, w, r in clips])),
        "loudness as it came, median (LUFS)": float(
            np.median([integrated_loudness(w, r) for _, w, r in clips])
        ),
        "loudness of cut clips, median (LUFS)": float(np.median(loudness)),
    }


def _each_clip(clips: list) -> None:
    print("| clip | seconds | pitch (Hz) | SNR, waveform (dB) | bandwidth (Hz) | LUFS |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, wave, rate_hz in clips:
        track = pitch_track(wave, rate_hz)[0]
        cells = (
            f"{len(wave) / rate_hz:.2f}",
            f"{np.median(track[track > 0]):.0f}",
            f"{wada_snr_db(wave):.1f}",
            f"{bandwidth_hz(wave, rate_hz):.0f}",
            f"{integrated_loudness(wave, rate_hz):.1f}",
        )
        print(f"| {name} | {' | '.join(cells)} |")


def _detectors() -> list[str]:
    from kamerton.audio.silero import choose_detector

    return ["energy"] if choose_detector("auto") == "energy" else ["neural", "energy"]


def main() -> int:
    """Print the tables; 0 if all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    folder = options.speech / "ljspeech"
    if not folder.is_dir():
        print(f"nothing to do: there is no {folder}", file=sys.stderr)
        return 0
    clips = read_clips(folder)
    wrong, snrs, loudness = 0, [], []
    settings = ", ".join(f"{name} {value:g}" for name, value in SEGMENT.items())
    print(f"{len(clips)} clips joined with pauses of 0.9 to 2 s; segment: {settings}\n")
    print("| detector | pauses | seed | clips | whole | worst (ms) | median (ms) | cuts inside |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for detector in _detectors():
        for pauses in PAUSES:
            for seed in range(options.seeds):
                found, its_snrs, its_loudness = _cut(join(clips, pauses, seed), detector, SEGMENT)
                if pauses == "room tone":
                    snrs += its_snrs
                    loudness += its_loudness
                good = found.clips == found.whole == len(clips) and not found.cuts_inside
                wrong += not (good and found.worst <= MOST_ERROR_SECONDS)
                print(
                    f"| {detector} | {pauses} | {seed} | {found.clips} | {found.whole} of "
                    f"{len(clips)} | {1000 * found.worst:.0f} | "
                    f"{1000 * np.median(found.errors):.0f} | {found.cuts_inside} |",
                    flush=True,
                )
    print("\nwith the default parameters, which may cut at the pauses inside of a clip:\n")
    print("| detector | pauses | seed | clips | cuts inside |\n| --- | --- | ---: | ---: | ---: |")
    for detector in _detectors():
        for seed in range(options.seeds):
            pauses = PAUSES[seed % len(PAUSES)]
            found, _, _ = _cut(join(clips, pauses, seed), detector, {})
            wrong += found.cuts_inside > 0
            print(f"| {detector} | {pauses} | {seed} | {found.clips} | {found.cuts_inside} |")
    print()
    _each_clip(clips)
    print("\n| measure of the voice | value | plausible | is it |\n| --- | ---: | --- | --- |")
    for name, value in _statistics(clips, snrs, loudness).items():
        low, high = PLAUSIBLE[name]
        wrong += not low <= value <= high
        verdict = "yes" if low <= value <= high else "NO"
        print(f"| {name} | {value:.1f} | {low:g} to {high:g} | {verdict} |")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
