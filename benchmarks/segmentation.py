"""Where recordings are cut, how well, how fast, and what others do with the same sound.

    python -m benchmarks.segmentation [--quick]

The truth is espeak-ng's speech in three languages with known pauses, under nine conditions. A cut
is inside speech if a limit of a clip that would be trained on lies 30 ms or more inside a phrase,
which is sound without a pause of 150 ms. Speech is lost if it is in no such clip, also where a clip
was rejected because it had to be cut where no pause was; noise is no reason here, because the noise
is the test's. Then the whole stage is timed on an hour
of sound. Ends with 1 if something that must hold does not. ``--quick`` takes a tenth of the sound
and gives no reliable speeds.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import soundfile

from benchmarks.segmentation_metrics import Score, judge, total
from benchmarks.segmentation_peers import LIMITS, METHODS
from benchmarks.segmentation_speed import Job, Run, measure, write_recording
from benchmarks.segmentation_truth import CONDITIONS, RATE_HZ, SENTENCES, make_corpus, recording

UTTERANCES, QUICK_UTTERANCES = 40, 12
OURS, FALLBACK = "ours, neural", "ours, energy"
MAX_LOST, MAX_ERROR_SECONDS = 0.005, 0.060
MIN_SPEED = {"energy": 700.0, "neural": 280.0}
WANTED_SPEED = {"energy": 1200.0, "neural": 500.0}
MAX_MB, MAX_MB_PER_HOUR = 400.0, 20.0
MIN_WORKERS_GAIN = 1.8
_REPEATS = 3
_WARM_UP_SECONDS = 20.0

Table = dict[tuple[str, str], Score]  # by method and condition


class Checks:
    """What must hold, and whether all of it did."""

    def __init__(self) -> None:
        self.failed = 0

    def add(self, holds: bool, text: str) -> None:
        """Print one line."""
        self.failed += not holds
        print(f"{'PASS' if holds else 'MISS'}  {text}")


def cut_everything(utterances: int) -> Table:
    """Every method on every recording."""
    corpora = [make_corpus(language, utterances) for language in SENTENCES]
    table: Table = {}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "recording.wav"
        for condition in CONDITIONS:
            scores: dict[str, list[Score]] = {method: [] for method in METHODS}
            for corpus in corpora:
                soundfile.write(path, recording(corpus, condition), RATE_HZ, subtype="PCM_16")
                wave, _ = soundfile.read(path, dtype="float32")
                for name, method in METHODS.items():
                    print(f"\r{condition} {corpus.language} {name:20}", end="", file=sys.stderr)
                    cutting = method(wave, path)
                    scores[name].append(judge(cutting, corpus.phrases, len(wave) / RATE_HZ))
            table |= {(name, condition): total(parts) for name, parts in scores.items()}
    print(file=sys.stderr)
    return table


def print_tables(table: Table) -> None:
    """One table for each question."""
    shortest, longest = LIMITS.min_seconds, LIMITS.max_seconds
    _print(table, "cuts inside speech / cuts", lambda score: f"{score.bad_cuts}/{score.cuts}")
    _print(table, "speech lost", lambda score: f"{score.lost:.2%}")
    _print(
        table,
        "where speech is said to begin and end: error in ms, median / 95 %",
        lambda score: f"{1000 * score.error_median:.0f}/{1000 * score.error_p95:.0f}",
    )
    _print(
        table,
        f"clips / outside {shortest:g} to {longest:g} s",
        lambda score: f"{len(score.lengths)}/{score.outside(shortest, longest)}",
    )
    _print(
        table,
        "rejected, because no pause was found",
        lambda score: str(score.forced),
        only=(FALLBACK, OURS),
    )


def _print(
    table: Table, title: str, cell: Callable[[Score], str], only: tuple[str, ...] = ()
) -> None:
    print(f"\n{title}")
    print(f"{'':14}" + "".join(f"{condition:>11}" for condition in CONDITIONS))
    for method in only or METHODS:
        cells = [cell(table[method, condition]) for condition in CONDITIONS]
        print(f"{method:14}" + "".join(f"{text:>11}" for text in cells))


def check_cuts(table: Table, checks: Checks) -> None:
    """What is promised of the default detector."""
    ours = {condition: table[OURS, condition] for condition in CONDITIONS}
    bad = {name: score.bad_cuts for name, score in ours.items() if score.bad_cuts}
    checks.add(not bad, f"no cut inside speech in {len(ours)} conditions {bad or ''}")
    name, score = max(ours.items(), key=lambda item: item[1].lost)
    checks.add(
        score.lost <= MAX_LOST, f"speech lost <= {MAX_LOST:.1%}: {score.lost:.2%} in {name} at most"
    )
    name, score = max(ours.items(), key=lambda item: item[1].error_median)
    checks.add(
        score.error_median <= MAX_ERROR_SECONDS,
        f"median error of limits <= {1000 * MAX_ERROR_SECONDS:.0f} ms: "
        f"{1000 * score.error_median:.0f} ms in {name} at most",
    )
    every = [score for (method, _), score in table.items() if method in (OURS, FALLBACK)]
    outside = sum(score.outside(LIMITS.min_seconds, LIMITS.max_seconds) for score in every)
    checks.add(outside == 0, f"all lengths inside the limits: {outside} outside")


def check_speed(folder: Path, hours: float, checks: Checks) -> None:
    """Time and memory of the whole stage."""
    warm_up = folder / "warm"
    for number in (1, 2):
        write_recording(warm_up / f"{number}.wav", _WARM_UP_SECONDS, seed=number)
    for number in (1, 2):
        _say(f"writing {number * hours:g} h of sound")
        write_recording(folder / f"long{number}" / "recording.wav", number * hours * 3600)
    print(f"\nthe whole stage on {hours:g} h of 44.1 kHz, 16 bits, mono; seconds of one core")
    parts: dict[str, dict[str, float]] = {}
    for detector in MIN_SPEED:
        runs = []
        for number in (1, 2):
            _say(f"{detector}, {number * hours:g} h")
            job = Job(str(folder / f"long{number}"), str(warm_up), detector)
            repeats = range(2 if number == 1 else 1)  # the second is for its memory alone
            runs.append(min((measure(job) for _ in repeats), key=lambda run: run.cpu_seconds))
        _say(f"{detector}, by part")
        profile = Job(str(folder / "long1"), str(warm_up), detector, profile=True)
        parts[detector] = measure(profile).parts
        _check_runs(detector, hours, runs, checks)
    print(f"\nwhere the time goes, in s per {hours:g} h (measuring slows it down a little)")
    names = dict.fromkeys(name for column in parts.values() for name in column)
    print(f"{'':28}" + "".join(f"{detector:>10}" for detector in parts))
    for name in names:
        cells = "".join(f"{column.get(name, 0.0):10.2f}" for column in parts.values())
        print(f"{name:28}{cells}")


def _check_runs(detector: str, hours: float, runs: list[Run], checks: Checks) -> None:
    first, second = runs
    speed = hours * 3600 / first.cpu_seconds
    checks.add(
        speed >= MIN_SPEED[detector],
        f"{detector}: {speed:.0f} times real time per core, must be {MIN_SPEED[detector]:.0f}, "
        f"wanted {WANTED_SPEED[detector]:.0f} ({first.cpu_seconds:.2f} s, {first.clips} clips; "
        f"start-up {first.start_seconds:.1f} s)",
    )
    growth = (second.peak_mb - first.peak_mb) / hours
    checks.add(
        first.peak_mb < MAX_MB and growth < MAX_MB_PER_HOUR,
        f"{detector}: peak memory {first.peak_mb:.0f} MB for {hours:g} h, {second.peak_mb:.0f} MB "
        f"for {2 * hours:g} h ({growth:+.1f} MB per hour; limits {MAX_MB:.0f} and "
        f"{MAX_MB_PER_HOUR:.0f})",
    )


def check_workers(folder: Path, hours: float, checks: Checks) -> None:
    """Two processes against one on four recordings, by the clock, best of three.

    What starting two processes takes is told apart: it does not grow with the sound.
    """
    for number in range(4):
        write_recording(folder / "four" / f"{number}.wav", hours * 900, seed=number)
    gains, starts = [], []
    for number in range(_REPEATS):
        _say(f"one and two workers, {number + 1} of {_REPEATS}")
        one, two = (
            measure(Job(str(folder / "four"), str(folder / "warm"), "neural", workers))
            for workers in (1, 2)
        )
        gains.append(one.wall_seconds / (two.wall_seconds - two.tiny_seconds))
        starts.append(two.tiny_seconds)
    checks.add(
        max(gains) >= MIN_WORKERS_GAIN,
        f"neural: two workers {max(gains):.2f} times as fast as one, must be {MIN_WORKERS_GAIN:g} "
        f"(best of {_REPEATS}: {', '.join(f'{gain:.2f}' for gain in gains)}; their start, "
        f"{min(starts):.1f} s, apart; load {os.getloadavg()[0]:.1f} on "
        f"{len(os.sched_getaffinity(0))} cores)",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(prog="benchmarks.segmentation")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sound")
    parser.add_argument("--only", choices=("cuts", "speed"), help="one of the two parts")
    options = parser.parse_args()
    checks = Checks()
    if options.only != "speed":
        table = cut_everything(QUICK_UTTERANCES if options.quick else UTTERANCES)
        print_tables(table)
        print()
        check_cuts(table, checks)
    if options.only != "cuts":
        hours = 0.1 if options.quick else 1.0
        with tempfile.TemporaryDirectory() as place:
            check_speed(Path(place), hours, checks)
            print()
            check_workers(Path(place), hours, checks)
    print(f"\n{checks.failed} missed" if checks.failed else "\nall held")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
