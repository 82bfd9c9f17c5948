"""Measure the dataset and recommend how long to train."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kamerton.config.schema import AnalyzeParams, Params
from kamerton.core.errors import InputCorruptError, InputEmptyError
from kamerton.core.files import require_apart, require_new, write_json, write_text
from kamerton.core.progress import Progress, silent
from kamerton.core.workers import Crashed, Workers, usable_cores
from kamerton.data import analysis_page
from kamerton.data.advice import Advice, advise
from kamerton.data.analysis import (
    COMPONENTS,
    ClipQuality,
    VoiceMeasures,
    accent_evidence,
    clip_quality,
    complexity_of,
    dataset_quality,
    measure_voice,
    measured_share,
    worst_clips,
)
from kamerton.data.by_recording import RecordingMeasures, by_recording
from kamerton.data.epoch_rule import COMPLEXITY_SHARES, Complexity, quality_of, recommend
from kamerton.data.manifest import Dataset, Row
from kamerton.data.measures import ClipMeasures, MeasuringTask, measure_task
from kamerton.smart_tuner.epoch_advisor import EpochAdvisor
from kamerton.smart_tuner.history import Descriptors

_SECONDS_A_MINUTE, _SECONDS_AN_HOUR = 60.0, 3600.0
_DIGITS = 4
# Starting processes takes seconds; less sound than this is measured sooner without.
_SECONDS_FOR_WORKERS = 1800.0
_SECONDS_A_TASK = 300.0


@dataclass(frozen=True, slots=True)
class AnalyzeReport:
    """How long to train, and why."""

    hours: float
    clips: int
    quality_score: float
    quality_label: str
    complexity_label: str
    complexity_multiplier: float
    rule_epochs: int
    recommended_epochs: int
    history_runs: int
    confidence: float
    reasons: tuple[str, ...]
    recommendations: tuple[str, ...]

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
            "rule_epochs": float(self.rule_epochs),
            "recommended_epochs": float(self.recommended_epochs),
            "history_runs": float(self.history_runs),
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
            *(("better", recommendation) for recommendation in self.recommendations),
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

    The recommendation is the rule's, corrected by the runs in ``analyze.history`` if there is one.
    All cores measure where there is more than half an hour of sound.

    Raises:
        InputMissingError, InputCorruptError: the dataset is not there, or damaged.
        InputEmptyError: it holds no clips.
    """
    for output in (analysis, report):
        require_new(output, force=force)
        require_apart(output, dataset)
    opened = Dataset.open(dataset)
    if not opened.rows():
        hint = "run `kamerton dataset --force`, and see its report for what was dropped"
        raise InputEmptyError(dataset, wanted="clips", hint=hint)
    clips = _measure(opened, on_progress)
    worst = worst_clips(clips, params.analyze.worst_clips)
    recordings, advice = by_recording(clips), advise(clips, params.analyze)
    whole = _Whole.of(clips, params.analyze)
    result = _analysis(opened, clips, worst, whole, params)
    result |= _recommendation(opened, result, whole, params)
    result["recordings"] = [_about_recording(recording) for recording in recordings]
    result["recommendations"] = [_about_advice(piece) for piece in advice]
    page = analysis_page.render(opened, result, clips, worst, recordings, advice)
    write_text(report, page)
    write_json(analysis, result)
    return _report(result)


def _measure(dataset: Dataset, on_progress: Progress) -> list[ClipMeasures]:
    """Measures of every clip in the order of the manifest; progress is in seconds of sound."""
    total = sum(row.duration_seconds for row in dataset.rows())
    tasks = [MeasuringTask(dataset.path, rows) for rows in _portions(dataset.rows())]
    done = [0.0] * len(tasks)
    measured: list[list[ClipMeasures]] = [[] for _ in tasks]
    on_progress(0.0, total)

    def tick(number: int, seconds: float) -> None:
        done[number] = seconds
        on_progress(min(sum(done), total), total, tasks[number].rows[0].source)

    with Workers(usable_cores() if total > _SECONDS_FOR_WORKERS else 0) as workers:
        for number, answer in workers.run(measure_task, tasks, tick):
            if isinstance(answer, Crashed):
                problem = f"holds a clip at which a process ends with code {answer.exit_code}"
                hint = "check it with `kamerton check --deep`"
                raise InputCorruptError(dataset.path, problem=problem, hint=hint)
            measured[number] = answer
    on_progress(total, total)
    return [clip for portion in measured for clip in portion]


def _portions(rows: Sequence[Row]) -> Iterator[tuple[Row, ...]]:
    """The rows in tasks of about five minutes of sound."""
    portion: list[Row] = []
    seconds = 0.0
    for row in rows:
        portion.append(row)
        seconds += row.duration_seconds
        if seconds >= _SECONDS_A_TASK:
            yield tuple(portion)
            portion, seconds = [], 0.0
    if portion:
        yield tuple(portion)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Measures of the dataset as a whole."""

    hours: float
    quality: ClipQuality
    voice: VoiceMeasures
    complexity: Complexity
    measured_share: float

    @classmethod
    def of(cls, clips: Sequence[ClipMeasures], params: AnalyzeParams) -> Self:
        voice = measure_voice(clips)
        return cls(
            hours=sum(clip.row.duration_seconds for clip in clips) / _SECONDS_AN_HOUR,
            quality=dataset_quality(clips),
            voice=voice,
            complexity=complexity_of(voice, params),
            measured_share=measured_share(clips),
        )


def _analysis(
    dataset: Dataset,
    clips: Sequence[ClipMeasures],
    worst: Sequence[tuple[ClipMeasures, ClipQuality]],
    whole: _Whole,
    params: Params,
) -> dict[str, Any]:
    quality, complexity = whole.quality, whole.complexity
    origins = Counter(clip.snr_origin for clip in clips)
    return {
        "dataset_sha256": dataset.card["content_sha256"],
        "params": params.analyze.model_dump(mode="json"),
        "hours": round(whole.hours, 6),
        "clips": len(clips),
        "quality": {
            "score": round(quality.score, _DIGITS),
            "label": quality_of(quality.score)[0],
            "components": _rounded(quality.components),
            "weights": {name: weight for name, (weight, _) in COMPONENTS.items()},
            "measured_clips": _measured_clips(clips),
            "measured_share": round(whole.measured_share, _DIGITS),
            "snr_from": {origin: origins[origin] for origin in ("pauses", "waveform")},
        },
        "complexity": {
            **asdict(complexity),
            "accent_evidence": accent_evidence(clips, params.analyze),
            "label": complexity.label,
            "multiplier": round(1.0 + complexity.added_share, _DIGITS),
            "shares": dict(COMPLEXITY_SHARES),
            "measures": _rounded(asdict(whole.voice)),
        },
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


def _recommendation(
    dataset: Dataset, result: Mapping[str, Any], whole: _Whole, params: Params
) -> dict[str, Any]:
    """How long to train: the rule's answer and, apart from it, what history makes of it."""
    rule = recommend(
        whole.hours, whole.quality.score, whole.complexity, params.analyze, whole.measured_share
    )
    descriptors = Descriptors.of(result, dataset.card)
    advice = EpochAdvisor.of(params.analyze).advise(
        rule, descriptors, dataset.card["content_sha256"]
    )
    return {
        "size": rule.size,
        "base_epochs": rule.base_epochs,
        "rule_epochs": rule.recommended_epochs,
        "rule_confidence": rule.confidence,
        "rule_reasons": list(rule.reasons),
        "descriptors": asdict(descriptors),
        "recommended_epochs": advice.recommended_epochs,
        "confidence": advice.confidence,
        "history": advice.correction.as_dict(),
        "reasons": list(advice.reasons),
    }


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if v is None else round(v, _DIGITS) for name, v in values.items()}


def _about_recording(recording: RecordingMeasures) -> dict[str, Any]:
    measures = {
        "snr_db": recording.snr_db,
        "clipped_share": recording.clipped_share,
        "bandwidth_hz": recording.bandwidth_hz,
        "loudness_lufs": recording.loudness_lufs,
        "median_f0_hz": recording.f0_hz,
    }
    return {
        "source": recording.source,
        "clips": len(recording.clips),
        "minutes": round(recording.seconds / _SECONDS_A_MINUTE, _DIGITS),
        **_rounded(measures),
        "quality": round(recording.quality.score, _DIGITS),
        "components": _rounded(recording.quality.components),
        "problems": list(recording.quality.problems),
    }


def _about_advice(advice: Advice) -> dict[str, Any]:
    return {
        "text": advice.text,
        "source": advice.source,
        "clips": list(advice.clip_ids),
        "minutes": round(advice.seconds / _SECONDS_A_MINUTE, _DIGITS),
        "quality": round(advice.quality.score, _DIGITS),
        "problems": list(advice.problems),
        **{
            name: {
                "hours": round(outlook.hours, 6),
                "quality": round(outlook.quality, _DIGITS),
                "recommended_epochs": outlook.epochs,
            }
            for name, outlook in (
                ("before", advice.before),
                ("without", advice.without),
                ("again", advice.again),
            )
        },
    }


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
        rule_epochs=result["rule_epochs"],
        recommended_epochs=result["recommended_epochs"],
        history_runs=result["history"]["used_runs"],
        confidence=result["confidence"],
        reasons=tuple(result["reasons"]),
        recommendations=tuple(piece["text"] for piece in result["recommendations"]),
    )
