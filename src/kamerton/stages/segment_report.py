"""The page of the segment stage: what was cut where, what was kept and why the rest was not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from kamerton.data.given_texts import PROBLEMS
from kamerton.data.source_view import FLOOR_DB, SourceView
from kamerton.report.figures import histogram
from kamerton.report.page import Page
from kamerton.report.strip import draw_strip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kamerton.data.clips_folder import ClipsFolder
    from kamerton.stages.segment import SegmentReport

# A page of a thousand recordings must open as fast as one of ten: the worst are shown.
_PICTURES, _ROWS = 40, 200
_SECONDS_AN_HOUR = 3600.0
# What became of the recordings that were not read, and of speech that is in no clip.
_SKIPPED = {
    "broken_link": "a link to a file that is not there",
    "changed_while_reading": "somebody wrote to it; run the stage again",
    "decoder_killed": "the system ended its decoder, often for memory; run the stage again",
    "decoder_crashed": "the decoder crashed, twice; convert it with another program",
    "duplicate": "the same bytes under another name",
    "empty_file": "a file of no bytes",
    "implausible_sample_rate": "a rate at which nobody records",
    "needs_ffmpeg": "a format that ffmpeg reads, but it is not installed",
    "no_samples": "a header with no sound after it",
    "no_speech": "nobody speaks in it",
    "not_a_file": "a pipe or a device",
    "not_audio": "neither libsndfile nor ffmpeg, if installed, can read it",
    "not_found": "it was there a moment ago",
    "not_readable": "the system refuses to give it",
    "silent": "silence, or a constant, and no sound",
    "too_short": "shorter than a clip may be",
}
_FATES = {
    "kept": "is in the clips",
    "too_short": "is in pieces shorter than segment.min_seconds",
    "too_long": "is in pieces longer than segment.max_seconds",
    "forced_cut": "could only be cut where no pause is (segment.keep_forced_cuts)",
    "low_snr": "is in more noise than segment.min_snr_db allows",
    "damaged": "is where the file is broken or breaks off",
}


def render_report(
    result: SegmentReport,
    tables: ClipsFolder,
    views: Mapping[str, SourceView],
) -> str:
    """The whole page as HTML; ``views`` are by name of recording, and may be left out."""
    page = Page("Segmentation", "How the recordings were cut into clips of one utterance")
    page.verdict(_verdict(result), ok=result.clips > 0 and not result.partial)
    page.facts(
        {
            "recordings read": f"{result.sources_read} of {len(tables.sources)}",
            "sound read": _duration(result.source_seconds),
            "clips kept": str(result.clips),
            "in clips": _duration(result.kept_seconds),
            "detector of speech": result.detector,
        }
    )
    _describe_clips(page, tables)
    _describe_speech(page, result, tables.clips)
    _list_skipped(page, result)
    _list_text_problems(page, result, tables)
    _list_recordings(page, tables)
    _draw_recordings(page, tables.clips, views)
    return page.render()


def _verdict(result: SegmentReport) -> str:
    if not result.sources_read:
        return "No recording was read."
    if not result.clips:
        return "No clip could be kept; the table below says why."
    dropped = [
        f"{_duration(seconds)} {fate}"
        for fate, seconds in sorted(result.dropped_seconds.items(), key=lambda pair: -pair[1])
    ]
    share = _percent(result.kept_speech_seconds, result.speech_seconds)
    text = f"Kept {_duration(result.kept_speech_seconds)} of speech ({share})"
    text += f", dropped {', '.join(dropped)}." if dropped else ", dropped none."
    skipped = sum(result.sources_skipped.values())
    if skipped:
        text += f" {skipped} of {skipped + result.sources_read} recordings were skipped."
    if result.sources_damaged:
        text += f" {result.sources_damaged} were damaged and read as far as possible."
    if result.text_problems:
        text += f" Texts beside them that cannot be used: {result.text_problems}."
    return text


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _duration(seconds: float) -> str:
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    if seconds < _SECONDS_AN_HOUR:
        return f"{seconds / 60.0:.1f} min"
    return f"{seconds / _SECONDS_AN_HOUR:.2f} h"


def _describe_clips(page: Page, tables: ClipsFolder) -> None:
    limits = tables.origin["parameters"]
    kept = [row["duration_seconds"] for row in tables.clips if row["status"] == "kept"]
    if not kept:
        return
    page.section(
        "Clip lengths",
        f"Allowed are {limits['min_seconds']:g} to {limits['max_seconds']:g} s, the aim is "
        f"{limits['target_seconds']:g} s; clips are {min(kept):.2f} to {max(kept):.2f} s, "
        f"{float(np.median(kept)):.2f} s in the middle.",
    )
    page.figure(histogram(kept, "length of clip (s)"), "Lengths of the clips that are kept")


def _describe_speech(page: Page, result: SegmentReport, clips: Sequence[dict[str, Any]]) -> None:
    page.section(
        "Where speech went",
        f"{_duration(result.speech_seconds)} of speech were found in "
        f"{_duration(result.source_seconds)} of sound; the rest is pauses. This is what became of "
        "the clips that it is in.",
    )
    fates = {"kept": result.kept_speech_seconds, **result.dropped_seconds}
    counts = Counter(row["reasons"][0] for row in clips if row["reasons"])
    counts["kept"] = result.clips
    page.table(
        ["fate", "clips", "speech", "hours", "share", "which"],
        [
            [
                fate,
                counts[fate],
                _duration(seconds),
                round(seconds / _SECONDS_AN_HOUR, 3),
                _percent(seconds, result.speech_seconds),
                _FATES.get(fate, ""),
            ]
            for fate, seconds in fates.items()
        ],
    )


def _list_skipped(page: Page, result: SegmentReport) -> None:
    if result.sources_skipped:
        page.section("Recordings that were skipped")
        page.table(
            ["reason", "recordings", "meaning"],
            [
                [reason, count, _SKIPPED.get(reason, "")]
                for reason, count in result.sources_skipped.items()
            ],
        )


def _list_text_problems(page: Page, result: SegmentReport, tables: ClipsFolder) -> None:
    problems = tables.origin["text_problems"]
    if not (result.texts or problems):
        return
    page.section(
        "Texts beside the recordings",
        "What corrections.csv, subtitles, text files and metadata.csv say replaces what is "
        f"recognised. Texts given: {result.texts}. Not usable: {len(problems)}.",
    )
    if problems:
        rows = []
        for problem in problems[:_ROWS]:
            where, _, said = problem.rpartition(": ")
            rows.append([where, said, PROBLEMS.get(said.partition(" ")[0], "")])
        page.table(["where", "problem", "meaning"], rows, caption=_left_out(problems, _ROWS))


def _left_out(items: Sequence[Any], shown: int) -> str:
    return f"{len(items) - shown} more are not shown." if len(items) > shown else ""


def _list_recordings(page: Page, tables: ClipsFolder) -> None:
    """All recordings, or the worst: those skipped, those damaged, those that lost most speech."""
    lost = _speech_lost(tables.clips)
    rows = list(tables.sources)
    if len(rows) > _ROWS:
        rows.sort(
            key=lambda row: (row["status"] == "read", not row["reasons"], -lost[row["source"]])
        )
        rows = rows[:_ROWS]
    left = len(tables.sources) - len(rows)
    text = (
        f"The {len(rows)} of {len(tables.sources)} that lost most; all are in sources.jsonl."
        if left
        else ""
    )
    page.section("Recordings", text)
    page.table(
        [
            *("recording", "status", "seconds", "speech (s)", "dropped (s)", "rate (Hz)"),
            *("LUFS", "gain (dB)", "remarks"),
        ],
        [_source_cells(row, lost[row["source"]]) for row in rows],
    )


def _speech_lost(clips: Sequence[dict[str, Any]]) -> Counter[str]:
    """Seconds of speech in rejected clips by recording."""
    lost: Counter[str] = Counter()
    for row in clips:
        if row["reasons"]:
            lost[row["source"]] += row["speech_seconds"]
    return lost


def _source_cells(row: dict[str, Any], lost_seconds: float) -> list[Any]:
    read = row["duration_seconds"] is not None
    return [
        row["source"],
        row["status"],
        round(row["duration_seconds"], 1) if read else None,
        round(row["speech_seconds"], 1) if read else None,
        round(float(lost_seconds), 1) if read else None,
        row["sample_rate_hz"],
        row["loudness_lufs"],
        row["gain_db"],
        "; ".join(row["reasons"]),
    ]


def _draw_recordings(
    page: Page, clips: Sequence[dict[str, Any]], views: Mapping[str, SourceView]
) -> None:
    if not views:
        return
    names = list(views)
    if len(names) > _PICTURES:
        lost = _speech_lost(clips)
        names = sorted(sorted(names, key=lambda name: (-lost[name], name))[:_PICTURES])
    spans = _spans(clips, set(names))
    text = (
        "Level in dB of full scale over time; shaded blue where somebody speaks. The bars above "
        "are clips: blue is kept, red is rejected."
    )
    left = len(views) - len(names)
    page.section(
        "Cuts", text + (f" Shown are those that lost most; {left} are not." if left else "")
    )
    for name in names:
        view = views[name]
        strip = draw_strip(
            view.seconds,
            view.level_db.tolist(),
            view.speech.tolist(),
            spans[name, True],
            spans[name, False],
            floor_db=FLOOR_DB,
        )
        page.drawing(strip, name)


def _spans(
    clips: Sequence[dict[str, Any]], names: set[str]
) -> dict[tuple[str, bool], list[tuple[float, float]]]:
    """Limits in seconds of the clips of some recordings, kept (True) and rejected."""
    spans: dict[tuple[str, bool], list[tuple[float, float]]] = {
        (name, kept): [] for name in names for kept in (True, False)
    }
    for row in clips:
        if row["source"] in names:
            rate_hz = row["sample_rate_hz"]
            limits = (row["start_sample"] / rate_hz, row["end_sample"] / rate_hz)
            spans[row["source"], row["status"] == "kept"].append(limits)
    return spans
