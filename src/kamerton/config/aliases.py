"""The specification's own configuration keys, in this project's words.

The YAML of documents 002 and 003 loads as it stands: keys with a meaning here are moved, keys that
can have no effect are passed over with a warning that says why.
"""

import logging
from collections.abc import Callable
from typing import Any

from kamerton.config.yaml_source import KeyPath, YamlSource

_LOG = logging.getLogger("kamerton.config")


def _same(value: Any) -> Any:
    return value


def _precision(mixed: Any) -> Any:
    return {True: "auto", False: "fp32"}.get(mixed, mixed)


# The specification counts in epochs, of the 2000 that it plans by default; a run here, whatever its
# length, in steps or shares of its budget. Its 100 epochs of warm-up are at most 4000 steps.
_EPOCHS = 2000
_STEPS_PER_EPOCH = 40


def _share_of_epochs(epochs: Any) -> Any:
    return min(1.0, epochs / _EPOCHS) if isinstance(epochs, int | float) else epochs


def _steps_of_epochs(epochs: Any) -> Any:
    return epochs * _STEPS_PER_EPOCH if isinstance(epochs, int) else epochs


def _stages(stages: Any) -> Any:
    """Stages counted in epochs, whose lengths matter relatively here."""
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return stages
    return [
        {("share" if key == "epochs" else key): value for key, value in stage.items()}
        for stage in stages
    ]


_SEARCH = "tune.search_space"
_STOP = "train.early_stopping"
_SMART = "smart_early_stopping"
_OVERFIT = "overfitting_detection"
_DETECT = "training_recovery.problem_detection"
# Key in the specification: key here, and how the value changes.
MOVED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "core_engine.n_trials": ("tune.trials", _same),
    "optimization.sampler": ("tune.sampler", _same),
    "optimization.pruner": ("tune.pruner", _same),
    "optimization.tpe.n_startup_trials": ("tune.startup_trials", _same),
    "monitoring.platforms.mlflow.tracking_uri": ("tracking.mlflow_uri", _same),
    "monitoring.platforms.wandb.project": ("tracking.wandb_project", _same),
    "resources.mixed_precision": ("train.precision", _precision),
    "resources.checkpointing.save_frequency_steps": ("train.checkpoint_interval_steps", _same),
    "resources.checkpointing.keep_n_checkpoints": ("train.keep_checkpoints", _same),
    "hyperparameter_search_space.epochs.min": ("analyze.min_epochs", _same),
    "hyperparameter_search_space.epochs.max": ("analyze.max_epochs", _same),
    "adaptive_learning.lr_scheduling.warmup_epochs": ("train.warmup_steps", _steps_of_epochs),
    "early_stopping.enabled": (f"{_STOP}.enabled", _same),
    "early_stopping.patience_epochs": (f"{_STOP}.patience_share", _share_of_epochs),
    "early_stopping.min_delta": (f"{_STOP}.min_delta", _same),
    f"{_SMART}.enabled": (f"{_STOP}.enabled", _same),
    f"{_SMART}.tuner_patience": ("tune.patience_trials", _same),
    f"{_SMART}.tuner_min_delta": ("tune.min_delta", _same),
    f"{_SMART}.adaptive_patience.enabled": (f"{_STOP}.adaptive_patience", _same),
    f"{_SMART}.adaptive_patience.stages": (f"{_STOP}.stages", _stages),
    **{
        f"{_SMART}.ensemble_weights.{name}": (f"{_STOP}.ensemble_weights.{name}", _same)
        for name in ("statistical_consensus", "bayesian_prediction", "attention_analysis")
    },
    **{
        f"{_SMART}.attention_monitoring.{name}": (f"{_STOP}.attention_monitoring.{name}", _same)
        for name in ("enabled", "alignment_threshold", "monotonic_penalty")
    },
    f"{_OVERFIT}.enabled": (f"{_STOP}.overfitting.enabled", _same),
    f"{_OVERFIT}.val_loss_increase_threshold": (
        f"{_STOP}.overfitting.val_loss_increase_threshold",
        _same,
    ),
    f"{_OVERFIT}.attention_degradation.min_diagonality": (
        f"{_STOP}.overfitting.min_diagonality",
        _same,
    ),
    f"{_OVERFIT}.gate_patterns.premature_stopping_threshold": (
        f"{_STOP}.overfitting.premature_stopping_threshold",
        _same,
    ),
    **{
        f"adaptive_learning.batch_size_adaptation.{name}": (
            f"train.batch_size_adaptation.{name}",
            _same,
        )
        for name in ("enabled", "increase_threshold", "decrease_threshold")
    },
    "monitoring.alerts.email_recipients": ("tracking.alerts.email.recipients", _same),
    "training_recovery.enabled": ("train.recovery.enabled", _same),
    f"{_DETECT}.gradient_explosion.threshold": ("train.recovery.explosion_norm", _same),
    f"{_DETECT}.loss_plateau.patience": ("train.recovery.plateau_share", _share_of_epochs),
    f"{_DETECT}.attention_collapse.threshold": ("train.recovery.collapse_below", _same),
}
# Dimensions of the specification's search space: the parameter each sets here.
DIMENSIONS: dict[str, str] = {
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "encoder_embedding_dim": "train.model.encoder_embedding_dim",
    "decoder_rnn_dim": "train.model.decoder_rnn_dim",
    "dropout_decoder": "train.decoder_dropout",
    "batch_size": "train.batch_size",
    "grad_clip_thresh": "train.grad_clip_thresh",
    "mel_fmax": "audio.mel_fmax_hz",
}
_PHASE_PATIENCE = "patience is a share of the plan, by stage: train.early_stopping.stages"
_ACTIONS = "each kind of trouble has one action: see train.recovery in docs/reference/params.md"
# Keys (or whole branches) without effect, and why.
IGNORED: dict[str, str] = {
    "core_engine.name": "it names the specification's engine",
    "core_engine.primary_engine": "Optuna is the engine on one machine",
    "core_engine.resume_from_checkpoint": "an unfinished run of equal input is always continued",
    "optimization.tpe.consider_magic_clip": "Optuna deprecated it in 4.9 and removes it in 6.0",
    "optimization.hyperband": "trials are measured in optimiser steps: tune.trial_steps",
    "early_stopping.adaptive_thresholds": _PHASE_PATIENCE,
    "smart_early_stopping.adaptive_patience.initial_patience": _PHASE_PATIENCE,
    "smart_early_stopping.adaptive_patience.max_patience": _PHASE_PATIENCE,
    "overfitting_detection.attention_degradation.enabled": "set min_diagonality to 0 for none",
    "overfitting_detection.gate_patterns.enabled": "set the threshold to 1 for none",
    "monitoring.platforms.wandb.entity": "Weights & Biases reads WANDB_ENTITY",
    "monitoring.alerts.slack_webhook": "set tracking.alerts.slack.enabled; the URL "
    "is read from the environment variable SLACK_WEBHOOK",
    "resources.gradient_checkpointing": "attention is always computed anew in the backward pass",
    "hyperparameter_search_space.epochs.default": "the analysis recommends the epochs",
    "adaptive_learning.enabled": "the learning rate always follows its schedule and the phases",
    "adaptive_learning.lr_scheduling.enabled": "set train.min_learning_rate_share to 1 for no fall",
    "adaptive_learning.lr_scheduling.scheduler_type": "after the warm-up it is always a cosine",
    f"{_DETECT}.gradient_explosion.action": _ACTIONS,
    f"{_DETECT}.loss_plateau.action": _ACTIONS,
    f"{_DETECT}.attention_collapse.action": _ACTIONS,
}
_SECTIONS = {name.partition(".")[0] for name in (*MOVED, *IGNORED)} | {"search_space"}


def _flatten(values: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    if isinstance(values, dict) and values:
        return [leaf for key, value in values.items() for leaf in _flatten(value, (*path, key))]
    return [(path, values)]


def _reason(dotted: str) -> str | None:
    return next(
        (why for key, why in IGNORED.items() if dotted == key or dotted.startswith(f"{key}.")), None
    )


def _put(values: dict[Any, Any], path: KeyPath, value: Any) -> bool:
    """Set a nested value unless there is one; returns whether it was set.

    The mappings on the way are copied: they may be those of the source.
    """
    for key in path[:-1]:
        inner = values.get(key)
        if inner is not None and not isinstance(inner, dict):
            return False  # refused by the schema
        values[key] = dict(inner or {})
        values = values[key]
    if path[-1] in values:
        return False
    values[path[-1]] = value
    return True


def _search_space(given: dict[str, Any]) -> dict[str, Any]:
    return {DIMENSIONS.get(name, name): dimension for name, dimension in given.items()}


def translate(source: YamlSource) -> YamlSource:
    """The source with the specification's keys moved to ours, and a warning for each ignored one.

    Keys that are neither ours nor the specification's stay where they are, to be refused.
    """
    foreign = _SECTIONS & set(source.values)
    if not foreign:
        return source
    values: dict[str, Any] = {k: v for k, v in source.values.items() if k not in foreign}
    lines = dict(source.lines)
    for path, value in _flatten(
        {key: source.values[key] for key in source.values if key in foreign}
    ):
        dotted = ".".join(map(str, path))
        if path[0] == "search_space" and isinstance(source.values["search_space"], dict):
            continue
        if dotted in MOVED:
            name, convert = MOVED[dotted]
            target: KeyPath = tuple(name.split("."))
            if _put(values, target, convert(value)):
                lines[target] = source.lines.get(path, 0)
            else:
                place = source.place(path)
                _LOG.warning("%s: '%s' has no effect: %s is given", place, dotted, name)
        elif why := _reason(dotted):
            _LOG.warning("%s: '%s' has no effect: %s", source.place(path), dotted, why)
        else:  # under its whole name, so that it is refused at its own line
            lines[(dotted,)] = source.lines.get(path, 0)
            values[dotted] = value
    if isinstance(source.values.get("search_space"), dict):
        space = _search_space(source.values["search_space"])
        if _put(values, tuple(_SEARCH.split(".")), space):
            for name in source.values["search_space"]:
                target = (*_SEARCH.split("."), DIMENSIONS.get(name, name))
                lines[target] = source.lines.get(("search_space", name), 0)
        else:
            place = source.place(("search_space",))
            _LOG.warning("%s: 'search_space' has no effect: %s is given", place, _SEARCH)
    return YamlSource(source.name, values, lines)
