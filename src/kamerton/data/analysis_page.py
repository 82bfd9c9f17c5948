"""The analysis on one page: how good the recordings are, how hard the voice is, what to mend."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kamerton.data.analysis import PROBLEMS, ClipQuality
from kamerton.data.manifest import Dataset
from kamerton.data.measures import ClipMeasures
from kamerton.report.figures import bars, histogram
from kamerton.report.page import Page

_HEARD_CLIPS = 6
_SHOWN_PITCH = (0.005, 0.995)  # what lies outside are slips of the tracker, and would fill the axis

_MEASURE_NAMES = {
    "median_f0_hz": "median pitch (Hz)",
    "pitch_range_semitones": "pitch range, 5th to 95th percentile (semitones)",
    "pitch_sd_semitones": "pitch deviation (semitones)",
    "pitch_sd_between_clips": "deviation of mean pitch between clips (semitones)",
    "tempo_cv": "variation of tempo (characters per voiced second)",
    "level_range_db": "range of level inside speech (dB)",
    "level_sd_between_clips_db": "deviation of level between clips (dB)",
}


def render(
    dataset: Dataset,
    analysis: Mapping[str, Any],
    clips: Sequence[ClipMeasures],
    worst: Sequence[tuple[ClipMeasures, ClipQuality]],
) -> str:
    """The page as HTML; equal datasets give equal bytes."""
    quality, complexity = analysis["quality"], analysis["complexity"]
    page = Page("Analysis", f"dataset {dataset.card['name']}, {dataset.card['clips']} clips")
    page.verdict(
        f"Train for {analysis['recommended_epochs']} epochs: {analysis['hours']:.2f} h of "
        f"{quality['label']} recordings of a {complexity['label'].replace('_', ' ')} voice.",
        ok=quality["label"] in ("excellent", "good"),
    )
    page.facts(
        {
            "recommended epochs": str(analysis["recommended_epochs"]),
            "quality": f"{quality['score']:.2f} ({quality['label']})",
            "complexity": f"×{complexity['multiplier']:.1f} ({complexity['label']})",
            "confidence (heuristic)": f"{analysis['confidence']:.2f}",
            "hours": f"{analysis['hours']:.2f}",
        }
    )
    page.section("How the recommendation comes about")
    page.table(["step"], [[reason] for reason in analysis["reasons"]])
    _quality(page, analysis, clips)
    _voice(page, analysis, clips)
    _worst(page, dataset, worst)
    return page.render()


def _quality(page: Page, analysis: Mapping[str, Any], clips: Sequence[ClipMeasures]) -> None:
    quality = analysis["quality"]
    page.section(
        "Quality of the recordings",
        "Means by duration, 1 is best. The weights are this project's own.",
    )
    page.table(
        ["component", "weight", "value", "clips measured"],
        [
            [name, quality["weights"][name], value, quality["measured_clips"][name]]
            for name, value in quality["components"].items()
        ],
    )
    known = {name: v for name, v in quality["components"].items() if v is not None}
    page.figure(bars(known, "component of quality", limit=1.0), "components of quality")
    snrs = [clip.row.snr_db for clip in clips if clip.row.snr_db is not None]
    if snrs:
        page.figure(histogram(snrs, "signal to noise (dB)"), "signal-to-noise ratio of clips")
    page.figure(histogram([clip.row.duration_seconds for clip in clips], "seconds"), "lengths")


def _voice(page: Page, analysis: Mapping[str, Any], clips: Sequence[ClipMeasures]) -> None:
    complexity = analysis["complexity"]
    page.section("The voice")
    page.table(
        ["makes it harder", "present", "adds"],
        [[name, complexity[name], f"{share:.0%}"] for name, share in complexity["shares"].items()],
        "An accent is never guessed from the sound; set analyze.accent if there is one.",
    )
    page.table(
        ["measure", "value"],
        [[_MEASURE_NAMES[name], value] for name, value in complexity["measures"].items()],
    )
    pitch = np.concatenate([clip.f0_hz for clip in clips])
    if len(pitch):
        low, high = np.quantile(pitch, _SHOWN_PITCH)
        shown = pitch[(pitch >= low) & (pitch <= high)]
        page.figure(histogram(shown, "pitch (Hz)", bins=60, ylabel="voiced frames"), "pitch")


def _worst(page: Page, dataset: Dataset, worst: Sequence[tuple[ClipMeasures, ClipQuality]]) -> None:
    if not worst:
        return
    page.section("The weakest clips", "Listen to them first; drop or record again what disturbs.")
    page.table(
        ["clip", "recording", "at (s)", "quality", "what to do", "text"],
        [
            [
                clip.row.id,
                clip.row.source,
                clip.row.start_sample / clip.row.source_rate_hz,
                quality.score,
                "; ".join(PROBLEMS[name] for name in quality.problems) or "nothing stands out",
                clip.row.text,
            ]
            for clip, quality in worst
        ],
    )
    page.audio(
        [
            (f"{quality.score:.2f} {clip.row.text}", *dataset.audio(clip.row))
            for clip, quality in worst[:_HEARD_CLIPS]
        ]
    )
