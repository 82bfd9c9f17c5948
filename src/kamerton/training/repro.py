"""Repeat the beginning of a recorded run and compare its losses with the record, bit for bit."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kamerton.config.schema import Params
from kamerton.config.yaml_source import read_yaml
from kamerton.core.environment import git_revision
from kamerton.core.errors import (
    InputCorruptError,
    InputMissingError,
    ParamsError,
    PipelineError,
    StoppedError,
)
from kamerton.core.progress import Progress, silent
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, read_records
from kamerton.training.differences import PARAMS_FILE
from kamerton.training.fingerprint import ORIGIN_FILE, Origin
from kamerton.training.runs import first_record
from kamerton.training.session import CACHE_FOLDER, Session, fixed_threads

# What a step computes; times and memory are as they happen to be.
_PREFIX = "train_"
_INTERRUPTED = "the repetition was stopped on request; nothing of it is kept."
_ALSO = frozenset({"grad_norm", "learning_rate"})


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was.

    Attributes:
        what: Its name.
        then: In the record.
        now: Here.
    """

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of repeating a run.

    Attributes:
        run: The run that was repeated.
        steps: How many of its steps were made again.
        compared_steps: Those whose figures the record has.
        compared_values: Figures compared.
        surroundings: What is different here and may explain a difference.
        first: The first figure that differs, with its step; None where all are equal.
    """

    run: Path
    steps: int
    compared_steps: tuple[int, ...]
    compared_values: int
    surroundings: tuple[Difference, ...]
    first: tuple[int, Difference] | None

    @property
    def equal(self) -> bool:
        """Whether every figure is the same, bit for bit."""
        return self.first is None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": str(self.run), "equal": self.equal, "steps": self.steps,
            "compared_steps": list(self.compared_steps), "compared_values": self.compared_values,
            "surroundings": {d.what: {"then": d.then, "now": d.now} for d in self.surroundings},
            "first_difference": None if self.first is None else {
                "step": self.first[0], "name": self.first[1].what, "then": self.first[1].then,
                "now": self.first[1].now,
            },
        }  # fmt: skip


def reproduce(
    run: RunDirectory, *, steps: int, dataset: Path | None = None, on_progress: Progress = silent
) -> Reproduction:
    """Make the first ``steps`` steps of ``run`` again, from its record, in a folder of their own.

    Args:
        run: The run directory.
        steps: How many at most; none are that it made with other parameters than it began with.
        dataset: Where its dataset is now; None: where it was.
        on_progress: Told of every step.

    Raises:
        InputMissingError: the record, the dataset or the weights it began with are not there.
        ParamsError: the run was one of several processes, or on a device that is not here.
        PipelineError: the data are others, or the record has none of these steps.
    """
    origin, params, until = _as_begun(run)
    opened = Dataset.open(dataset or Path(origin.dataset))
    _require_same_data(opened, origin)
    if origin.processes > 1:
        raise ParamsError(
            f"{run.path} is a run of {origin.processes} processes; it is repeated in one only.",
            hint="begin it again with torchrun and compare the two: `kamerton runs show`",
        )
    recorded = _figures(run)
    steps = min(steps, origin.total_steps, until or steps)
    if not any(step <= steps for step in recorded):
        raise PipelineError(
            f"{run.metrics_file} has no figures of the first {steps} steps.",
            hint="repeat more of them: --steps",
        )
    with tempfile.TemporaryDirectory(prefix="kamerton-repro-") as scratch:
        session, again = _repeat(opened, params, origin, run, steps, Path(scratch), on_progress)
        made = _figures(again)
    compared = tuple(step for step in sorted(recorded) if step <= steps)
    values = {step: recorded[step].keys() & made.get(step, {}).keys() for step in compared}
    return Reproduction(
        run.path, steps, compared, sum(map(len, values.values())),
        tuple(_surroundings(run, origin, session.origin)),
        _first_difference(recorded, made, compared),
    )  # fmt: skip


def _repeat(
    dataset: Dataset, params: Params, origin: Origin, run: RunDirectory, steps: int,
    scratch: Path, on_progress: Progress,
) -> tuple[Session, RunDirectory]:  # fmt: skip
    """Train a new run below ``scratch`` for so many steps."""
    cache = run.path.parent / CACHE_FOLDER
    if cache.is_dir():  # spectrograms of the same clips are the same
        (scratch / CACHE_FOLDER).symlink_to(cache.absolute())
    source = None if origin.warm_start is None else Path(origin.warm_start)
    with StopRequest() as asked, fixed_threads(params.train) as threads:
        session = Session.prepare(
            dataset, 1, params, runs=scratch, threads=threads, trial=True, warm_start=source,
            budget=origin.total_steps, on_progress=asked.granted_in(on_progress, _INTERRUPTED),
        )  # fmt: skip
        _require_same_start(session.origin, origin)
        again = session.find_run(resume=False, anew=True)
        enough = StopRequest()  # not only a person's wish, but the end of what is compared

        def tell(done: float, total: float, note: str = "") -> None:
            on_progress(min(done, steps), min(total, steps), note)
            enough.requested = asked.requested or done >= steps - 1

        with contextlib.suppress(StoppedError):
            session.train(again, stop=enough, on_progress=tell)
        if asked.requested:
            raise StoppedError(_INTERRUPTED)
    return session, again


def _as_begun(run: RunDirectory) -> tuple[Origin, Params, int | None]:
    """What the run began with, and up to which step; None: for all of them."""
    file, surroundings_until = first_record(run, ORIGIN_FILE)
    origin = Origin.read_file(file)
    path, params_until = first_record(run, PARAMS_FILE)
    ends = [step for step in (surroundings_until, params_until) if step is not None]
    return origin, _params(path, origin), min(ends, default=None)


def _params(path: Path, origin: Origin) -> Params:
    """The run's parameters, recorded nowhere else, with as many threads as it had."""
    if not path.is_file():
        raise InputMissingError(path, produced_by="train")
    known = read_yaml(path).values
    values = {section: known.get(section, {}) for section in ("train", "audio", "text")}
    values["tracking"] = {"mlflow_uri": None, "tensorboard": False}
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        problem = f"{error.error_count()} parameters are wrong, the first: {error.errors()[0]}"
        hint = "repeat it with the version that wrote it"
        raise InputCorruptError(path, problem=problem, hint=hint) from error
    train = params.train.model_copy(update={"threads": origin.threads, "device": origin.device})
    return params.model_copy(update={"train": train})


def _require_same_data(dataset: Dataset, origin: Origin) -> None:
    if dataset.card["content_sha256"] != origin.content_sha256:
        raise PipelineError(
            f"{dataset.path} holds other data than the run had: content "
            f"{dataset.card['content_sha256'][:12]}, not {origin.content_sha256[:12]}.",
            hint="name the version that it was trained on: --dataset",
        )


def _require_same_start(now: Origin, then: Origin) -> None:
    if now.warm_start_sha256 != then.warm_start_sha256:
        raise PipelineError(
            f"{then.warm_start} holds other weights than those that the run began with.",
            hint="put the file back that it began with, as it was",
        )


def _surroundings(run: RunDirectory, then: Origin, now: Origin) -> Iterator[Difference]:
    """What is not as it was, besides the numbers."""
    for name, known in (("code", "code"), ("torch", "torch"), ("device", "device"), ("cpu", "CPU")):
        old, new = str(getattr(then, name)), str(getattr(now, name))
        if old != new:
            yield Difference(known, old[:12], new[:12])
    if then.threads != now.threads:
        yield Difference("threads", str(then.threads), str(now.threads))
    commit, here = _recorded_commit(run), git_revision()["commit"]
    if commit is not None and here is not None and commit != here:
        yield Difference("git revision", commit[:12], here[:12])


def _recorded_commit(run: RunDirectory) -> str | None:
    try:
        environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
        return environment["git"]["commit"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _figures(run: RunDirectory) -> dict[int, Mapping[str, float]]:
    """The figures of training by step, as metrics.jsonl has them."""
    found: dict[int, dict[str, float]] = {}
    for record in read_records(run.metrics_file):
        if record.kind == "metrics" and record.step:
            values = {
                name: value
                for name, value in record.values.items()
                if name.startswith(_PREFIX) or name in _ALSO
            }
            if values:
                found.setdefault(record.step, {}).update(values)
    return dict(found)


def _first_difference(
    recorded: Mapping[int, Mapping[str, float]], made: Mapping[int, Mapping[str, float]],
    steps: tuple[int, ...],
) -> tuple[int, Difference] | None:  # fmt: skip
    for step in steps:
        then, now = recorded[step], made.get(step, {})
        for name in sorted({*then, *now}):
            old, new = then.get(name), now.get(name)
            if not _same(old, new):
                return step, Difference(name, repr(old), repr(new))
    return None


def _same(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is new
    return old == new or (old != old and new != new)  # noqa: PLR0124 - both are nan
