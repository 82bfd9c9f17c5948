"""The analysis on one page: how good the recordings are, how hard the voice is, what to mend."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kamerton.data.advice import Advice
from kamerton.data.analysis import PROBLEMS, ClipQuality
from kamerton.data.by_recording import RecordingMeasures
from kamerton.data.manifest import Dataset
from kamerton.data.measures import ClipMeasures
from kamerton.report.figures import ACCENT, WARM, bars, new_figure, to_png
from kamerton.report.page import Page

_HEARD_CLIPS = 6
_DRAWN_RECORDINGS = 25
_LISTED_RECORDINGS = 200
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
_ACCENT = {
    "stated": "stated by analyze.accent",
    "suspected": "the recogniser is unsure of most clips though they are clean: an accent, another "
    "language, or a weak recogniser; set analyze.accent if it is an accent",
    "unknown": "not told by analyze.accent; it is never guessed from the sound",
}


def render(
    dataset: Dataset,
    analysis: Mapping[str, Any],
    clips: Sequence[ClipMeasures],
    worst: Sequence[tuple[ClipMeasures, ClipQuality]],
    recordings: Sequence[RecordingMeasures],
    advice: Sequence[Advice],
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
            "by the rule": str(analysis["rule_epochs"]),
            "earlier runs used": str(analysis["history"]["used_runs"]),
            "quality": f"{quality['score']:.2f} ({quality['label']})",
            "complexity": f"×{complexity['multiplier']:.1f} ({complexity['label']})",
            "confidence (heuristic)": f"{analysis['confidence']:.2f}",
            "hours": f"{analysis['hours']:.2f}",
        }
    )
    page.section("How the recommendation comes about")
    page.table(["step"], [[reason] for reason in analysis["reasons"]])
    _history(page, analysis["history"])
    _advice(page, advice)
    _quality(page, analysis, clips)
    _recordings(page, recordings)
    _voice(page, analysis)
    _worst(page, dataset, worst)
    return page.render()


def _history(page: Page, history: Mapping[str, Any]) -> None:
    """The runs that corrected the rule; nothing where none did."""
    if not history["lessons"]:
        return
    page.table(
        ["earlier run", "runs", "unlike by", "epochs by the rule", "to within 2 % of its best",
         "needed, of the rule"],
        [
            [
                lesson["source"],
                lesson["runs"],
                "this dataset" if lesson["same_dataset"] else round(lesson["distance"], 2),
                lesson["rule_epochs"],
                round(lesson["near_best_epochs"]),
                f"×{lesson['ratio']:.2f}",
            ]
            for lesson in history["lessons"]
        ],
        "A difference of 1 is twice the hours, another language or the next class of quality. What "
        "was needed has a margin of a quarter, in which to see that nothing better comes.",
    )  # fmt: skip


def _advice(page: Page, advice: Sequence[Advice]) -> None:
    if not advice:
        page.section(
            "What to drop or record again",
            "Nothing: no recording, and no handful of clips, drags the quality down by more than "
            "its minutes are worth (analyze.drop_gain).",
        )
        return
    page.section(
        "What to drop or record again",
        "Each line was computed by scoring the dataset anew without it, and takes it that the "
        "lines above were followed. Recorded again means: as well as the rest.",
    )
    page.table(
        ["drop", "minutes", "SNR (dB)", "because of", "quality", "hours left", "epochs", "again"],
        [
            [
                piece.source if piece.source is not None else f"{len(piece.clip_ids)} clips",
                round(piece.seconds / 60.0, 1),
                None if piece.snr_db is None else round(piece.snr_db, 1),
                "; ".join(PROBLEMS[name].partition(":")[0] for name in piece.problems),
                f"{piece.before.quality:.2f} → {piece.without.quality:.2f}",
                f"{piece.before.hours:.2f} → {piece.without.hours:.2f}",
                f"{piece.before.epochs} → {piece.without.epochs}",
                f"{piece.again.quality:.2f}, {piece.again.epochs} epochs",
            ]
            for piece in advice
        ],
        "To drop a recording, take its file away; to drop a clip, give it an empty text in "
        "corrections.csv.",
    )


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
    text = "How the clips spread. The loudness is that after levelling."
    if any(clip.snr_origin == "waveform" for clip in clips):
        text += (
            " Orange: signal to noise guessed from the shape of the waveform, where a recording "
            "has no pauses to measure it in."
        )
    page.figure(_spreads(clips), text)


def _spreads(clips: Sequence[ClipMeasures]) -> bytes:
    """Histograms of what was measured, in one picture."""
    snrs = [
        [c.snr_db for c in clips if c.snr_db is not None and c.snr_origin == origin]
        for origin in ("pauses", "waveform")
    ]
    pitch = np.concatenate([clip.f0_hz for clip in clips])
    if len(pitch):
        low, high = np.quantile(pitch, _SHOWN_PITCH)
        pitch = pitch[(pitch >= low) & (pitch <= high)]
    panels: list[tuple[str, str, Any]] = [
        ("signal to noise (dB)", "clips", snrs),
        ("bandwidth (kHz)", "clips", [clip.bandwidth_hz / 1000.0 for clip in clips]),
        ("loudness (LUFS)", "clips", [c.loudness_lufs for c in clips if c.loudness_lufs]),
        ("length (s)", "clips", [clip.row.duration_seconds for clip in clips]),
        ("pitch (Hz)", "voiced frames", pitch),
        (
            "tempo (characters per voiced second)",
            "clips",
            [c.characters_per_second for c in clips if c.characters_per_second],
        ),
    ]
    figure, grid = new_figure(8, 5.2, rows=3, columns=2)
    for axes, (xlabel, ylabel, values) in zip(grid.flat, panels, strict=True):
        if values is snrs:
            axes.hist(values, bins=30, stacked=True, color=[ACCENT, WARM])
        else:
            axes.hist(values, bins=30, color=ACCENT)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return to_png(figure)


def _recordings(page: Page, recordings: Sequence[RecordingMeasures]) -> None:
    weakest = sorted(recordings, key=lambda r: (r.quality.score, r.source))
    page.section(
        "Recordings",
        "The weakest first. Decibels, hertz and LUFS are medians over clips; clipping is counted "
        "in the recording as it came."
        + (
            f" {_LISTED_RECORDINGS} of {len(weakest)}." if len(weakest) > _LISTED_RECORDINGS else ""
        ),
    )
    page.table(
        ["recording", "minutes", "clips", "quality", "SNR (dB)", "clipped (%)", "bandwidth (Hz)",
         "LUFS", "pitch (Hz)", "weak"],
        [
            [
                r.source,
                round(r.seconds / 60.0, 1),
                len(r.clips),
                r.quality.score,
                None if r.snr_db is None else round(r.snr_db, 1),
                None if r.clipped_share is None else 100.0 * r.clipped_share,
                round(r.bandwidth_hz),
                None if r.loudness_lufs is None else round(r.loudness_lufs, 1),
                None if r.f0_hz is None else round(r.f0_hz),
                ", ".join(r.quality.problems),
            ]
            for r in weakest[:_LISTED_RECORDINGS]
        ],
    )  # fmt: skip
    if len(recordings) > 1:
        drawn = weakest[:_DRAWN_RECORDINGS]
        labels = _distinct([r.source for r in drawn])
        scores = {label: r.quality.score for label, r in zip(labels, drawn, strict=True)}
        page.figure(bars(scores, "quality", limit=1.0), "quality by recording, the weakest on top")


def _distinct(names: Sequence[str], length: int = 40) -> list[str]:
    """Names as labels: the ends of long ones, numbered where they would be the same."""
    short = [name if len(name) <= length else f"…{name[1 - length :]}" for name in names]
    plain = [name.replace("$", "\\$") for name in short]  # no formula for matplotlib
    return [f"{name} ({n})" if plain.count(name) > 1 else name for n, name in enumerate(plain, 1)]


def _voice(page: Page, analysis: Mapping[str, Any]) -> None:
    complexity = analysis["complexity"]
    page.section("The voice")
    page.table(
        ["makes it harder", "present", "adds"],
        [[name, complexity[name], f"{share:.0%}"] for name, share in complexity["shares"].items()],
        f"Accent: {_ACCENT[complexity['accent_evidence']]}.",
    )
    page.table(
        ["measure", "value"],
        [[_MEASURE_NAMES[name], value] for name, value in complexity["measures"].items()],
    )


def _worst(page: Page, dataset: Dataset, worst: Sequence[tuple[ClipMeasures, ClipQuality]]) -> None:
    if not worst:
        return
    page.section("The weakest clips", "Listen to them first; drop or record again what disturbs.")
    page.table(
        ["clip", "recording", "at (s)", "quality", "SNR (dB)", "what to do", "text"],
        [
            [
                clip.row.id,
                clip.row.source,
                round(clip.row.start_sample / clip.row.source_rate_hz, 2),
                quality.score,
                None if clip.snr_db is None else round(clip.snr_db, 1),
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
