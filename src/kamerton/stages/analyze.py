"""Measure the dataset and recommend how long to train."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kamerton.config.schema import Params
from kamerton.core.errors import InputEmptyError
from kamerton.core.files import require_new, write_json, write_text
from kamerton.core.progress import Progress, silent
from kamerton.data import analysis_page
from kamerton.data.analysis import (
    COMPONENTS,
    ClipQuality,
    clip_quality,
    complexity_of,
    dataset_quality,
    measure_voice,
    worst_clips,
)
from kamerton.data.epoch_rule import COMPLEXITY_SHARES, quality_of, recommend
from kamerton.data.manifest import Dataset
from kamerton.data.measures import ClipMeasures, measure_clip

_SECONDS_AN_HOUR = 3600.0
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class AnalyzeReport:
    """How long to train, and why."""

    hours: float
    clips: int
    quality_score: float
    quality_label: str
    complexity_label: str
    complexity_multiplier: float
    recommended_epochs: int
    confidence: float
    reasons: tuple[str, ...]

    @property
    def partial(self) -> bool:
        """Never: a clip that cannot be read is an error."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat figures for the pipeline's metrics."""
        return {
            "hours": self.hours,
            "clips": float(self.clips),
            "quality_score": self.quality_score,
            "complexity_multiplier": self.complexity_multiplier,
            "recommended_epochs": float(self.recommended_epochs),
            "confidence": self.confidence,
        }

    def summary(self) -> list[tuple[str, str]]:
        """What the terminal shows."""
        return [
            ("hours", f"{self.hours:.3f} in {self.clips} clips"),
            ("quality", f"{self.quality_score:.2f} ({self.quality_label})"),
            ("complexity", f"×{self.complexity_multiplier:.1f} ({self.complexity_label})"),
            ("recommended epochs", str(self.recommended_epochs)),
            ("confidence (heuristic)", f"{self.confidence:.2f}"),
            *(("because", reason) for reason in self.reasons),
        ]


def analyze(
    dataset: Path,
    analysis: Path,
    report: Path,
    params: Params,
    *,
    force: bool = False,
    on_progress: Progress = silent,
) -> AnalyzeReport:
    """Measure every clip of ``dataset`` and write ``analysis`` (JSON) and a page about it.

    Raises:
        InputMissingError, InputCorruptError: the dataset is not there, or damaged.
        InputEmptyError: it holds no clips.
    """
    require_new(analysis, force=force)
    require_new(report, force=force)
    opened = Dataset.open(dataset)
    if not opened.rows():
        hint = "run `kamerton dataset --force`, and see its report for what was dropped"
        raise InputEmptyError(dataset, wanted="clips", hint=hint)
    clips = _measure(opened, on_progress)
    worst = worst_clips(clips, params.analyze.worst_clips)
    result = _analysis(opened, clips, worst, params)
    write_text(report, analysis_page.render(opened, result, clips, worst))
    write_json(analysis, result)
    return _report(result)


def _measure(dataset: Dataset, on_progress: Progress) -> list[ClipMeasures]:
    rows = dataset.rows()
    total = 2 * len(rows)
    peaks: dict[str, float] = {}
    for done, row in enumerate(rows):
        on_progress(done, total, "levels")
        wave, _ = dataset.audio(row)
        peak = float(np.abs(wave).max(initial=0.0))
        peaks[row.source] = max(peaks.get(row.source, 0.0), peak)
    clips = []
    for done, row in enumerate(rows, start=len(rows)):
        on_progress(done, total, row.source)
        clips.append(measure_clip(row, dataset.audio(row)[0], peaks[row.source]))
    on_progress(total, total)
    return clips


def _analysis(
    dataset: Dataset,
    clips: Sequence[ClipMeasures],
    worst: Sequence[tuple[ClipMeasures, ClipQuality]],
    params: Params,
) -> dict[str, Any]:
    hours = sum(clip.row.duration_seconds for clip in clips) / _SECONDS_AN_HOUR
    quality = dataset_quality(clips)
    voice = measure_voice(clips)
    complexity = complexity_of(voice, params.analyze)
    advice = recommend(hours, quality.score, complexity, params.analyze)
    return {
        "dataset_sha256": dataset.card["content_sha256"],
        "hours": round(hours, 6),
        "clips": len(clips),
        "size": advice.size,
        "quality": {
            "score": round(quality.score, _DIGITS),
            "label": advice.quality,
            "components": _rounded(quality.components),
            "weights": {name: weight for name, (weight, _) in COMPONENTS.items()},
            "measured_clips": _measured_clips(clips),
        },
        "complexity": {
            **asdict(complexity),
            "label": complexity.label,
            "multiplier": round(1.0 + complexity.added_share, _DIGITS),
            "shares": dict(COMPLEXITY_SHARES),
            "measures": _rounded(asdict(voice)),
        },
        "base_epochs": advice.base_epochs,
        "recommended_epochs": advice.recommended_epochs,
        "confidence": advice.confidence,
        "reasons": list(advice.reasons),
        "worst_clips": [
            {
                "id": clip.row.id,
                "source": clip.row.source,
                "start_seconds": round(clip.row.start_sample / clip.row.source_rate_hz, 3),
                "score": round(quality.score, _DIGITS),
                "label": quality_of(quality.score)[0],
                "problems": list(quality.problems),
            }
            for clip, quality in worst
        ],
    }


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if v is None else round(v, _DIGITS) for name, v in values.items()}


def _measured_clips(clips: Sequence[ClipMeasures]) -> dict[str, int]:
    qualities = [clip_quality(clip) for clip in clips]
    return {
        name: sum(quality.components[name] is not None for quality in qualities)
        for name in COMPONENTS
    }


def _report(result: Mapping[str, Any]) -> AnalyzeReport:
    return AnalyzeReport(
        hours=result["hours"],
        clips=result["clips"],
        quality_score=result["quality"]["score"],
        quality_label=result["quality"]["label"],
        complexity_label=result["complexity"]["label"],
        complexity_multiplier=result["complexity"]["multiplier"],
        recommended_epochs=result["recommended_epochs"],
        confidence=result["confidence"],
        reasons=tuple(result["reasons"]),
    )
