"""The gates between an evaluation and the champion's alias, and what each says in words.

A number that is missing or not finite fails its gate: a comparison with NaN is false, and the
usual way to write a check ("reject if worse") would let it through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kamerton.config.schema import PromoteParams
from kamerton.evaluation.scorecard import Score, Scorecard
from kamerton.metrics.statistics import Bootstrap

GATED_METRICS = ("mcd_dtw", "estoi_dtw")  # the recogniser hears every sentence


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition and how it came out; ``value`` is None when it could not be computed."""

    name: str
    value: float | None
    threshold: float
    passed: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For promotion.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Champion:
    """What is known of the current champion's evaluation.

    Attributes:
        version: Its version in the registry.
        scorecard: Its scorecard.
        utterances: Its rows of utterances.jsonl.
    """

    version: str
    scorecard: Scorecard
    utterances: Sequence[Mapping[str, Any]]


def absolute_gates(card: Scorecard, params: PromoteParams) -> list[Gate]:
    """The conditions on the candidate by itself, relative to its copy-synthesis ceiling."""
    gates = [
        _at_least("items", float(card.items), params.min_items, "test sentences", 0),
        *(
            _at_least(
                f"coverage_{name}",
                card.coverage.get(name),
                params.min_coverage,
                f"share of the sentences that {name} could measure",
                3,
            )
            for name in GATED_METRICS
        ),
        _at_least(
            "aligned_share",
            card.attention.get("aligned_share"),
            params.min_aligned_share,
            "share of the sentences with aligned attention",
            3,
        ),
        _at_most(
            "wer_over_ceiling",
            _above_ceiling(card.metrics.get("wer")),
            params.max_wer_over_ceiling,
            "word error rate above that of copy-synthesis",
        ),
        _at_most(
            "mcd_over_ceiling_db",
            _above_ceiling(card.metrics.get("mcd_dtw")),
            params.max_mcd_over_ceiling_db,
            "mel-cepstral distortion above that of copy-synthesis, in dB",
        ),
        _at_least(
            "estoi_share_of_ceiling",
            _share_of_ceiling(card.metrics.get("estoi_dtw")),
            params.min_estoi_share_of_ceiling,
            "extended STOI as a share of that of copy-synthesis",
            3,
        ),
    ]
    return gates


def why_not_comparable(card: Scorecard, champion: Champion) -> str | None:
    """Why the champion's numbers cannot be held against these, or None if they can."""
    if champion.scorecard.eval_set_sha256 != card.eval_set_sha256:
        return f"version {champion.version} was measured on other test sentences"
    if champion.scorecard.definitions_sha256 != card.definitions_sha256:
        changed = sorted(
            name
            for name in {*card.definitions, *champion.scorecard.definitions}
            if card.definitions.get(name) != champion.scorecard.definitions.get(name)
        )
        return (
            f"version {champion.version} was measured with another definition of "
            f"{', '.join(changed)}"
        )
    return None


def champion_gates(
    card: Scorecard,
    utterances: Sequence[Mapping[str, Any]],
    champion: Champion,
    params: PromoteParams,
) -> list[Gate]:
    """Whether the candidate is, with confidence, not worse than a comparable champion.

    The two are compared sentence by sentence. What counts is the end of the interval that is bad
    for the candidate: a small test set has to be much better to be believed.
    """
    bootstrap = Bootstrap(
        samples=int(card.bootstrap["samples"]),
        level=float(card.bootstrap["level"]),
        seed=int(card.bootstrap["seed"]),
    )
    pairs = _paired(utterances, champion.utterances)
    return [
        _not_worse(
            "wer_against_champion",
            [_word_errors(row) for row, _ in pairs],
            [_word_errors(row) for _, row in pairs],
            params.non_inferiority_wer,
            bootstrap,
            what=f"word error rate above that of version {champion.version}",
            weights=[_words(row) for row, _ in pairs],
        ),
        _not_worse(
            "mcd_against_champion_db",
            [_distortion(row) for row, _ in pairs],
            [_distortion(row) for _, row in pairs],
            params.non_inferiority_mcd_db,
            bootstrap,
            what=f"mel-cepstral distortion above that of version {champion.version}, in dB",
        ),
    ]


def _paired(
    candidate: Sequence[Mapping[str, Any]], champion: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    other = {row["id"]: row for row in champion}
    return [(row, other[row["id"]]) for row in candidate if row["id"] in other]


def _word_errors(row: Mapping[str, Any]) -> float | None:
    found = row["errors"]["synthesis"]
    return float(found["substitutions"] + found["deletions"] + found["insertions"])


def _words(row: Mapping[str, Any]) -> float:
    return float(row["errors"]["synthesis"]["words"])


def _distortion(row: Mapping[str, Any]) -> float | None:
    value = row["synthesis"]["mcd_dtw"]["value"]
    return None if value is None else float(value)


def _not_worse(
    name: str,
    candidate: Sequence[float | None],
    champion: Sequence[float | None],
    margin: float,
    bootstrap: Bootstrap,
    *,
    what: str,
    weights: Sequence[float] | None = None,
) -> Gate:
    """Pass if the upper end of candidate minus champion, lower being better, is in the margin."""
    sizes = weights if weights is not None else [1.0] * len(candidate)
    both = [
        (left, right, size)
        for left, right, size in zip(candidate, champion, sizes, strict=True)
        if _finite(left) and _finite(right)
    ]
    if not both:
        return Gate(name, None, margin, False, f"{what}: no sentence was measured for both")
    lefts, rights, weight = (list(column) for column in zip(*both, strict=True))
    found = bootstrap.paired_difference(lefts, rights, weight)
    passed = found.high <= margin
    reason = (
        f"{what}: {found.value:+.3f} ({bootstrap.level:.0%} interval {found.low:+.3f} to "
        f"{found.high:+.3f}, {found.items} sentences); the upper end may be {margin:+.3f} at most"
    )
    return Gate(name, round(found.high, 6), margin, passed, reason)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _above_ceiling(score: Score | None) -> float | None:
    if score is None or score.value is None or score.ceiling is None:
        return None
    return score.value - score.ceiling


def _share_of_ceiling(score: Score | None) -> float | None:
    if score is None or score.value is None or score.ceiling is None:
        return None
    if not math.isfinite(score.ceiling) or score.ceiling <= 0:
        return None
    return score.value / score.ceiling


def _at_least(name: str, value: float | None, threshold: float, what: str, digits: int) -> Gate:
    if value is None or not math.isfinite(value):
        return Gate(name, None, threshold, False, f"{what}: not measured")
    passed = value >= threshold
    reason = f"{what}: {value:.{digits}f}, at least {threshold:.{digits}f} wanted"
    return Gate(name, round(value, 6), threshold, passed, reason)


def _at_most(name: str, value: float | None, threshold: float, what: str) -> Gate:
    if value is None or not math.isfinite(value):
        return Gate(name, None, threshold, False, f"{what}: not measured")
    reason = f"{what}: {value:+.3f}, at most {threshold:+.3f} wanted"
    return Gate(name, round(value, 6), threshold, value <= threshold, reason)
