"""The search space: one source for Optuna's distributions and Katib's parameters."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from kamerton.config.schema import Params

Choice = bool | int | float | str | None

# The specification's words for a dimension, in ours.
_SPECIFICATION_TYPES: dict[str, dict[str, Any]] = {
    "loguniform": {"type": "float", "log": True},
    "uniform": {"type": "float"},
    "choice": {"type": "choice"},
    "int_uniform": {"type": "int"},
}

# Sections that a trial reads; a dimension of another one would change nothing.
_TRIAL_SECTIONS = ("train", "audio")

# Set by the tuner itself for every trial, or without influence on what is learned.
_RESERVED = {
    "train.epochs": "tune.trial_steps sets the length of trials",
    "train.max_steps": "tune.trial_steps sets the length of trials",
    "train.checkpoint_interval_steps": "it does not change what is learned",
    "train.keep_checkpoints": "it does not change what is learned",
    "train.device": "it does not change what is learned",
    "train.threads": "it does not change what is learned",
    "train.seed": "the best seed of one study is luck, not a better voice",
}


class Dimension(BaseModel):
    """One hyperparameter: a range of numbers, or a list of choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: Literal["float", "int", "choice"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Choice, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _specification_forms(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") in _SPECIFICATION_TYPES:
            return {**value, **_SPECIFICATION_TYPES[value["type"]]}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "choice":
            self._check_choices()
        else:
            self._check_range()
        return self

    def _check_choices(self) -> None:
        if not self.choices:
            raise ValueError("a choice needs a non-empty list of choices")
        if self.low is not None or self.high is not None or self.log or self.step is not None:
            raise ValueError("a choice has no low, high, log or step")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("every choice may be listed once")

    def _check_range(self) -> None:
        if self.choices is not None:
            raise ValueError("only a choice has choices")
        if self.low is None or self.high is None or self.low > self.high:
            raise ValueError("a range needs low <= high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range needs low > 0 and no step")
        if self.step is not None:
            self._check_step(self.step, self.low, self.high)
        numbers = [self.low, self.high] + ([] if self.step is None else [self.step])
        if self.type == "int" and any(number != int(number) for number in numbers):
            raise ValueError("an int range needs whole numbers")

    @staticmethod
    def _check_step(step: float, low: float, high: float) -> None:
        if step <= 0:
            raise ValueError("step must be above 0")
        # As people write the numbers: 1.0 is ten steps of 0.1, which floats deny.
        if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) != 0:
            raise ValueError("high must be a whole number of steps above low")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        if self.low is None or self.high is None:
            raise ValueError("a choice has no bounds")
        return self.low, self.high

    def extremes(self) -> tuple[Choice, ...]:
        """The values that show whether every value of the dimension is allowed."""
        if self.choices is not None:
            return self.choices
        low, high = self.bounds
        return (int(low), int(high)) if self.type == "int" else (low, high)

    def distribution(self) -> "BaseDistribution":
        """This dimension as Optuna samples it."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices is not None:
            return CategoricalDistribution(list(self.choices))
        low, high = self.bounds
        if self.type == "int":
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(low), int(high), log=self.log, step=step)
        return FloatDistribution(low, high, log=self.log, step=self.step)

    def katib(self) -> dict[str, Any]:
        """``parameterType`` and ``feasibleSpace`` of Katib, in which all values are text."""
        if self.choices is not None:
            return {
                "parameterType": "categorical",
                "feasibleSpace": {"list": [yaml_text(choice) for choice in self.choices]},
            }
        low, high = self.extremes()
        space = {"min": yaml_text(low), "max": yaml_text(high)}
        if self.step is not None:
            space["step"] = yaml_text(int(self.step) if self.type == "int" else self.step)
        space["distribution"] = "logUniform" if self.log else "uniform"
        kind = "int" if self.type == "int" else "double"
        return {"parameterType": kind, "feasibleSpace": space}

    def nearest(self, value: Choice) -> Choice:
        """The value of this dimension that is closest to ``value``, itself where it is one.

        Closest means the smallest difference, of logarithms on a logarithmic range. Where no
        choice can be compared with ``value``, it is the first one.
        """
        if self.choices is not None:
            if value in self.choices:
                return value
            numbers = [choice for choice in self.choices if _is_number(choice)]
            if not _is_number(value) or not numbers:
                return self.choices[0]
            return min(numbers, key=lambda choice: abs(_as_float(choice) - _as_float(value)))
        low, high = self.bounds
        number = min(max(_as_float(value), low), high) if _is_number(value) else low
        if self.step is not None:
            # Steps add up to a hair more than the high end now and then.
            number = min(low + self.step * round((number - low) / self.step), high)
        return round(number) if self.type == "int" else number


def _is_number(value: Choice) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: Choice) -> float:
    assert isinstance(value, int | float)
    return float(value)


def yaml_text(value: Choice) -> str:
    """A value as it is written in YAML and in ``--set``: numbers in full, null, true."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and "e" in repr(value):
        mantissa, exponent = repr(value).split("e")
        # YAML 1.1 takes 1e-05 for text: a number with an exponent needs a dot.
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
    return str(value)


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as the nested mapping that is laid over the parameters."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = value
    return nested


def lookup(params: "Params", name: str) -> Any:
    """The value of the parameter with this dotted name."""
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part)
    return value


def search_space_faults(params: "Params") -> dict[str, str]:
    """What is wrong with ``params.tune.search_space``, by dimension; empty when all is well.

    Every name must be a parameter that a trial reads, and every bound and choice must be allowed
    there, so that no trial of a study of hours ends with a parameter error.
    """
    from kamerton.config.loading import leaves, nearest

    known = {leaf.name for leaf in leaves()}
    faults = {}
    for name, dimension in params.tune.search_space.items():
        if name not in known:
            guess = nearest(name)
            hint = f"; did you mean '{guess}'?" if guess else ""
            faults[name] = f"there is no parameter '{name}'{hint}"
        elif name.partition(".")[0] not in _TRIAL_SECTIONS:
            sections = ", ".join(_TRIAL_SECTIONS)
            faults[name] = f"only parameters of {sections} can be searched"
        elif name in _RESERVED:
            faults[name] = f"cannot be searched: {_RESERVED[name]}"
        elif refused := _refused_values(params, name, dimension):
            faults[name] = "; ".join(refused)
    return faults


def _refused_values(params: "Params", name: str, dimension: Dimension) -> list[str]:
    section, _, rest = name.partition(".")
    model = type(getattr(params, section))
    refused = []
    for value in dimension.extremes():
        try:
            found = model.model_validate(_with(getattr(params, section).model_dump(), rest, value))
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            refused.append(f"{yaml_text(value)} is not allowed: {message}")
            continue
        taken: Any = found
        for part in rest.split("."):
            taken = getattr(taken, part)
        if isinstance(taken, int) and dimension.type == "float":
            return ["the parameter takes whole numbers; use type: int"]
    return refused


def _with(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    head, _, rest = name.partition(".")
    return {**values, head: _with(values[head], rest, value) if rest else value}


def default_search_space() -> dict[str, Dimension]:
    """The specification's search space, by the dotted names of our parameters."""
    dimensions: dict[str, dict[str, Any]] = {
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "train.weight_decay": {"type": "float", "low": 1e-8, "high": 1e-3, "log": True},
        "train.model.encoder_embedding_dim": {"type": "choice", "choices": [256, 512]},
        "train.model.decoder_rnn_dim": {"type": "choice", "choices": [768, 1024]},
        "train.decoder_dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "train.batch_size": {"type": "choice", "choices": [24, 32, 48]},
        "train.grad_clip_thresh": {"type": "float", "low": 0.5, "high": 1.5},
        "audio.mel_fmax_hz": {"type": "choice", "choices": [7600.0, 8000.0, None]},
    }
    return {name: Dimension.model_validate(fields) for name, fields in dimensions.items()}
