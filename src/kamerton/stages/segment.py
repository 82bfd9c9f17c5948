"""The segment stage: a folder of long recordings becomes clips of one utterance each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamerton.audio.activity import FRAMES_PER_SECOND
from kamerton.audio.decode import AudioReadError, probe
from kamerton.audio.files import write_flac
from kamerton.core.errors import InputCorruptError, InputEmptyError, InputMissingError
from kamerton.core.files import (
    output_directory,
    require_new,
    sha256_file,
    write_jsonl,
    write_text,
)
from kamerton.core.progress import Progress, silent
from kamerton.data.recordings import Recording, find_recordings
from kamerton.data.segmentation import Clip, SegmentedSource, segment_source
from kamerton.stages.segment_report import SourceView, render_report, view_source

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from kamerton.config.schema import Params

CLIPS_FILE, SOURCES_FILE, AUDIO_FOLDER = "clips.jsonl", "sources.jsonl", "flac"
_PASSES = 2  # each second of a recording is decoded twice, and counts twice as work


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What became of the recordings, in clips and seconds."""

    clips: int
    rejected_clips: int
    kept_seconds: float
    source_seconds: float
    speech_seconds: float
    kept_speech_seconds: float
    dropped_seconds: dict[str, float]
    sources_read: int
    sources_damaged: int
    sources_skipped: dict[str, int]

    @property
    def partial(self) -> bool:
        """True if a recording, or a part of one, could not be read."""
        return bool(self.sources_skipped) or self.sources_damaged > 0

    def metrics(self) -> dict[str, float]:
        """Flat numbers for metrics and ``--json``."""
        numbers = {
            "clips": float(self.clips),
            "clips_rejected": float(self.rejected_clips),
            "kept_seconds": self.kept_seconds,
            "source_seconds": self.source_seconds,
            "speech_seconds": self.speech_seconds,
            "kept_speech_seconds": self.kept_speech_seconds,
            "dropped_seconds": round(math.fsum(self.dropped_seconds.values()), 3),
            "sources_read": float(self.sources_read),
            "sources_damaged": float(self.sources_damaged),
            "sources_skipped": float(sum(self.sources_skipped.values())),
        }
        numbers |= {f"dropped_seconds_{name}": s for name, s in self.dropped_seconds.items()}
        return numbers

    def summary(self) -> list[tuple[str, str]]:
        """Rows for the terminal."""
        share = self.kept_speech_seconds / self.speech_seconds if self.speech_seconds else 0.0
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.sources_skipped.items())
        dropped = ", ".join(f"{s:.1f} s {reason}" for reason, s in self.dropped_seconds.items())
        rows = [
            ("recordings", f"{self.sources_read} read, {self.source_seconds / 60:.1f} minutes"),
            ("clips", f"{self.clips} kept, {self.rejected_clips} rejected"),
            ("speech kept", f"{self.kept_speech_seconds:.1f} s ({share:.1%})"),
            ("speech dropped", dropped or "none"),
        ]
        if self.sources_damaged:
            rows.append(("damaged", f"{self.sources_damaged} recordings, read as far as possible"))
        if skipped:
            rows.append(("skipped", skipped))
        return rows


def segment(
    recordings: Path,
    clips: Path,
    report: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
    cache: Path | None = None,
    workers: int = 1,
    shard: str | None = None,
) -> SegmentReport:
    """Cut every recording below ``recordings`` into clips, only at pauses.

    What cannot be read is listed with its reason and the rest is processed; the report is then
    partial.

    Raises:
        InputMissingError: there is no such folder.
        InputEmptyError: no recording in it could be read.
        UsageError: an output exists and ``force`` is not given.
    """
    del cache, workers, shard
    _require_folder(recordings)
    found = find_recordings(recordings)
    hint = f"put audio files (wav, flac, mp3, ogg ...) into {recordings}, also in subfolders"
    if not found:
        raise InputEmptyError(recordings, wanted="recordings", hint=hint)
    require_new(report, force=force)
    with output_directory(clips, force=force) as folder:
        (folder / AUDIO_FOLDER).mkdir()
        work = _Work(folder / AUDIO_FOLDER, params, _Clock(found, on_progress))
        for recording in found:
            work.add(recording)
        if not work.views:
            first = work.sources[:3]
            problems = "; ".join(f"{row['source']}: {row['reasons'][0]}" for row in first)
            raise InputEmptyError(
                recordings, wanted="readable recordings of speech", hint=f"{hint} ({problems})"
            )
        write_jsonl(folder / CLIPS_FILE, work.clips)
        write_jsonl(folder / SOURCES_FILE, work.sources)
        result = work.report()
        page = render_report(result, work.sources, work.clips, work.views, params.segment)
        write_text(report, page)
    return result


def _require_folder(recordings: Path) -> None:
    if not recordings.exists():
        raise InputMissingError(recordings, produced_by="you")
    if not recordings.is_dir():
        raise InputCorruptError(
            recordings, problem="is a file, not a folder", hint="name the folder that it lies in"
        )


class _Clock:
    """Tells the progress in seconds of sound, over all recordings and both passes."""

    def __init__(self, found: list[Recording], on_progress: Progress) -> None:
        self._seconds = {recording.name: _declared_seconds(recording) for recording in found}
        self._total = _PASSES * sum(self._seconds.values())
        self._done = 0.0
        self._on_progress = on_progress

    def start(self, name: str) -> None:
        self._name, self._start, self._last, self._earlier = name, self._done, 0.0, 0.0
        self._on_progress(self._done, self._total, name)

    def tick(self, seconds: float) -> None:
        if seconds < self._last:  # the next pass has begun
            self._earlier += self._last
        self._last = seconds
        limit = _PASSES * self._seconds[self._name]
        self._done = self._start + min(self._earlier + seconds, limit)
        self._on_progress(self._done, self._total, self._name)

    def finish(self) -> None:
        self._done = self._start + _PASSES * self._seconds[self._name]
        self._on_progress(self._done, self._total, self._name)


def _declared_seconds(recording: Recording) -> float:
    """What the header says; only progress depends on it."""
    try:
        header = probe(recording.path)
    except AudioReadError:
        return 0.0
    return (header.declared_frames or 0) / header.rate_hz


class _Work:
    """Rows and sums over the recordings done so far; no sound is held."""

    def __init__(self, folder: Path, params: Params, clock: _Clock) -> None:
        self._folder, self._params, self._clock = folder, params, clock
        self._names: dict[str, str] = {}  # hash of a recording: the first one that has it
        self.sources: list[dict[str, Any]] = []
        self.clips: list[dict[str, Any]] = []
        self.views: list[SourceView] = []
        self._speech: dict[str, float] = {}  # seconds by fate: "kept" or the first reason

    def add(self, recording: Recording) -> None:
        """Cut one recording, or note why not."""
        self._clock.start(recording.name)
        digest = None
        try:
            digest = _digest(recording.path)
            if digest in self._names:
                raise AudioReadError("duplicate", f"same bytes as {self._names[digest]}")
            self._names[digest] = recording.name
            done = segment_source(
                recording.path,
                digest,
                self._params.segment,
                self._params.audio,
                emit=self._write,
                tick=self._clock.tick,
            )
        except AudioReadError as error:
            self.sources.append(_skipped_row(recording.name, digest, error))
        else:
            self._take(recording.name, digest, done)
        self._clock.finish()

    def _write(self, clip: Clip, wave: NDArray[np.float32]) -> None:
        write_flac(self._folder / f"{clip.id}.flac", wave, self._params.audio.sample_rate_hz)

    def _take(self, name: str, digest: str, done: SegmentedSource) -> None:
        self.sources.append(_source_row(name, digest, done))
        self.clips += [_clip_row(clip, name, digest, done) for clip in done.clips]
        self.views.append(view_source(name, done))
        for clip in done.clips:
            fate = clip.reasons[0] if clip.reasons else "kept"
            self._speech[fate] = self._speech.get(fate, 0.0) + clip.speech_seconds

    def report(self) -> SegmentReport:
        """The sums."""
        kept = [row for row in self.clips if row["status"] == "kept"]
        read = [row for row in self.sources if row["status"] == "read"]
        skipped = Counter(
            row["reasons"][0].partition(":")[0]
            for row in self.sources
            if row["status"] == "skipped"
        )
        dropped = {name: round(s, 3) for name, s in sorted(self._speech.items()) if name != "kept"}
        return SegmentReport(
            clips=len(kept),
            rejected_clips=len(self.clips) - len(kept),
            kept_seconds=round(sum(row["duration_seconds"] for row in kept), 3),
            source_seconds=round(sum(row["duration_seconds"] for row in read), 3),
            speech_seconds=round(sum(row["speech_seconds"] for row in read), 3),
            kept_speech_seconds=round(self._speech.get("kept", 0.0), 3),
            dropped_seconds=dropped,
            sources_read=len(read),
            sources_damaged=sum(bool(row["reasons"]) for row in read),
            sources_skipped=dict(sorted(skipped.items())),
        )


def _digest(path: Path) -> str:
    try:
        probe(path)  # first, so that a pipe or a device is refused and not read
        return sha256_file(path)
    except OSError as error:
        raise AudioReadError("not_readable", error.strerror or "") from error


def _skipped_row(name: str, digest: str | None, error: AudioReadError) -> dict[str, Any]:
    return {
        "source": name,
        "source_sha256": digest,
        "sample_rate_hz": None,
        "channels": None,
        "duration_seconds": None,
        "speech_seconds": None,
        "status": "skipped",
        "reasons": [str(error)],
        "loudness_lufs": None,
        "gain_db": None,
    }


def _source_row(name: str, digest: str, done: SegmentedSource) -> dict[str, Any]:
    heard = done.analysis
    return {
        "source": name,
        "source_sha256": digest,
        "sample_rate_hz": heard.rate_hz,
        "channels": heard.channels,
        "duration_seconds": round(heard.source_samples / heard.rate_hz, 6),
        "speech_seconds": int(done.mask.sum()) / FRAMES_PER_SECOND,
        "status": "read",
        "reasons": list(heard.warnings),
        "loudness_lufs": _finite(done.loudness_lufs),
        "gain_db": done.gain_db,
    }


def _finite(loudness_lufs: float) -> float | None:
    return round(loudness_lufs, 2) if math.isfinite(loudness_lufs) else None


def _clip_row(clip: Clip, name: str, digest: str, done: SegmentedSource) -> dict[str, Any]:
    return {
        "id": clip.id,
        "file": None if clip.reasons else f"{AUDIO_FOLDER}/{clip.id}.flac",
        "source": name,
        "source_sha256": digest,
        "start_sample": clip.start_sample,
        "end_sample": clip.end_sample,
        "sample_rate_hz": done.analysis.rate_hz,
        "duration_seconds": clip.duration_seconds,
        "snr_db": clip.snr_db,
        "forced_cut": clip.forced_cut,
        "status": "rejected" if clip.reasons else "kept",
        "reasons": list(clip.reasons),
    }
