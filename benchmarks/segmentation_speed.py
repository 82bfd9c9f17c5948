"""How fast the whole segment stage is, what its time goes into, and how much memory it takes.

Each measurement is a process of its own: ``python -m benchmarks.segmentation_speed JSON`` runs the
stage as asked and prints what it took. Time is processor time, so that other work on the machine
matters little; a first, tiny run pays for imports.
"""

import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.segmentation_truth import RATE_HZ, SENTENCES, make_corpus
from kamerton.audio.resample import StreamResampler

FILE_RATE_HZ = 44_100
_ROOM_DBFS = -65.0


def write_recording(path: Path, seconds: float, seed: int = 3) -> None:
    """Sentences in three languages with pauses, over a quiet room; 44.1 kHz, 16 bits, mono."""
    rng = np.random.default_rng(seed)
    corpora = [make_corpus(language, 40).clean for language in SENTENCES]
    left = round(seconds * FILE_RATE_HZ)
    resampler = StreamResampler(RATE_HZ, FILE_RATE_HZ)
    level = 10 ** (_ROOM_DBFS / 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", FILE_RATE_HZ, 1, subtype="PCM_16") as file:
        for number in range(1 << 30):
            corpus = corpora[number % len(corpora)]
            for start in range(0, len(corpus), 1 << 18):
                wave = resampler.feed(corpus[start : start + (1 << 18)])[:left]
                noise = rng.standard_normal(len(wave), dtype=np.float32)
                file.write(wave + np.float32(level) * noise)
                left -= len(wave)
            if left <= 0:
                return


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the stage in a process of its own."""

    recordings: str
    warm_up: str
    detector: str
    workers: int = 1
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What it took: processor and elapsed seconds, peak memory in MB, seconds by part.

    ``start_seconds`` were spent before, on imports; ``tiny_seconds`` is how long the stage takes
    for next to nothing, with as many workers.
    """

    cpu_seconds: float
    start_seconds: float
    wall_seconds: float
    tiny_seconds: float
    peak_mb: float
    clips: int
    parts: dict[str, float]


def measure(job: Job) -> Run:
    """Run a job in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.segmentation_speed", json.dumps(asdict(job))],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _run(job: Job) -> Run:
    from kamerton.config.schema import Params
    from kamerton.stages.segment import segment

    params = Params.model_validate({"segment": {"detector": job.detector}})
    clock = _Clock()
    if job.profile:
        clock.install()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def stage(recordings: str, name: str) -> int:
            clips, page = folder / name, folder / f"{name}.html"
            return segment(Path(recordings), clips, page, params, workers=job.workers).clips

        stage(job.warm_up, "imports")
        begun = time.monotonic()
        stage(job.warm_up, "tiny")
        tiny_seconds = time.monotonic() - begun
        start = _cpu_seconds()
        clock.reset()
        begun = time.monotonic()
        clips = stage(job.recordings, "real")
        wall_seconds = time.monotonic() - begun
        cpu_seconds = _cpu_seconds() - start
    parts = clock.parts(cpu_seconds) if job.profile else {}
    return Run(cpu_seconds, start, wall_seconds, tiny_seconds, _peak_mb(), clips, parts)


def _peak_mb() -> float:
    """Most memory this process ever held; getrusage would tell of its parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


_EVERYONE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in _EVERYONE]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class _Clock:
    """Processor time by part, each without the parts that it calls."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner = [0.0]

    def reset(self) -> None:
        self._seconds.clear()

    def parts(self, whole: float) -> dict[str, float]:
        """Seconds by part, the longest first, and what no part accounts for."""
        named = dict(sorted(self._seconds.items(), key=lambda item: -item[1]))
        return {**named, "the rest": whole - sum(named.values())}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **values: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **values)
            finally:
                spent = time.process_time() - start
                self._seconds[name] = self._seconds.get(name, 0.0) + spent - self._inner.pop()
                self._inner[-1] += spent

        return call

    def iterated(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Iterator[Any]:
            advance = self.timed(name, function(*args).__next__)
            while True:
                try:
                    item = advance()
                except StopIteration:
                    return
                yield item

        return call

    def install(self) -> None:
        """Put a clock on everything that takes time."""
        from kamerton.audio import activity, decode, loudness, resample, silero, store
        from kamerton.data import segmentation, work

        for owner, attribute, name in (
            (resample.StreamResampler, "feed", "resampling (soxr)"),
            (activity.EnergyDetector, "feed", "energy detector"),
            (activity.EnergyDetector, "finish", "energy detector"),
            (silero.SileroDetector, "feed", "network (silero)"),
            (silero.SileroDetector, "finish", "network (silero)"),
            (activity.LevelMeter, "feed", "levels and peaks"),
            (loudness.LoudnessMeter, "feed", "loudness (K-weighting)"),
            (store.SampleStore, "append", "temporary file"),
            (store.SampleStore, "read", "temporary file"),
            (segmentation, "plan_source", "planning the cuts"),
            (segmentation, "true_peak", "true peak"),
            (segmentation, "fade", "gain and fades"),
            (work, "encode_flac", "FLAC"),
            (work, "sha256_file", "hash of the recording"),
        ):
            setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))
        blocks = decode.AudioStream.blocks
        decode.AudioStream.blocks = self.iterated("decoding", blocks)  # type: ignore[method-assign]
        adding = work._Sounds.add
        work._Sounds.add = self.timed("tar and hashes of clips", adding)  # type: ignore[method-assign]


if __name__ == "__main__":
    print(json.dumps(asdict(_run(Job(**json.loads(sys.argv[1]))))))
