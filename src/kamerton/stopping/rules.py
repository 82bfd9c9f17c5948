"""The rules that end a run, or keep it from being ended, each by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.stopping.view import View
from kamerton.stopping.voters.cusum import Cusum
from kamerton.stopping.voters.forecast import Outlook
from kamerton.stopping.voters.mann_kendall import trend
from kamerton.stopping.voters.overfitting import Assessment

HARD_CHECKS = 3  # in a row, before a hard rule believes what it sees
FORECAST_CHECKS = 2
TREND_BLOCKS = 12
PROMISE = 0.5  # probability of an improvement that is waited for
FALLING_PATIENCES = 2.0  # for how long a loss that comes down is waited for
_EVIDENT = 1.0  # of the range: a loss above where it began
_OUTSTANDING = 3.0  # deviations that the best of many evaluations may lie below their level
_FALLING = -1.0  # Z below which a loss that is high comes down again
_QUIET, _LOUD = 0.001, 0.01  # of the range: noise that forecasts need not mind, and do mind
_SETTLING = 0.15  # of the plan after alignment, in which the loss follows attention
_RECENT_ALARM = 6  # blocks


@dataclass(frozen=True, slots=True)
class Situation:
    """What rules are asked about at one check.

    Attributes:
        view: The curve.
        waited: Steps since anything better.
        ahead: The forecast; None where there is none.
        cusum: The sums; None where that voter is silent.
        risk: Of overfitting.
        unaligned: Attention is known, and has not read yet.
        aligned_for: Steps since it first read; None where it never did, or there is none.
        lost_for: Share of the plan since attention collapsed; None where it reads, or never did.
        noise: Of one evaluation, as a share of the range.
        annealing: The learning rate falls.
        drop_ahead: A known drop of the learning rate is still to come.
    """

    view: View
    waited: float
    ahead: Outlook | None
    cusum: Cusum | None
    risk: Assessment
    unaligned: bool
    aligned_for: float | None
    lost_for: float | None
    noise: float
    annealing: bool
    drop_ahead: bool


def diverges(now: Situation, params: EarlyStoppingParams) -> bool:
    """Whether the loss went up by much of its range, and does not come down again."""
    view = now.view
    if view.recent.size < 4 or view.span <= 0.0 or _heals(now.lost_for, params):
        return False
    above = (view.recent - view.best) / view.span
    lasts = params.divergence_wait * (0.4 if above[-1] > _EVIDENT else 1.0)
    stretch = max(HARD_CHECKS, round(lasts * view.blocks))
    return (
        above.size >= stretch
        and float(above[-stretch:].min()) > _risen(now, params)
        and trend(view.recent[-TREND_BLOCKS:]) > _FALLING
        and trend(view.recent[-6:]) > _FALLING
    )


def _risen(now: Situation, params: EarlyStoppingParams) -> float:
    """The rise above the best, in ranges, that is much.

    The best of many noisy evaluations lies below their level by some of their deviation. In a run
    that begins with good weights, whose range is small, that alone would be much.
    """
    return min(_EVIDENT, params.divergence_share + _OUTSTANDING * now.noise)


def collapses(now: Situation, params: EarlyStoppingParams) -> bool:
    """Whether attention is lost and the loss has followed, for longer than such a thing heals in.

    Some collapses recover by themselves, and the run goes on to a better optimum.
    """
    view = now.view
    return (
        now.lost_for is not None
        and now.lost_for >= params.collapse_wait
        and view.recent.size > 0
        and float(view.recent[-1]) > view.best + params.collapse_share * view.span
    )


def _heals(lost_for: float | None, params: EarlyStoppingParams) -> bool:
    """Whether attention is lost, but for so short a time that it may yet come back."""
    return lost_for is not None and lost_for < params.collapse_wait


def overfits(now: Situation, patience_steps: float) -> bool:
    """Whether the risk is high, and speech made freely gets no better either.

    The loss under teacher forcing rises long before speech gets worse. Where nothing is known of
    free-running speech, the rule is silent, and patience decides. So it is where the training loss
    is not known to fall: a loss that rises with attention half lost is no overfitting.
    """
    if now.risk.risk != "high" or now.waited < 0.5 * patience_steps or now.lost_for is not None:
        return False
    view = now.view
    if view.train.size < 4 or trend(view.train[-TREND_BLOCKS:]) >= 0.0:
        return False
    signals = [
        (view.attention, -1.0),
        (view.gate_f1, -1.0),
        (view.premature, 1.0),
        (view.runaway, 1.0),
    ]
    known = [values[-TREND_BLOCKS:] * sign for values, sign in signals if values.size >= 4]
    return bool(known) and all(trend(values) > _FALLING for values in known)


def forecast_objection(now: Situation, params: EarlyStoppingParams) -> str:
    """Why the forecast may not end the run; "" where it may.

    A forecast knows curves that flatten. It is blind to what changes a curve's course, so any sign
    of such a change takes the decision from it. Under noise it knows less, so it waits.
    """
    ahead, own, rules = now.ahead, params.forecast, params.rules
    if ahead is None:
        return "there is no forecast"
    wait = own.noisy_wait * min(1.0, max(0.0, (now.noise - _QUIET) / (_LOUD - _QUIET)))
    begin = own.min_share + wait
    objections = {
        f"less than {begin:.0%} of the plan is over": now.view.share < begin,
        f"the chance to improve is {ahead.probability:.1%}": (
            ahead.probability > own.stop_probability
        ),
        f"the curve is not as forecast (misfit {ahead.misfit:.1%})": ahead.misfit > own.max_misfit,
        "the learning rate will drop": rules.schedule and now.drop_ahead,
        "the learning rate is falling": (
            rules.schedule and now.annealing and not own.while_annealing
        ),
        "attention has not aligned": rules.guard and now.unaligned,
        "attention has only just aligned": (
            rules.guard
            and now.aligned_for is not None
            and now.aligned_for < _SETTLING * now.view.planned
        ),
        "attention is lost, and may come back": _heals(now.lost_for, params),
        "the level has just changed": _changed(now.cusum, params.cusum.threshold),
        "something better was only just found": now.waited < wait * now.view.planned,
        "the loss is above its best": _above(now.view, own.max_misfit),
    }
    return next((reason for reason, holds in objections.items() if holds), "")


def _changed(cusum: Cusum | None, threshold: float) -> bool:
    """Whether the sums say that the level has changed, or that it is about to rise."""
    return cusum is not None and (
        cusum.rising > 0.5 * threshold
        or cusum.alarmed("falling", _RECENT_ALARM)
        or cusum.alarmed("rising", _RECENT_ALARM)
    )


def _above(view: View, share: float) -> bool:
    """Whether the last three blocks are above the lowest by a share of the range and by noise."""
    lowest = min(float(view.values.min()), float(view.recent.min()))
    limit = lowest + share * view.span + 3.0 * view.noise
    return float(np.mean(view.recent[-3:])) > limit


def guard(
    params: EarlyStoppingParams,
    *,
    share: float,
    evaluations: int,
    unaligned: bool,
    next_drop: float | None,
    patience_steps: float,
    borne: float,
    falling: bool,
    ahead: Outlook | None,
    lost_for: float | None = None,
) -> str:
    """Why no patience may run out now; "" where it may.

    Args:
        params: Thresholds and which rules are in force.
        share: Of the plan that is over.
        evaluations: How many there were.
        unaligned: Attention is known, and has not read yet.
        next_drop: Steps to the next known drop of the learning rate; None where there is none.
        patience_steps: As it is now.
        borne: Steps without anything better, in patiences.
        falling: The loss has a trend downwards.
        ahead: The forecast; None where there is none.
        lost_for: Share of the plan since attention collapsed; None where it reads.
    """
    if evaluations < params.min_evaluations:
        return f"only {evaluations} evaluations"
    if params.rules.guard and unaligned and share < params.attention_monitoring.guard_share:
        return "attention has not aligned yet"
    if _heals(lost_for, params):
        return "attention is lost, and may come back"
    if params.rules.schedule and next_drop is not None and next_drop <= patience_steps:
        return f"the learning rate drops in {next_drop:g}"
    if borne < FALLING_PATIENCES:
        return _hope(params, falling=falling, ahead=ahead)
    return ""


def _hope(params: EarlyStoppingParams, *, falling: bool, ahead: Outlook | None) -> str:
    """What there is to wait for, though nothing better was found yet; "" for nothing."""
    if params.rules.falling and falling:
        return "the loss is coming down"
    if params.rules.promise and ahead and ahead.probability > PROMISE:
        return f"an improvement is to be expected ({ahead.probability:.0%})"
    return ""


def falls(view: View, window: int, critical: float) -> bool:
    """Whether the loss has a trend downwards, over the whole window or the end of it."""
    return any(trend(view.recent[-length:]) < -critical for length in (window, TREND_BLOCKS))


def status(view: View, alpha_z: float, aligned_at: float) -> str:
    """One word for the state of the run; see docs/reference/stopping.md."""
    if view.recent.size < 4:
        return "not_converged"
    z = trend(view.recent[-TREND_BLOCKS:])
    focus = float(view.attention[-1]) if view.attention.size else None
    if z > alpha_z:
        return "diverging"
    if z < -alpha_z:
        return "converging" if focus is None or focus >= aligned_at else "not_converged"
    return "converged" if focus is None or focus >= 0.9 * aligned_at else "stalled"
