"""A recorded curve put before the stop decision: what it would have done, and a picture of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.report.figures import ACCENT, MUTED, WARM, new_figure, to_png
from kamerton.smart_tuner.early_stop import EarlyStopController, known_drops
from kamerton.smart_tuner.recorded_curve import RecordedCurve
from kamerton.stopping import Decision, Replay


@dataclass(frozen=True, slots=True)
class PlayedCurve:
    """A curve and what the decision made of it; ``planned`` is the budget in steps."""

    curve: RecordedCurve
    replay: Replay
    planned: int
    planned_from: str


def replay_curve(
    curve: RecordedCurve, *, planned: int | None = None, params: EarlyStoppingParams | None = None
) -> PlayedCurve:
    """Feed the curve to the decision as if it were being trained.

    Args:
        curve: At least one evaluation.
        planned: The budget; by default that of the record, or its last step.
        params: By default those of the run, or the parameters' defaults.
    """
    if planned is not None:
        budget, source = planned, "as given"
    elif curve.planned is not None:
        budget, source = curve.planned, "as recorded"
    else:
        budget, source = (
            max(1, curve.steps[-1]),
            "its last step: name the real budget with --planned",
        )
    own = curve.lived.train
    params = params or (EarlyStoppingParams() if own is None else own.early_stopping)
    return PlayedCurve(curve, _play(curve, budget, params), budget, source)


def _play(curve: RecordedCurve, budget: int, params: EarlyStoppingParams) -> Replay:
    """As the run's own hook, or as ``kamerton.stopping.replay``, with all that the record knows.

    What was held for a recovery is held here.
    """
    controller = _controller(curve, budget, params)
    decisions: list[Decision] = []
    for observation in curve.observations:
        recovered = curve.lived.recovered_before(observation.step)
        decisions.append(controller.decide(observation, recovered))
        if decisions[-1].stop:
            break
    seen = [value if math.isfinite(value) else math.inf for value in curve.values[: len(decisions)]]
    stop = len(decisions) - 1 if decisions[-1].stop else None
    return Replay(stop, seen.index(min(seen)), tuple(decisions))


def _controller(
    curve: RecordedCurve, budget: int, params: EarlyStoppingParams
) -> EarlyStopController:
    train = curve.lived.train
    if train is not None:
        return EarlyStopController.of(
            params, budget, interval=train.eval_interval_steps, drops=known_drops(train, budget),
            recovery=train.recovery,
        )  # fmt: skip
    distances = [after - before for before, after in pairwise(curve.steps)]
    return EarlyStopController.of(params, budget, interval=median(distances) if distances else 1)


def replay_facts(played: PlayedCurve) -> dict[str, Any]:
    """What there is to say, as plain values; steps are optimiser steps, or the file's."""
    curve, found = played.curve, played.replay
    deciding = found.decisions[-1]
    last = curve.steps[-1] if found.stop_index is None else curve.steps[found.stop_index]
    finite = [index for index, value in enumerate(curve.values) if math.isfinite(value)]
    best = min(finite, key=lambda index: curve.values[index], default=0)
    saved = 0 if found.stop_index is None else played.planned - last
    return {
        "metric": curve.metric,
        "evaluations": len(curve.steps),
        "planned_steps": played.planned,
        "planned_from": played.planned_from,
        "stop": None
        if found.stop_index is None
        else {
            "step": last, "cause": deciding.cause, "reason": deciding.reason,
            "index": found.stop_index,
        },
        "checkpoint": _point(curve, found.checkpoint_index),
        "best": _point(curve, best),
        "regret": _regret(curve, found.checkpoint_index, finite, best),
        "saved_steps": saved,
        "saved_share": saved / played.planned,
        "decided_step": deciding.step,
        "votes": [asdict(vote) for vote in deciding.votes],
        "status": deciding.status,
        "overfitting": deciding.overfitting,
    }  # fmt: skip


def _point(curve: RecordedCurve, index: int) -> dict[str, float]:
    return {"step": curve.steps[index], "value": curve.values[index]}


def _regret(curve: RecordedCurve, kept: int, finite: list[int], best: int) -> float | None:
    """What is lost by keeping that checkpoint, as a share of the range; None without numbers."""
    if not finite:
        return None
    span = curve.values[finite[0]] - curve.values[best]
    return (curve.values[kept] - curve.values[best]) / span if span > 0.0 else 0.0


def draw_replay(played: PlayedCurve) -> bytes:
    """The curve, what of it would not have been trained, and below it the evidence. PNG."""
    curve, found = played.curve, played.replay
    figure, (above, below) = new_figure(8.0, 4.4, rows=2)
    seen = len(found.decisions)
    above.plot(curve.steps[:seen], curve.values[:seen], color=ACCENT, linewidth=1.3, label="seen")
    above.plot(curve.steps[seen - 1 :], curve.values[seen - 1 :], color=MUTED, linewidth=1.0)
    kept = found.checkpoint_index
    above.plot([curve.steps[kept]], [curve.values[kept]], "o", color=WARM, label="kept")
    steps = [decision.step for decision in found.decisions]
    below.plot(steps, [decision.evidence for decision in found.decisions], color=ACCENT,
               linewidth=1.0, label="evidence for a stop")  # fmt: skip
    shares = [min(1.5, d.waited_steps / max(d.patience_steps, 1e-9)) for d in found.decisions]
    below.plot(steps, shares, color=WARM, linewidth=1.0, label="patience used up")
    for place in (above, below):
        if found.stop_index is not None:
            place.axvline(curve.steps[found.stop_index], color="#b3261e", linewidth=1.0)
        place.set_xlim(0, max(played.planned, curve.steps[-1]))
        place.legend(fontsize=7)
    stop = found.decisions[-1]
    above.set_title(
        f"stop at step {stop.step}: {stop.cause}" if stop.stop else "no stop", fontsize=9
    )
    above.set(ylabel=curve.metric)
    below.set(xlabel="step", ylim=(-1.05, 1.55))
    return to_png(figure)
