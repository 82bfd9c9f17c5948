"""What the segment stage costs as recordings grow in length and in number.

    python -m benchmarks.scale [--hours 1,3,10] [--recordings 1000] [--rounds 3] [--only many]

Recordings of espeak-ng's speech are written to a temporary folder (3.2 GB for 10 hours) and really
cut, with the stage's defaults, each run in a process of its own:

- hours: cost per hour of sound at several lengths, which must be flat within 10 %, and peak memory;
- many: a thousand short recordings, then one more: which files are opened below their folder (seen
  by strace, or where it is missing by Python's audit hook and a wrapper around libsndfile's), and
  how much longer than that recording alone it takes, which must be 2 s at most;
- workers: two against one, best of several rounds, which must be 1.8 times as fast.

Costs are processor seconds, the least of several rounds, since even they grow on a busy machine;
the last two are wall seconds, for which it matters more. Ends with 1 if one of these fails.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.segmentation_truth import SENTENCES

LONG_RATE_HZ, LONG_SECONDS = 44_100, 900
SHORT_RATE_HZ, SHORT_SECONDS = 22_050, (20, 30)
MAX_SPREAD, MAX_OVERHEAD_SECONDS, MIN_SPEEDUP = 1.10, 2.0, 1.8
MAX_MEMORY_MB, MAX_GROWTH_MB = 400.0, 20.0
_ROOM_DB = -60.0
_LEVELS_DB = (-6.0, 3.0)
_PAUSES_SECONDS = (0.2, 1.4)
_MARK = "measured: "


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# What is written


def spoken(rate_hz: int) -> list[NDArray[np.float32]]:
    """A dozen sentences by three voices, about three minutes."""
    from kamerton.audio.resample import resample
    from kamerton.demo.espeak import SAMPLE_RATE_HZ, Utterance, speak_all

    texts = [
        Utterance(text, rate_wpm=rate, pitch=pitch, voice=voice)
        for voice, rate, pitch in (("en-us", 150, 50), ("en-us+f3", 165, 55), ("en-us+m3", 140, 40))
        for text in SENTENCES["en"]
    ]
    waves = [speech.wave for speech in speak_all(texts)]
    peak = max(float(np.abs(wave).max()) for wave in waves)
    return [
        resample((0.35 / peak * wave).astype(np.float32), SAMPLE_RATE_HZ, rate_hz) for wave in waves
    ]


def write_recording(
    path: Path, sentences: Sequence[NDArray[np.float32]], seconds: float, rate_hz: int, seed: int
) -> None:
    """Sentences in random order, at levels and after pauses that differ, in a quiet room."""
    import soundfile

    random = np.random.default_rng(seed)
    room = random.standard_normal(10 * rate_hz).astype(np.float32) * 10 ** (_ROOM_DB / 20)
    wave = np.resize(room, round(seconds * rate_hz))
    position = round(random.uniform(0.3, 0.6) * rate_hz)
    while True:
        sentence = sentences[int(random.integers(len(sentences)))]
        end = position + len(sentence)
        if end > len(wave):
            break
        wave[position:end] += sentence * np.float32(10 ** (random.uniform(*_LEVELS_DB) / 20))
        position = end + round(random.uniform(*_PAUSES_SECONDS) * rate_hz)
    soundfile.write(path, wave, rate_hz, subtype="PCM_16")


# What is measured


@dataclass(frozen=True)
class Cost:
    """One run of the stage: seconds of wall and processor, peak resident memory in MB."""

    wall: float
    cpu: float
    main_mb: float
    worker_mb: float
    opened: tuple[str, ...] = ()


def run_stage(
    recordings: Path,
    work: Path,
    *,
    workers: int | None = None,
    cache: Path | None = None,
    warm: Path | None = None,
    watch: bool = False,
) -> Cost:
    """Run the stage in a process of its own; ``warm`` is cut before, off the clock.

    Without ``workers`` that process does all the work, and is warm for it.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    order = {
        "recordings": str(recordings),
        "work": str(work),
        "workers": workers,
        "cache": None if cache is None else str(cache),
        "warm": None if warm is None else str(warm),
        "audit": watch and shutil.which("strace") is None,
    }
    command = [sys.executable, "-m", "benchmarks.scale", "--order", json.dumps(order)]
    trace = work / "strace"
    if watch and not order["audit"]:
        calls = "trace=open,openat,openat2"
        command = ["strace", "-f", "-s", "4096", "-e", calls, "-o", str(trace), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = next(line for line in done.stdout.splitlines() if line.startswith(_MARK))
    values = json.loads(found.removeprefix(_MARK))
    if trace.exists():
        values["opened"] = list(_below(recordings, trace.read_text("utf-8", errors="replace")))
    return Cost(**(values | {"opened": tuple(sorted(set(values["opened"])))}))


def _below(folder: Path, trace: str) -> Iterator[str]:
    """Files below ``folder`` in the calls that strace saw; folders are listed, not read."""
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)", ([A-Z_|]+)', trace):
        path = Path(match[1].encode().decode("unicode_escape"))
        if path.is_relative_to(folder) and "O_DIRECTORY" not in match[2] and path.is_file():
            yield path.name


class MemoryWatch(threading.Thread):
    """Peak memory of this process and of its children, which is gone once they have ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker_kb = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._over.wait(0.1):
            self.worker_kb = max([self.worker_kb, *map(_peak_kb, _children())])

    def stop(self) -> tuple[float, float]:
        """The peaks of this process and of the largest child, in MB."""
        self._over.set()
        self.join()
        return _peak_kb("self") / 1000, self.worker_kb / 1000


def _children() -> list[str]:
    pid = os.getpid()
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []


def _peak_kb(pid: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    match = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(match[1]) if match else 0


def obey(order: dict[str, Any]) -> None:
    """Be the process that is measured."""
    from kamerton.config.schema import Params
    from kamerton.stages.segment import segment

    work, params = Path(order["work"]), Params()
    if order["warm"]:
        segment(Path(order["warm"]), work / "warm", work / "warm.html", params)
    opened = _audit(Path(order["recordings"])) if order["audit"] else []
    watch = MemoryWatch()
    watch.start()
    before, started = _cpu(), time.monotonic()
    segment(
        Path(order["recordings"]),
        work / "clips",
        work / "page.html",
        params,
        workers=order["workers"],
        cache=Path(order["cache"]) if order["cache"] else None,
    )
    wall, cpu = time.monotonic() - started, _cpu() - before
    main_mb, worker_mb = watch.stop()
    values = {"wall": wall, "cpu": cpu, "main_mb": main_mb, "worker_mb": worker_mb}
    print(_MARK + json.dumps(values | {"opened": opened}))


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _audit(folder: Path) -> list[str]:
    """Names of files below ``folder`` that are opened from now on, as far as Python sees it."""
    import soundfile

    opened: list[str] = []

    def note(path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = Path(os.fsdecode(path))
            if place.is_relative_to(folder) and place.is_file():
                opened.append(place.name)

    sys.addaudithook(lambda event, given: note(given[0]) if event == "open" else None)
    real = soundfile.SoundFile.__init__

    def watched(self: Any, file: Any, *args: Any, **options: Any) -> None:
        note(file)
        real(self, file, *args, **options)

    soundfile.SoundFile.__init__ = watched
    return opened


# The three questions


@dataclass
class Verdicts:
    """Lines of PASS and MISS."""

    missed: int = 0

    def judge(self, holds: bool, text: str) -> None:
        """Print one and count it."""
        self.missed += not holds
        print(f"{'PASS' if holds else 'MISS'}  {text}", flush=True)


def write_hours(folder: Path, count: int, sentences: Sequence[NDArray[np.float32]]) -> Path:
    """Add tapes of a quarter of an hour until there are so many hours."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for number in range(count * 3600 // LONG_SECONDS):
        path = files / f"tape {number:03d}.wav"
        if not path.exists():
            write_recording(path, sentences, LONG_SECONDS, LONG_RATE_HZ, seed=number)
    return files


def cost_per_hour(folder: Path, hours: Sequence[int], rounds: int, verdicts: Verdicts) -> None:
    say("an hour and more: speaking and writing")
    sentences = spoken(LONG_RATE_HZ)
    warm = folder / "warm"
    warm.mkdir()
    write_recording(warm / "short.wav", sentences, 12, LONG_RATE_HZ, seed=1)
    files = write_hours(folder, max(hours), sentences)
    tries: dict[int, list[Cost]] = {count: [] for count in sorted(hours)}
    # In turns, so that what disturbs the machine for minutes disturbs all lengths.
    for number in range(rounds):
        for count, found in tries.items():
            say(f"{count} h, round {number + 1} of {rounds}")
            some = folder / "some"
            shutil.rmtree(some, ignore_errors=True)
            some.mkdir()
            for path in sorted(files.iterdir())[: count * 3600 // LONG_SECONDS]:
                os.link(path, some / path.name)
            found.append(run_stage(some, folder / "work", warm=warm))
    print(f"\n{'hours':>6} {'CPU s/h':>8} {'(worst)':>8} {'x real time':>12} {'main MB':>8}")
    costs = {count: min(found, key=lambda each: each.cpu) for count, found in tries.items()}
    for count, cost in costs.items():
        worst = max(each.cpu for each in tries[count])
        print(
            f"{count:>6} {cost.cpu / count:>8.2f} {worst / count:>8.2f} "
            f"{count * 3600 / cost.cpu:>12.0f} {cost.main_mb:>8.0f}",
            flush=True,
        )
    rates = [cost.cpu / count for count, cost in costs.items()]
    spread = max(rates) / min(rates)
    verdicts.judge(
        spread <= MAX_SPREAD,
        f"cost per hour from {min(hours)} to {max(hours)} h differs by {spread - 1:.1%} "
        f"(at most {MAX_SPREAD - 1:.0%})",
    )
    peak = max(cost.main_mb for cost in costs.values())
    verdicts.judge(peak < MAX_MEMORY_MB, f"peak memory {peak:.0f} MB (below {MAX_MEMORY_MB:.0f})")
    if len(costs) > 1:
        low, high = min(costs), max(costs)
        growth = (costs[high].main_mb - costs[low].main_mb) / (high - low)
        verdicts.judge(
            growth < MAX_GROWTH_MB,
            f"memory grows by {growth:.1f} MB per further hour (below {MAX_GROWTH_MB:.0f})",
        )


def one_more(folder: Path, count: int, rounds: int, verdicts: Verdicts) -> None:
    say(f"{count} short recordings: writing")
    sentences = spoken(SHORT_RATE_HZ)
    many, alone, cache = folder / "many", folder / "alone", folder / "cache"
    many.mkdir()
    random = np.random.default_rng(7)
    for number in range(count):
        seconds = random.uniform(*SHORT_SECONDS)
        name = f"take {number:05d}.wav"
        write_recording(many / name, sentences, seconds, SHORT_RATE_HZ, seed=number)
    time.sleep(2.5)  # files this young are looked at twice
    say("cutting them all")
    first = run_stage(many, folder / "work", workers=0, cache=cache)
    print(f"\n{count} recordings: {first.cpu:.1f} CPU s, {first.wall:.1f} wall s")

    def add(number: int) -> Path:
        path = many / f"new {number}.wav"
        write_recording(path, sentences, 25.0, SHORT_RATE_HZ, seed=10_000 + number)
        time.sleep(2.5)
        return path

    name = add(0).name
    seen = run_stage(many, folder / "work", workers=0, cache=cache, watch=True).opened
    how = "strace" if shutil.which("strace") else "Python's audit hook"
    verdicts.judge(
        seen == (name,),
        f"one more: opened {', '.join(seen[:4]) or 'nothing'} alone (seen by {how})",
    )
    together, apart = [], []
    for number in range(1, rounds + 1):
        path = add(number)
        together.append(run_stage(many, folder / "work", workers=0, cache=cache))
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        shutil.copy(path, alone)
        apart.append(run_stage(alone, folder / "work", workers=0, cache=folder / f"other{number}"))
    with_all, by_itself = (min(each.wall for each in costs) for costs in (together, apart))
    cpu, own = (min(each.cpu for each in costs) for costs in (together, apart))
    overhead = with_all - by_itself
    verdicts.judge(
        overhead <= MAX_OVERHEAD_SECONDS,
        f"one more: {with_all:.2f} s, alone {by_itself:.2f} s: {overhead:+.2f} s "
        f"(at most {MAX_OVERHEAD_SECONDS:g}); CPU {cpu:.2f} s, alone {own:.2f} s",
    )


def speedup(folder: Path, hours: int, rounds: int, verdicts: Verdicts) -> None:
    from kamerton.core.workers import usable_cores

    if usable_cores() < 2:
        say("one core: two workers are not measured")
        return
    files = write_hours(folder, hours, spoken(LONG_RATE_HZ))
    for path in sorted(files.iterdir())[hours * 3600 // LONG_SECONDS :]:
        path.unlink()
    print(f"\n{'workers':>8} {'wall s':>8} {'CPU s':>8} {'main MB':>8} {'worker MB':>10}")
    best: dict[int, float] = {}
    for number in range(rounds):
        for workers in (1, 2):
            say(f"{workers} at work, round {number + 1} of {rounds}")
            cost = run_stage(files, folder / "work", workers=workers)
            best[workers] = min(cost.wall, best.get(workers, cost.wall))
            print(
                f"{workers:>8} {cost.wall:>8.1f} {cost.cpu:>8.1f} {cost.main_mb:>8.0f} "
                f"{cost.worker_mb:>10.0f}",
                flush=True,
            )
    ratio = best[1] / best[2]
    load = f"; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    verdicts.judge(
        ratio >= MIN_SPEEDUP,
        f"two workers are {ratio:.2f} times as fast as one, best of {rounds} "
        f"(at least {MIN_SPEEDUP}){load}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hours", default="1,3,10", help="lengths to compare")
    parser.add_argument("--recordings", type=int, default=1000, help="short ones")
    parser.add_argument("--only", default="hours,workers,many", help="parts to run")
    parser.add_argument("--rounds", type=int, default=3, help="of what is timed on the wall")
    parser.add_argument("--folder", type=Path, help="where to write; removed at the end")
    parser.add_argument("--order", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.order:
        obey(json.loads(given.order))
        return 0
    hours = [int(text) for text in given.hours.split(",")]
    wanted = max(hours) * 3600 * LONG_RATE_HZ * 2 + given.recordings * 25 * SHORT_RATE_HZ * 2
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="kamerton-scale-", dir=given.folder) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 1.5 * wanted:
            say(f"{1.5 * wanted / 1e9:.1f} GB of free disk are needed: --folder names another")
            return 2
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        only = given.only.split(",")
        if "hours" in only:
            cost_per_hour(folder, hours, given.rounds, verdicts)
        if "workers" in only:
            speedup(folder, min(max(hours), 3), given.rounds, verdicts)
        shutil.rmtree(folder / "files", ignore_errors=True)
        if "many" in only:
            one_more(folder, given.recordings, given.rounds, verdicts)
    return 1 if verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
