"""The best voice of each dataset so far, kept beside the runs; and, if asked for, in MLflow.

``<runs>/registry/index.json`` lists every voice that was finished, with where it comes from.
``<runs>/registry/<key>/`` holds the best one whole, ``best_model.pt`` among its files. The key
stands for the dataset and the mel spectrograms: only within one are figures of merit comparable.
The alias of the voice that is served is promote's alone to move.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from kamerton.config.schema import Params
from kamerton.core.code import code_digest
from kamerton.core.environment import git_revision
from kamerton.core.errors import PipelineError, UsageError
from kamerton.core.files import (
    file_lock,
    output_directory,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from kamerton.model import WEIGHTS_FILE
from kamerton.tracking import RunDirectory
from kamerton.tracking.model_registry import MODEL_TAG
from kamerton.tracking.model_registry import ModelRegistry as MlflowRegistry
from kamerton.tracking.quality import quality_of

REGISTRY_FOLDER: Final = "registry"  # in the folder of runs
TORCH_FILE: Final = "best_model.pt"
_INDEX, _ENTRY = "index.json", "entry.json"
_FORMAT: Final = 1
_KEY_CHARS: Final = 16

Stage = Literal["none", "staging", "production"]

_log = logging.getLogger("kamerton.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One finished voice.

    Attributes:
        sha256: Of its weights (``best_model.safetensors``).
        torch_sha256: Of the same weights as ``best_model.pt``.
        key: What it can be compared within.
        quality: Figure of merit, lower is better.
        run: Id of its run.
        lineage: Dataset, code, parameters, seed, parent: hashes and numbers as text.
        metrics: Its evaluation at the end of training.
        stage: staging is the best of its key, production what a person made it.
        registered: UTC, ISO 8601.
        mlflow_version: Under which MLflow has it; "" for none.
    """

    sha256: str
    torch_sha256: str
    key: str
    quality: float
    run: str
    lineage: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    stage: Stage = "none"
    registered: str = ""
    mlflow_version: str = ""


class ModelRegistry:
    """The folder of the registry; safe with several processes of one host."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made by the first voice."""
        self.folder = folder

    def entries(self) -> list[Entry]:
        """All voices, the newest last; a damaged list is moved aside and begins anew.

        Raises:
            PipelineError: the list is another version's, who may still need it.
        """
        index = self.folder / _INDEX
        if not index.is_file():
            return []
        try:
            record = read_json(index, produced_by="train")
            version = record.get("format", _FORMAT)
            if version == _FORMAT:
                return [Entry(**values) for values in record["voices"]]
        except (PipelineError, TypeError, KeyError) as error:
            aside = index.with_name(f"index.damaged-{time.time_ns()}.json")
            index.rename(aside)
            _log.warning("%s cannot be read (%s); it was moved to %s", index, error, aside)
            return []
        raise PipelineError(
            f"{index} is of another version of kamerton (format {version}, not {_FORMAT}).",
            hint="use that version, or name another --runs",
        )

    def best(self, key: str) -> Entry | None:
        """The best voice of ``key``, if its files are whole."""
        home = self.folder / key
        try:
            entry = Entry(**read_json(home / _ENTRY, produced_by="train"))
        except (PipelineError, TypeError):
            return None
        whole = all(
            (home / name).is_file() and sha256_file(home / name) == digest
            for name, digest in ((WEIGHTS_FILE, entry.sha256), (TORCH_FILE, entry.torch_sha256))
        )
        if not math.isfinite(entry.quality):
            return None  # nothing could ever be better
        if not whole:
            _log.warning("%s is damaged: the next voice takes its place", home)
        return entry if whole else None

    def keep(self, model: Path, entry: Entry) -> Entry:
        """Add a voice; if none was better so far, its files become the best.

        The same weights are kept once. The older best stays whole until the new one is.

        Args:
            model: Folder of the exported voice.
            entry: What is known of it.

        Returns:
            The entry as it is listed: ``staging`` where it is the best.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / ".lock"):
            listed = self.entries()
            known = next((one for one in listed if one.sha256 == entry.sha256), None)
            if known is not None and known.key == entry.key:
                entry = replace(
                    entry, registered=known.registered, stage=known.stage,
                    mlflow_version=known.mlflow_version,
                )  # fmt: skip
            best = self.best(entry.key)
            if best is None or entry.quality <= best.quality:
                entry = _staged(entry)
                self._replace_best(model, entry)
                listed = [_unstaged(one) if one.key == entry.key else one for one in listed]
            self._write([one for one in listed if one.sha256 != entry.sha256] + [entry])
        return entry

    def set_stage(self, sha256: str, stage: Stage) -> Entry:
        """Give the voice whose hash begins with ``sha256`` a stage; one of a key is production.

        Raises:
            UsageError: no voice, or several, begin so.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / ".lock"):
            listed = self.entries()
            found = [one for one in listed if one.sha256.startswith(sha256)]
            if len(found) != 1:
                raise UsageError(
                    f"{len(found)} voices have a hash that begins with '{sha256}'.",
                    hint="`kamerton runs voices` lists them",
                )
            chosen = replace(found[0], stage=stage)
            others = [one for one in listed if one.sha256 != chosen.sha256]
            if stage == "production":
                others = [
                    replace(one, stage="none")
                    if (one.key, one.stage) == (chosen.key, "production")
                    else one
                    for one in others
                ]
            self._write(sorted([*others, chosen], key=lambda one: (one.registered, one.sha256)))
        return chosen

    def note_version(self, sha256: str, version: str) -> None:
        """Note the MLflow version of a voice."""
        with file_lock(self.folder / ".lock"):
            self._write(
                [
                    replace(one, mlflow_version=version) if one.sha256 == sha256 else one
                    for one in self.entries()
                ]
            )

    def _replace_best(self, model: Path, entry: Entry) -> None:
        with output_directory(self.folder / entry.key, force=True) as folder:
            for source in sorted(path for path in model.iterdir() if path.is_file()):
                shutil.copyfile(source, folder / source.name)
            copied = (sha256_file(folder / WEIGHTS_FILE), sha256_file(folder / TORCH_FILE))
            if copied != (entry.sha256, entry.torch_sha256):
                raise OSError(f"{model} changed while it was copied")
            write_json(folder / _ENTRY, asdict(entry))

    def _write(self, entries: Sequence[Entry]) -> None:
        voices = [asdict(entry) for entry in entries]
        write_json(self.folder / _INDEX, {"format": _FORMAT, "voices": voices})


def _staged(entry: Entry) -> Entry:
    return entry if entry.stage == "production" else replace(entry, stage="staging")


def _unstaged(entry: Entry) -> Entry:
    return replace(entry, stage="none") if entry.stage == "staging" else entry


def register_best(
    run: RunDirectory, model: Path, values: Mapping[str, float], *, runs: Path,
    card: Mapping[str, Any], params: Params,
) -> Entry | None:  # fmt: skip
    """Keep a finished voice; one that is the best of its dataset goes to MLflow if asked for.

    Trouble is warned of and gives None: the training itself is well.

    Args:
        run: Its run.
        model: Folder that it was exported to.
        values: Its evaluation.
        runs: Folder of runs.
        card: Of the dataset.
        params: Of the run; ``tracking.register_best`` names it in MLflow.
    """
    try:
        registry = ModelRegistry(runs / REGISTRY_FOLDER)
        entry = registry.keep(model, entry_of(run, model, values, card=card, params=params))
        name = params.tracking.register_best
        if name is not None and params.tracking.mlflow_uri is not None and entry.stage != "none":
            mlflow = MlflowRegistry.of_name(params.tracking, name)
            with mlflow.lock():
                tags = {MODEL_TAG: entry.sha256, **entry.lineage}
                version = mlflow.register_model(model, tags=tags, metrics=entry.metrics).version
            registry.note_version(entry.sha256, version)
            return replace(entry, mlflow_version=version)
    except (PipelineError, OSError, KeyError, ValueError) as error:
        _log.warning("%s was not registered: %s", model, error)
        return None
    return entry


def entry_of(
    run: RunDirectory, model: Path, values: Mapping[str, float], *, card: Mapping[str, Any],
    params: Params,
) -> Entry:  # fmt: skip
    """What is known of a finished voice.

    Raises:
        KeyError: its evaluation lacks a figure.
        ValueError: its figure of merit is not finite.
        PipelineError: the run's record cannot be read.
    """
    dataset = str(card["content_sha256"])
    quality = quality_of(values)
    if not math.isfinite(quality):
        raise ValueError("its figure of merit is not finite")
    return Entry(
        sha256=sha256_file(model / WEIGHTS_FILE),
        torch_sha256=sha256_file(model / TORCH_FILE),
        key=sha256_json([dataset, params.audio.model_dump(mode="json")])[:_KEY_CHARS],
        quality=quality,
        run=run.path.name,
        lineage=_lineage(run, dataset, params),
        metrics=dict(values),
        registered=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _lineage(run: RunDirectory, dataset: str, params: Params) -> dict[str, str]:
    """Where a voice comes from; unknown facts are left out."""
    origin = read_json(run.path / "origin.json", produced_by="train")
    revision = git_revision()
    told = {
        "run.id": run.path.name,
        "dataset.sha256": dataset,
        "params.sha256": sha256_json(
            params.model_dump(mode="json", include={"train", "audio", "text"})
        ),
        "code.sha256": origin.get("code", code_digest()),
        "git.commit": revision["commit"],
        "git.dirty": revision["dirty"],
        "seed": params.train.seed,
        "parent.sha256": origin.get("warm_start_sha256"),  # of a generation, or a warm start
    }
    return {name: str(value) for name, value in told.items() if value is not None}
