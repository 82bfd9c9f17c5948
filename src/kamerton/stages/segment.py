"""The segment stage: a folder of long recordings becomes clips of one utterance each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import (
    output_directory,
    remove_path,
    require_apart,
    require_new,
    write_text,
)
from kamerton.core.progress import Progress, silent
from kamerton.core.workers import Workers, usable_cores
from kamerton.data.clips_folder import (
    ClipsFolder,
    clip_rows,
    in_order,
    origin_values,
    place_tar,
    source_row,
)
from kamerton.data.given_texts import read_given_texts, whole_text_sources
from kamerton.data.processing import Order, Outcome, process
from kamerton.data.recordings import find_recordings
from kamerton.data.sharding import Part, parse_part
from kamerton.data.tables import AUDIO_FOLDER
from kamerton.data.work import Origin, Result
from kamerton.stages.segment_report import render_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kamerton.config.schema import Params
    from kamerton.data.given_texts import GivenText, TextProblem
    from kamerton.data.source_view import SourceView

_SCRATCH = ".work"
_HARMLESS = frozenset({"out_of_phase"})  # warnings of what was put right, with nothing lost


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
    texts: int
    text_problems: int
    detector: str

    @classmethod
    def of(cls, tables: ClipsFolder) -> Self:
        """The sums over the tables of a clips folder."""
        kept = [row for row in tables.clips if row["status"] == "kept"]
        read = [row for row in tables.sources if row["status"] == "read"]
        skipped = (row["reasons"][0] for row in tables.sources if row["status"] == "skipped")
        fates: dict[str, list[float]] = {"kept": []}
        for row in tables.clips:
            fate = row["reasons"][0] if row["reasons"] else "kept"
            fates.setdefault(fate, []).append(row["speech_seconds"])
        kept_speech = fates.pop("kept")
        return cls(
            clips=len(kept),
            rejected_clips=len(tables.clips) - len(kept),
            kept_seconds=_sum(row["duration_seconds"] for row in kept),
            source_seconds=_sum(row["duration_seconds"] for row in read),
            speech_seconds=_sum(row["speech_seconds"] for row in read),
            kept_speech_seconds=_sum(kept_speech),
            dropped_seconds={name: _sum(fates[name]) for name in sorted(fates)},
            sources_read=len(read),
            sources_damaged=sum(_lost_sound(row["reasons"]) for row in read),
            sources_skipped=dict(sorted(Counter(_code(reason) for reason in skipped).items())),
            texts=len(tables.texts),
            text_problems=len(tables.origin["text_problems"]),
            detector=tables.origin["detector"],
        )

    @property
    def partial(self) -> bool:
        """True if a recording, a part of one, or a text beside one could not be read."""
        return bool(self.sources_skipped) or self.sources_damaged > 0 or self.text_problems > 0

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
            "texts": float(self.texts),
            "text_problems": float(self.text_problems),
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
            ("detector", self.detector),
        ]
        if self.sources_damaged:
            rows.append(("damaged", f"{self.sources_damaged} recordings, read as far as possible"))
        if skipped:
            rows.append(("skipped", skipped))
        if self.texts:
            rows.append(("texts given", str(self.texts)))
        if self.text_problems:
            rows.append(("texts not used", f"{self.text_problems}, see the report"))
        return rows


def _sum(seconds: Iterable[float]) -> float:
    return round(math.fsum(seconds), 3)


def _lost_sound(reasons: Iterable[str]) -> bool:
    """Whether any of the warnings is about sound that could not be read."""
    return any(_code(reason) not in _HARMLESS for reason in reasons)


def _code(reason: str) -> str:
    """``"truncated: 3 of 5 samples"`` as ``"truncated"``."""
    return reason.partition(":")[0]


def segment(
    recordings: Path,
    clips: Path,
    report: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
    cache: Path | None = None,
    workers: int | None = None,
    shard: str | None = None,
) -> SegmentReport:
    """Cut every recording below ``recordings`` into clips, only at pauses.

    What cannot be read is listed with its reason and the rest is processed; the report is then
    partial.

    Args:
        recordings: folder of recordings and of what people wrote beside them.
        clips: folder to write.
        report: HTML page to write.
        params: sections segment and audio.
        force: replace outputs that exist.
        on_progress: told seconds of sound.
        cache: folder of finished work; recordings found in it are not even opened. It changes
            how long the stage takes, never what it writes; so do ``workers``.
        workers: processes, which a decoder may crash without harm; 0 is one for each core that
            may be used, None does all in this process.
        shard: ``"I/N"`` does part I of N of the recordings, for `kamerton merge` to join.

    Raises:
        InputMissingError: there is no such folder.
        InputEmptyError: no recording in it could be read; a shard may well be empty.
        UsageError: an output exists and ``force`` is not given, the clips would lie in or around
            the recordings, or ``shard`` is no part.
    """
    part = parse_part(shard)
    if workers is not None and workers < 0:
        raise UsageError(f"{workers} workers cannot work.", hint="--workers 0 is one per core")
    _require_folder(recordings)
    everything = find_recordings(recordings)
    hint = f"put audio files (wav, flac, mp3, ogg ...) into {recordings}, also in subfolders"
    if not everything:
        raise InputEmptyError(recordings, wanted="recordings", hint=hint)
    require_new(report, force=force)
    require_apart(clips, recordings, inside=False)
    require_apart(report, recordings)
    texts, problems = read_given_texts(recordings, everything)
    origin = Origin.of(params)
    with output_directory(clips, force=force) as folder:
        (folder / AUDIO_FOLDER).mkdir()
        order = Order(
            folder=recordings,
            everything=everything,
            whole=whole_text_sources(texts),
            origin=origin,
            cache=cache,
            scratch=folder / _SCRATCH,
            on_progress=on_progress,
        )
        with Workers(0 if workers is None else workers or usable_cores()) as team:
            outcomes = process([r for r in everything if part.has(r.name)], order, team)
        tables = _tables(outcomes, shard, texts, problems, origin)
        if shard is None and not any(row["status"] == "read" for row in tables.sources):
            raise _nothing_readable(recordings, tables.sources, hint)
        for outcome in outcomes:
            if isinstance(outcome.result, Result) and outcome.result.tar is not None:
                place_tar(outcome.result.tar, folder, str(outcome.sha256))
        remove_path(folder / _SCRATCH)
        tables.write(folder)
        result = SegmentReport.of(tables)
        views = {
            outcome.name: outcome.result.view
            for outcome in outcomes
            if isinstance(outcome.result, Result)
        }
        write_report(report, result, tables, views)
    return result


def write_report(
    path: Path,
    result: SegmentReport,
    tables: ClipsFolder,
    views: Mapping[str, SourceView] = MappingProxyType({}),
) -> None:
    """Write the page; what is not in the tables of a clips folder is in ``views``."""
    write_text(path, render_report(result, tables, views))


def _require_folder(recordings: Path) -> None:
    if not recordings.exists():
        raise InputMissingError(recordings, produced_by="you")
    if not recordings.is_dir():
        raise InputCorruptError(
            recordings, problem="is a file, not a folder", hint="name the folder that it lies in"
        )


def _own(
    texts: Iterable[GivenText], part: Part, clips: Sequence[Mapping[str, Any]]
) -> list[GivenText]:
    """The texts that a shard is to write: those of its recordings and of its clips.

    One that names no recording and no clip of any shard is the first shard's.
    """
    ids = {clip["id"] for clip in clips}
    own = [
        text
        for text in texts
        if (part.has(text.source) if text.source else text.id in ids or part.index == 0)
    ]
    return in_order(own)


def _tables(
    outcomes: Sequence[Outcome],
    shard: str | None,
    texts: Iterable[GivenText],
    problems: Iterable[TextProblem],
    origin: Origin,
) -> ClipsFolder:
    clips = [
        row
        for each in outcomes
        if isinstance(each.result, Result)
        for row in clip_rows(each.name, str(each.sha256), each.result.clips)
    ]
    return ClipsFolder(
        sources=[source_row(each.name, each.sha256, each.result) for each in outcomes],
        clips=clips,
        texts=_own(texts, parse_part(shard), clips),
        origin=origin_values(origin, problems, shard),
    )


def _nothing_readable(
    recordings: Path, sources: Iterable[Mapping[str, Any]], hint: str
) -> InputEmptyError:
    problems = "; ".join(f"{row['source']}: {row['reasons'][0]}" for row in list(sources)[:3])
    return InputEmptyError(
        recordings, wanted="readable recordings of speech", hint=f"{hint} ({problems})"
    )
