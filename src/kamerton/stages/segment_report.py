"""The page of the segment stage: what was cut where, what was kept and why the rest was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kamerton.audio.activity import FRAMES_PER_SECOND
from kamerton.report.figures import ACCENT, WARM, histogram, new_figure, to_png
from kamerton.report.page import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kamerton.config.schema import SegmentParams
    from kamerton.data.segmentation import SegmentedSource
    from kamerton.stages.segment import SegmentReport

_COLUMNS = 1200  # of the waveform picture
_PICTURES = 12
_REJECTED_COLOUR = "#b3261e"


@dataclass(frozen=True, slots=True)
class SourceView:
    """As much of a recording as its picture needs.

    ``peak`` and ``speech`` are the largest magnitude and the share of speech in each of at most
    `_COLUMNS` equal parts; ``kept`` and ``rejected`` are clips as (start, end) in seconds.
    """

    name: str
    seconds: float
    peak: NDArray[np.float32]
    speech: NDArray[np.float32]
    kept: tuple[tuple[float, float], ...]
    rejected: tuple[tuple[float, float], ...]


def view_source(name: str, done: SegmentedSource) -> SourceView:
    """Reduce a recording to its picture."""
    peak, frames = done.analysis.levels.peak, len(done.mask)
    starts = np.unique(np.arange(_COLUMNS) * frames // _COLUMNS)
    lengths = np.diff(np.append(starts, frames))
    rate_hz = done.analysis.rate_hz

    def limits(*, kept: bool) -> tuple[tuple[float, float], ...]:
        return tuple(
            (clip.start_sample / rate_hz, clip.end_sample / rate_hz)
            for clip in done.clips
            if kept is not bool(clip.reasons)
        )

    return SourceView(
        name=name,
        seconds=frames / FRAMES_PER_SECOND,
        peak=np.maximum.reduceat(peak, starts),
        speech=(np.add.reduceat(done.mask.astype(np.float32), starts) / lengths).astype(np.float32),
        kept=limits(kept=True),
        rejected=limits(kept=False),
    )


def render_report(
    result: SegmentReport,
    sources: Sequence[dict[str, Any]],
    clips: Sequence[dict[str, Any]],
    views: Sequence[SourceView],
    limits: SegmentParams,
) -> str:
    """The whole page as HTML."""
    page = Page("Segmentation", "How the recordings were cut into clips of one utterance")
    page.verdict(_verdict(result), ok=result.clips > 0 and not result.partial)
    page.facts(dict(result.summary()[:3]))
    _describe_clips(page, clips, limits)
    page.section("Where speech went", "Seconds of speech, by what became of the clip it is in.")
    fates = {"kept": result.kept_speech_seconds, **result.dropped_seconds}
    counts = Counter(row["reasons"][0] for row in clips if row["reasons"])
    counts["kept"] = result.clips
    page.table(
        ["fate", "clips", "speech (s)", "share"],
        [
            [fate, counts[fate], round(seconds, 1), _percent(seconds, result.speech_seconds)]
            for fate, seconds in fates.items()
        ],
    )
    page.section("Recordings")
    page.table(
        [
            "recording",
            "status",
            "seconds",
            "speech (s)",
            "rate (Hz)",
            "LUFS",
            "gain (dB)",
            "remarks",
        ],
        [_source_cells(row) for row in sources],
    )
    _draw_sources(page, views)
    return page.render()


def _verdict(result: SegmentReport) -> str:
    if not result.clips:
        return "No clip could be kept; the table below says why."
    share = _percent(result.kept_speech_seconds, result.speech_seconds)
    text = f"{result.clips} clips hold {share} of the speech that was found."
    skipped = sum(result.sources_skipped.values())
    if skipped:
        text += f" {skipped} of {skipped + result.sources_read} recordings were skipped."
    if result.sources_damaged:
        text += f" {result.sources_damaged} were damaged and read as far as possible."
    return text


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _describe_clips(page: Page, clips: Sequence[dict[str, Any]], limits: SegmentParams) -> None:
    kept = [row["duration_seconds"] for row in clips if row["status"] == "kept"]
    if not kept:
        return
    page.section(
        "Clip lengths",
        f"Allowed are {limits.min_seconds:g} to {limits.max_seconds:g} s, the aim is "
        f"{limits.target_seconds:g} s; clips are {min(kept):.2f} to {max(kept):.2f} s, "
        f"{float(np.median(kept)):.2f} s in the middle.",
    )
    page.figure(histogram(kept, "length of clip (s)"), "Lengths of the clips that are kept")


def _source_cells(row: dict[str, Any]) -> list[Any]:
    return [
        row["source"],
        row["status"],
        None if row["duration_seconds"] is None else round(row["duration_seconds"], 1),
        None if row["speech_seconds"] is None else round(row["speech_seconds"], 1),
        row["sample_rate_hz"],
        row["loudness_lufs"],
        row["gain_db"],
        "; ".join(row["reasons"]),
    ]


def _draw_sources(page: Page, views: Sequence[SourceView]) -> None:
    left_out = len(views) - _PICTURES
    page.section(
        "Cuts",
        "Level in dB over time; shaded blue where somebody speaks. The bars above are clips: blue "
        "is kept, red is rejected." + (f" {left_out} more are not shown." if left_out > 0 else ""),
    )
    for view in views[:_PICTURES]:
        page.figure(_picture(view), view.name)


def _picture(view: SourceView) -> bytes:
    figure, axes = new_figure(height=1.7)
    time = (np.arange(len(view.peak)) + 0.5) * view.seconds / len(view.peak)
    level = 20.0 * np.log10(np.maximum(view.peak, 1e-4))
    axes.fill_between(
        time, -80, 0, where=view.speech >= 0.5, color=ACCENT, alpha=0.14, linewidth=0, step="mid"
    )
    axes.fill_between(time, -80, level, color=WARM, alpha=0.75, linewidth=0, step="mid")
    for colour, spans in ((ACCENT, view.kept), (_REJECTED_COLOUR, view.rejected)):
        if spans:
            bars = [(start, end - start) for start, end in spans]
            axes.broken_barh(bars, (3, 7), facecolors=colour, edgecolors="white", linewidth=0.8)
    axes.set(xlim=(0, view.seconds), ylim=(-80, 12), xlabel="time (s)", ylabel="peak (dBFS)")
    axes.grid(visible=False)
    return to_png(figure)
