"""Which of Optuna's samplers and pruners a study uses, and with what settings."""

import importlib.util
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from kamerton.config.schema import TuneParams
from kamerton.config.search_space import Dimension
from kamerton.core.errors import ParamsError, ToolMissingError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_log = logging.getLogger(__name__)

SamplerName = Literal["tpe", "gp", "cma_es", "random"]
PrunerName = Literal["successive_halving", "hyperband", "median", "none"]

# No trial is judged before this share of its steps: attention aligns late and suddenly, and until
# then losses rank trials by luck.
_WARMUP_SHARE: Final = 0.2
_REDUCTION_FACTOR: Final = 3
_MEDIAN_STARTUP_TRIALS: Final = 5
# What `auto` is, by `python -m benchmarks.search` (docs/reference/search.md).
_GP_STARTUP_TRIALS: Final = 5
_GP_MOST_TRIALS: Final = 150  # its time per trial grows with the cube of their number
_CMA_LEAST_TRIALS: Final = 100
_WHOLE_TRIALS: Final = 30  # up to which TPE without a pruner was better than with one


def startup_trials(tune: TuneParams) -> int:
    """Trials before the sampler learns from them: a third of all, 3 to 15, unless given.

    ``auto`` needs 5 at most where it is the Gaussian process.
    """
    if tune.startup_trials is not None:
        return tune.startup_trials
    third = min(15, max(3, math.ceil(tune.trials / 3)))
    learns_soon = tune.sampler == "auto" and resolve_sampler(tune) == "gp"
    return min(third, _GP_STARTUP_TRIALS) if learns_soon else third


def warmup_steps(trial_steps: int) -> int:
    """The first step at which a pruner may judge a trial."""
    return max(1, math.ceil(_WARMUP_SHARE * trial_steps))


def resolve_sampler(tune: TuneParams) -> SamplerName:
    """The sampler that ``tune.sampler`` means for this study.

    ``auto`` takes the Gaussian process, which finds sooner than TPE what trials of hours cannot be
    made in hundreds for; for long studies CMA-ES over numbers alone, else TPE.

    Raises:
        ParamsError: CMA-ES over a space with choices, which it cannot order.
    """
    choices = [name for name, dim in tune.search_space.items() if dim.type == "choice"]
    if tune.sampler == "cma_es" and choices:
        raise ParamsError(
            f"tune.sampler: cma_es cannot search choices ({', '.join(choices)}).",
            hint="use tune.sampler: tpe, or give these dimensions as int or float ranges",
        )
    if tune.sampler == "bohb":
        return "tpe"
    if tune.sampler != "auto":
        return tune.sampler
    if tune.trials <= _GP_MOST_TRIALS and _has_torch():
        return "gp"
    if not choices and tune.trials > _CMA_LEAST_TRIALS:
        return "cma_es"
    return "tpe"


def resolve_pruner(tune: TuneParams) -> PrunerName:
    """The pruner of this study; BOHB is TPE with hyperband, whatever ``tune.pruner`` says.

    ``auto`` is none up to 30 trials, and with the Gaussian process: both learn more from a whole
    trial than the steps would bring elsewhere. Beyond that it is successive halving.
    """
    if tune.sampler != "bohb":
        if tune.pruner != "auto":
            return tune.pruner
        whole = tune.trials <= _WHOLE_TRIALS or resolve_sampler(tune) == "gp"
        return "none" if whole else "successive_halving"
    startup, brackets = startup_trials(tune), _brackets(tune.trial_steps)
    if tune.trials < startup * brackets:
        _log.warning(
            "bohb: each of %d brackets starts with %d random trials, so with tune.trials: %d the "
            "sampler hardly acts; tpe with successive_halving learns sooner",
            brackets,
            startup,
            tune.trials,
        )
    return "hyperband"


def _brackets(trial_steps: int) -> int:
    return math.floor(math.log(trial_steps / warmup_steps(trial_steps), _REDUCTION_FACTOR)) + 1


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def make_sampler(
    name: SamplerName, *, seed: int, startup: int, space: Mapping[str, Dimension]
) -> "BaseSampler":
    """A sampler in its first state; what it proposes depends on ``seed`` and the study alone."""
    from optuna import samplers

    if name == "random" or not space:
        return samplers.RandomSampler(seed=seed)
    if name == "tpe":
        # The lie is about trials that still run: they count as bad, so others keep away.
        return samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )
    if name == "gp":
        if not _has_torch():
            raise ToolMissingError("torch (the gp sampler needs it)", extra="train")
        return samplers.GPSampler(seed=seed, n_startup_trials=startup)
    if importlib.util.find_spec("cmaes") is None:
        raise ToolMissingError("cmaes", extra="tune")
    return samplers.CmaEsSampler(
        seed=seed, n_startup_trials=startup, warn_independent_sampling=False
    )


def make_pruner(name: PrunerName, *, trial_steps: int) -> "BasePruner":
    """A pruner whose unit is optimiser steps."""
    from optuna import pruners

    first = warmup_steps(trial_steps)
    if name == "successive_halving":
        return pruners.SuccessiveHalvingPruner(
            min_resource=first, reduction_factor=_REDUCTION_FACTOR
        )
    if name == "hyperband":
        return pruners.HyperbandPruner(
            min_resource=first, max_resource=trial_steps, reduction_factor=_REDUCTION_FACTOR
        )
    if name == "median":
        return pruners.MedianPruner(
            n_startup_trials=_MEDIAN_STARTUP_TRIALS, n_warmup_steps=first - 1
        )
    return pruners.NopPruner()
