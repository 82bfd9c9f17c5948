"""Which parameters may change in the middle of a run: the one table that everyone asks.

hot   may: learning rate, weights of losses, dropouts, intervals
warm  change what a step or the budget is: a new run, which may begin with the weights
cold  another network, other data or other noise: a new run
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from kamerton.core.errors import ParamsError

ChangeClass = Literal["hot", "warm", "cold"]

_HOT: Final = (
    "train.learning_rate", "train.min_learning_rate_share", "train.weight_decay",
    "train.grad_clip_thresh", "train.adaptive_clip", "train.*_dropout",
    "train.guided_attention_weight", "train.guided_attention_sigma", "train.losses.*_weight",
    "train.losses.adaptive_gate", "train.regularisation.variational_kl_weight",
    "train.gate_pos_weight", "train.gate_threshold", "train.phases.*_factors",
    "train.phases.attention_goals", "train.phases.evaluations", "train.recovery.*",
    "train.eval_interval_steps", "train.checkpoint_interval_steps", "train.keep_checkpoints",
    "train.early_stopping.*", "train.quality_control.*", "train.batch_size_adaptation.*",
    "train.changes", "train.monitoring.*",
)  # fmt: skip
_WARM: Final = (
    "train.batch_size", "train.accumulation", "train.precision",
    "train.warmup_steps", "train.guided_attention_kind", "train.losses.mel", "train.phases.*",
    "batching", "processes", "total_steps",
)  # fmt: skip
_COARSE_DECODER: Final = "train.losses.double_decoder_weight"  # 0: there is none


def class_of(name: str, old: Any, new: Any) -> ChangeClass:
    """Whether something decisive may change in a run; what nothing is said of may not.

    Args:
        name: Dotted name of a parameter, or a name of ``origin.json``.
        old: Its value.
        new: The value asked for.
    """
    if name == _COARSE_DECODER and bool(old) != bool(new):
        return "cold"
    if any(fnmatchcase(name, pattern) for pattern in _HOT):
        return "hot"
    return "warm" if any(fnmatchcase(name, pattern) for pattern in _WARM) else "cold"


def require_hot(changes: Iterable[tuple[str, Any, Any]]) -> None:
    """Refuse to go on with a run under changes that it cannot take; (name, old, new) each.

    Raises:
        ParamsError: every name that may not change is told, with its class.
    """
    kinds = ((name, class_of(name, old, new)) for name, old, new in changes)
    refused = [f"{name} ({kind})" for name, kind in kinds if kind != "hot"]
    if refused:
        raise ParamsError(
            f"a run cannot go on with another value of: {', '.join(refused)}.",
            hint="only hot parameters change in a run; put the others into tune.search_space, "
            "where every trial is a new run",
        )
