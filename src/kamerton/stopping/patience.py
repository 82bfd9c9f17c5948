"""How long a run that finds nothing better is borne with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kamerton.config.stopping_section import EarlyStoppingParams, EnsembleWeights, PatienceStage
from kamerton.stopping.types import Vote

SURPRISE = 0.1  # misfit, as a share of the range, that counts in full


def evidence(votes: Sequence[Vote], weights: EnsembleWeights) -> float:
    """Weighted mean of score times confidence, in [-1, 1]; 1 is all for stopping.

    A group's weight is divided among its voters that have anything to go by. A voter without
    confidence is absent and its weight goes to the others; a doubtful one counts as half silent,
    so that a single weak opinion makes no strong evidence.
    """
    by_group: Mapping[str, float] = weights.model_dump()
    present = [vote for vote in votes if vote.group is not None and vote.confidence > 0.0]
    total = weighted = 0.0
    for vote in present:
        members = sum(other.group == vote.group for other in present)
        weight = by_group[str(vote.group)] / members
        total += weight
        weighted += weight * vote.confidence * vote.score
    return weighted / total if total > 0.0 else 0.0


def stage_of(stages: Sequence[PatienceStage], share: float) -> PatienceStage:
    """The stage in which this share of the plan lies; the last from its end on."""
    whole = sum(stage.share for stage in stages)
    end = 0.0
    for stage in stages:
        end += stage.share / whole
        if share < end:
            return stage
    return stages[-1]


def patience(
    params: EarlyStoppingParams,
    planned: float,
    share: float,
    evidence: float,
    *,
    aligned: bool,
    misfit: float = 0.0,
) -> float:
    """Steps without anything better to bear now.

    Args:
        params: Share of the plan, stages and gain.
        planned: Steps of the whole plan.
        share: How much of it is over.
        evidence: Of the voters; for stopping shortens, against it lengthens the patience.
        aligned: Whether attention reads, or there is none. One that does not yet is borne with as
            in the most patient stage, however late it is.
        misfit: Of the forecast. A curve that has surprised once is given more time for it to do so
            again.
    """
    base = params.patience_share * planned
    if not params.adaptive_patience:
        return base
    stages = params.stages
    if aligned:
        multiplier = stage_of(stages, share).multiplier
    else:
        multiplier = max(stage.multiplier for stage in stages)
    if share < params.forecast.min_share:
        evidence = min(0.0, evidence)
    surprise = 1.0 + params.surprise_gain * min(1.0, misfit / SURPRISE)
    return base * multiplier * surprise * (1.0 - params.evidence_gain * evidence)
