"""Phases of a run: alignment, learning, quality, fine-tuning; by share of the budget and by metric.

The first two have a goal: a diagonality of free-running attention, the calibrated guided mass of
``metrics.alignment``. Such a phase ends at its share of the budget if its goal was met at the last
evaluation, early, when half of its share has passed since it was entered, where it was met several
times in a row, and late, by half of its share, where it was not: a voice that cannot read yet does
not profit from a low learning rate. The others end at their share: how attention looks does not say
that a voice sounds as well as it can.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from kamerton.config.phase_ends import SHARES_OF_7, boundaries
from kamerton.config.train_section import PhaseParams
from kamerton.training.state import PhaseState

EARLIEST_FACTOR: Final = 0.5  # what of its share a phase takes at least: evaluations are frequent
LATEST_FACTOR: Final = 1.5  # what of its share a phase takes at most when its goal is not met

# Guided attention is not weakened before attention holds by itself (TensorFlowTTS issue 611).
GUIDED_UNTIL_DIAGONALITY: Final = 0.7
GUIDED_UNTIL_EVALUATIONS: Final = 5
GUIDED_EMERGENCY: Final = 2.0  # where a phase had to end and attention does not hold yet


def latest_end(index: int, params: PhaseParams) -> float:
    """The share of the budget at which a phase ends whatever attention is like."""
    ends = boundaries(params)
    begin = ends[index - 1] if index else 0.0
    return min(1.0, begin + LATEST_FACTOR * (ends[index] - begin))


def next_phase(
    state: PhaseState, step: int, total: int, diagonality: float | None, params: PhaseParams
) -> PhaseState:
    """The phase after ``step`` steps of ``total``.

    Args:
        state: The phase before.
        step: Steps made.
        total: The budget.
        diagonality: What an evaluation at this step measured; None where there was none.
        params: The goals.

    Returns:
        The same phase or a later one; an evaluation moves it on by one at most.
    """
    if diagonality is not None:
        state = _evaluated(state, diagonality, params)
    while reason := _why_leave(state, step, total, params):
        late = state.late or reason == "latest"
        state = PhaseState(state.index + 1, step, 0, reason, state.aligned, late)
    return state


def guided_factor(state: PhaseState, params: PhaseParams) -> float:
    """What is left of the guided attention's weight: all of it until attention holds by itself.

    Twice of it from where a phase had to end without its goal until it does.
    """
    if params.count == 0:
        return 1.0
    if state.aligned >= GUIDED_UNTIL_EVALUATIONS:
        return params.guided_attention_factors[state.index]
    return params.guided_attention_factors[0] * (GUIDED_EMERGENCY if state.late else 1.0)


def learning_rate_factor(state: PhaseState, params: PhaseParams) -> float:
    """What the phase makes of the schedule's learning rate."""
    return params.learning_rate_factors[state.index] if params.count else 1.0


def curriculum_share(phase: PhaseState, step: int, total: int, params: PhaseParams) -> float:
    """The share of the clips, the shortest, for an epoch that begins at ``step``.

    c(e) = min(1, s + (1 - s) e / E), with E the end of the first phase by share; all clips from
    the second phase on.
    """
    if not params.curriculum or phase.index > 0:
        return 1.0
    progress = step / (total * SHARES_OF_7[0] / sum(SHARES_OF_7))
    start = params.curriculum_start_share
    return min(1.0, start + (1.0 - start) * progress)


def _evaluated(state: PhaseState, diagonality: float, params: PhaseParams) -> PhaseState:
    met = state.met + 1 if diagonality >= _goal(state, params) else 0
    aligned = state.aligned
    if aligned < GUIDED_UNTIL_EVALUATIONS:
        aligned = aligned + 1 if diagonality >= GUIDED_UNTIL_DIAGONALITY else 0
    return dataclasses.replace(state, met=met, aligned=aligned)


def _goal(state: PhaseState, params: PhaseParams) -> float:
    goals = params.attention_goals
    return goals[state.index] if state.index < len(goals) else float("inf")


def _why_leave(state: PhaseState, step: int, total: int, params: PhaseParams) -> str:
    ends, share = boundaries(params), step / total
    if state.index >= len(ends) - 1:
        return ""
    own = ends[state.index] - (ends[state.index - 1] if state.index else 0.0)
    long_enough = step - state.since_step >= EARLIEST_FACTOR * own * total - 1e-9
    if state.met >= params.evaluations and long_enough:
        return "goal"
    has_goal = state.index < len(params.attention_goals)
    if share >= ends[state.index] and (state.met or not has_goal):
        return "share"
    return "latest" if share >= latest_end(state.index, params) else ""
