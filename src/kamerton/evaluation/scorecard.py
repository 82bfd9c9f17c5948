"""The numbers of one evaluation, each with its interval, its ceiling and its definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json, read_jsonl, sha256_file, sha256_json
from kamerton.evaluation.measure import PLAIN_METRICS, WARPED_METRICS, UtteranceScores
from kamerton.metrics.alignment import summarise_attention
from kamerton.metrics.statistics import Bootstrap

METRICS_FILE = "metrics.json"
UTTERANCES_FILE = "utterances.jsonl"
SAMPLES_FOLDER = "samples"
FORMAT_VERSION = 1

_AGAIN = "evaluate again: `kamerton evaluate --force`"
_DIGITS = 6
_HALF_WRONG = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """One metric over the test set.

    Attributes:
        value: Mean over sentences, or errors over words; None when nothing was measured.
        low: Lower end of its confidence interval.
        high: Upper end.
        ceiling: The same of copy-synthesis: what a perfect acoustic model would reach.
        original: The same of the recordings themselves, for what a recogniser measures.
        n: Sentences measured.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    ceiling: float | None = None
    original: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What metrics.json holds.

    Attributes:
        items: Test sentences.
        eval_set_sha256: Of ids, texts and sounds of the test sentences.
        dataset_sha256: Content hash of the dataset that they came from.
        model_sha256: Of the weights that spoke.
        definitions: How each number is made, recogniser and vocoder included.
        bootstrap: Samples, level and seed behind the intervals.
        metrics: Scores by metric.
        coverage: Share of the sentences that each metric could measure.
        copy_synthesis: Plain metrics of copy-synthesis; None when nothing was measured.
        attention: Median and worst scores, share aligned, runaways.
        half_wrong_share: Share of the sentences with more than half of the words wrong.
        training: What the model says of its training: data, parameters, seed, steps.
    """

    items: int
    eval_set_sha256: str
    dataset_sha256: str
    model_sha256: str
    definitions: Mapping[str, str]
    bootstrap: Mapping[str, float]
    metrics: Mapping[str, Score]
    coverage: Mapping[str, float]
    copy_synthesis: Mapping[str, float | None]
    attention: Mapping[str, float]
    half_wrong_share: float
    training: Mapping[str, Any]

    @property
    def definitions_sha256(self) -> str:
        """Equal for evaluations whose numbers may be compared."""
        return sha256_json(dict(self.definitions))

    def as_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "format_version": FORMAT_VERSION,
            **asdict(self),
            "definitions_sha256": self.definitions_sha256,
        }

    @classmethod
    def read(cls, folder: Path, *, produced_by: str = "evaluate") -> Self:
        """Read the scorecard of an evaluation folder.

        Raises:
            InputMissingError: there is none.
            InputCorruptError: it is of another format, or a part is missing.
        """
        path = folder / METRICS_FILE
        content = read_json(path, produced_by=produced_by)
        if content.get("format_version") != FORMAT_VERSION:
            problem = f"has format {content.get('format_version')!r}, not {FORMAT_VERSION}"
            raise InputCorruptError(path, problem=problem, hint=_AGAIN)
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__}
            values["metrics"] = {name: Score(**row) for name, row in values["metrics"].items()}
            _require_numbers(values)
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"is not a scorecard ({type(error).__name__}: {error})"
            raise InputCorruptError(path, problem=problem, hint=_AGAIN) from error


def read_utterances(folder: Path, *, produced_by: str = "evaluate") -> list[dict[str, Any]]:
    """Read the rows of utterances.jsonl, as far as a comparison needs them.

    Raises:
        InputMissingError: there are none.
        InputCorruptError: a row lacks what is compared; its line is named.
    """
    path = folder / UTTERANCES_FILE
    rows = read_jsonl(path, produced_by=produced_by)
    for number, row in enumerate(rows, start=1):
        try:
            errors, found = row["errors"]["synthesis"], row["synthesis"]["mcd_dtw"]["value"]
            counts = [errors[kind] for kind in ("substitutions", "deletions", "insertions")]
            sound = isinstance(row["id"], str) and all(
                _is_number(value) for value in (*counts, errors["words"])
            )
            if not sound or not (found is None or _is_number(found)):
                raise TypeError("an id that is not text, or a count that is not a number")
        except (KeyError, TypeError) as error:
            problem = f"is not the row of a sentence ({type(error).__name__}: {error})"
            raise InputCorruptError(f"{path}:{number}", problem=problem, hint=_AGAIN) from error
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require_numbers(values: Mapping[str, Any]) -> None:
    """Refuse text where the gates compute; NaN is a number, and fails its gate."""
    scores = [number for score in values["metrics"].values() for number in asdict(score).values()]
    blocks = [values[name].values() for name in ("coverage", "attention", "bootstrap")]
    for number in (values["items"], *scores, *(one for block in blocks for one in block)):
        if number is not None and not _is_number(number):
            raise TypeError(f"{number!r} is not a number")
    for name in ("samples", "level", "seed"):
        if values["bootstrap"][name] is None:
            raise TypeError(f"bootstrap.{name} is null")


def evaluation_hash(folder: Path) -> str:
    """Identity of an evaluation: its numbers, and not what else lies beside them."""
    files = (METRICS_FILE, UTTERANCES_FILE)
    return sha256_json({name: sha256_file(folder / name) for name in files})


def eval_set_hash(sentences: Sequence[tuple[str, str, str]]) -> str:
    """Identity of a test set of (id, text, hash of the sound); the order does not matter."""
    return sha256_json(sorted(list(sentence) for sentence in sentences))


def score_utterances(
    rows: Sequence[UtteranceScores], bootstrap: Bootstrap
) -> tuple[dict[str, Score], dict[str, float], dict[str, float | None]]:
    """Scores, coverage, and the plain metrics of copy-synthesis, over all sentences.

    A sentence that a metric could not measure is left out of its mean and lowers its coverage.
    """
    scores: dict[str, Score] = {}
    coverage: dict[str, float] = {}
    for name in WARPED_METRICS:
        values = [row.synthesis[name].value for row in rows]
        ceilings = [row.copy_synthesis[name].value for row in rows]
        scores[name] = _mean_score(values, ceilings, bootstrap)
        coverage[name] = round(scores[name].n / len(rows), _DIGITS)
    scores["wer"] = _rate_score(rows, "errors", "words", bootstrap)
    scores["cer"] = _rate_score(rows, "character_errors", "characters", bootstrap)
    coverage["wer"] = coverage["cer"] = 1.0
    plain = {
        name: _mean([row.copy_synthesis[name].value for row in rows]) for name in PLAIN_METRICS
    }
    return scores, coverage, plain


def attention_block(rows: Sequence[UtteranceScores]) -> dict[str, float]:
    """Median and worst attention scores, the share aligned and the number of runaways."""
    summary = asdict(summarise_attention(row.attention for row in rows))
    summary["runaways"] = sum(not row.stopped for row in rows)
    return {name: round(value, _DIGITS) for name, value in summary.items()}


def half_wrong_share(rows: Sequence[UtteranceScores]) -> float:
    """Share of the sentences with more than half of the words wrong: skips and babble."""
    return round(sum(row.wer > _HALF_WRONG for row in rows) / len(rows), _DIGITS)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), _DIGITS) if known else None


def _mean_score(
    values: Sequence[float | None], ceilings: Sequence[float | None], bootstrap: Bootstrap
) -> Score:
    known = [value for value in values if value is not None]
    if not known:
        return Score(None, ceiling=_mean(ceilings))
    found = bootstrap.mean(known)
    return Score(
        value=round(found.value, _DIGITS),
        low=round(found.low, _DIGITS),
        high=round(found.high, _DIGITS),
        ceiling=_mean(ceilings),
        n=found.items,
    )


def _rate_score(
    rows: Sequence[UtteranceScores], errors: str, size: str, bootstrap: Bootstrap
) -> Score:
    """A rate of errors over the whole set, with its ceiling and that of the recordings."""

    def counts(source: str) -> tuple[list[float], list[float]]:
        found = [row.errors[source] for row in rows]
        return [getattr(one, errors) for one in found], [getattr(one, size) for one in found]

    found = bootstrap.ratio(*counts("synthesis"))
    rates = {}
    for source in ("copy_synthesis", "original"):
        above, below = counts(source)
        rates[source] = round(sum(above) / sum(below), _DIGITS)
    return Score(
        value=round(found.value, _DIGITS),
        low=round(found.low, _DIGITS),
        high=round(found.high, _DIGITS),
        ceiling=rates["copy_synthesis"],
        original=rates["original"],
        n=found.items,
    )
