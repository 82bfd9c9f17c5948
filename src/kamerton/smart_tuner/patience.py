"""When a search has stopped finding: the tuner's patience."""

import logging
from collections.abc import Sequence
from typing import Final

from kamerton.config.schema import TuneParams
from kamerton.smart_tuner.samplers import startup_trials
from kamerton.smart_tuner.trials import TrialResult

_log = logging.getLogger(__name__)

# Measured with TPE on surrogates of real training: patience 5 ends a study inside its random
# trials, 20 costs 0.02 of normalised regret.
_LEAST: Final = 20
_AFTER_STARTUP: Final = 15


def effective_patience(tune: TuneParams) -> int | None:
    """Complete trials without a gain that end the study; None: it makes all its trials.

    Never less than 20, nor than 15 more than the startup trials, so that it cannot end a study
    before the sampler had its say.
    """
    if tune.patience_trials is None:
        return None
    least = max(_LEAST, startup_trials(tune) + _AFTER_STARTUP)
    if tune.patience_trials < least:
        _log.warning(
            "tune.patience_trials: %d would end the study before the sampler has learned; "
            "%d is used (at least 20, and 15 more than the startup trials)",
            tune.patience_trials,
            least,
        )
    return max(tune.patience_trials, least)


def trials_without_gain(results: Sequence[TrialResult], min_delta: float) -> int:
    """Complete trials since the last that was better, by more than ``min_delta``, than before.

    Small gains add up: each is measured against the objective at the last gain that counted.
    """
    reference, since = float("inf"), 0
    for result in sorted(results, key=lambda item: item.number):
        if result.state != "complete" or result.objective is None:
            continue
        if result.objective < reference - min_delta:
            reference, since = result.objective, 0
        else:
            since += 1
    return since
