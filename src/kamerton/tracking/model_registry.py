"""Which voices passed the gates, and which of them is the champion: MLflow's model registry.

A version is an exported voice with the evaluation that it was judged by. Every step can be
repeated: one that was cut off is found again by its tags and finished, never made twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from kamerton.core.errors import InputMissingError, ParamsError, PipelineError, ToolMissingError
from kamerton.core.files import file_lock
from kamerton.tracking.mlflow_client import connect, experiment_id, sqlite_file
from kamerton.tracking.trouble import first_line

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

    from kamerton.config.schema import PromoteParams, TrackingParams

NAME_TAG = "registered_model"
MODEL_TAG = "model.sha256"
EVALUATION_TAG = "evaluation.sha256"
UNEVALUATED_TAG = "registered.unevaluated"  # of a run
PREVIOUS_TAG = "promotion.previous_champion"
MODEL_FOLDER = "model"
EVALUATION_FOLDER = "evaluation"

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class RegistryError(PipelineError):
    """MLflow is there but did not do what was asked."""


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One version of the voice; ``run_id`` is the MLflow run that holds its files."""

    version: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def identity(self) -> tuple[str | None, str | None]:
        """Hashes of its weights and of its evaluation."""
        return self.tags.get(MODEL_TAG), self.tags.get(EVALUATION_TAG)


class ModelRegistry:
    """The versions of one registered voice, and the alias of the one that is served."""

    def __init__(self, uri: str, *, name: str, alias: str, experiment: str) -> None:
        self.uri = uri
        self.name = name
        self.alias = alias
        self._experiment = experiment
        self._opened: MlflowClient | None = None

    @classmethod
    def of(cls, tracking: TrackingParams, promote: PromoteParams) -> ModelRegistry:
        """The registry that the parameters name.

        Raises:
            ParamsError: MLflow is switched off.
        """
        if tracking.mlflow_uri is None:
            raise ParamsError(
                "tracking.mlflow_uri is null, but the registry of voices lives in MLflow.",
                hint="set tracking.mlflow_uri, for example to sqlite:///mlflow.db",
            )
        return cls(
            tracking.mlflow_uri,
            name=promote.registered_model,
            alias=promote.alias,
            experiment=tracking.experiment,
        )

    @classmethod
    def of_name(cls, tracking: TrackingParams, name: str) -> ModelRegistry:
        """The registered voice ``name``, for those who have no business with its alias.

        Raises:
            ParamsError: MLflow is switched off.
        """
        from kamerton.config.schema import PromoteParams

        return cls.of(tracking, PromoteParams(registered_model=name))

    @property
    def exists(self) -> bool:
        """False for a database file that is not there yet: nothing can be registered in it."""
        database = sqlite_file(self.uri)
        return database is None or database.exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other promotions of this host out, from reading the champion to replacing it.

        MLflow sets an alias without looking at the old one: of two promotions that each beat the
        same champion, the later would win, better or not.
        """
        database = sqlite_file(self.uri)
        if database is not None:
            path = database.with_name(f".{database.name}.promotion.lock")
        else:
            key = hashlib.sha256(f"{self.uri}\0{self.name}".encode()).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"kamerton-promotion-{key}.lock"
        with file_lock(path):
            yield

    def champion(self) -> RegisteredVersion | None:
        """The version that carries the alias, if there is one."""
        if not self.exists:
            return None
        client = self._client()
        from mlflow.exceptions import MlflowException

        with _explained(self.uri):
            try:
                return _version(client.get_model_version_by_alias(self.name, self.alias))
            except MlflowException as error:
                # Deleting a version takes its alias along; then there is no champion either.
                if error.error_code in _ABSENT:
                    return None
                raise

    def find(self, model_sha256: str, evaluation_sha256: str) -> RegisteredVersion | None:
        """The version with exactly this model and this evaluation; the oldest, if several."""
        if not self.exists:
            return None
        query = (
            f"name='{self.name}' and tags.`{MODEL_TAG}`='{model_sha256}' "
            f"and tags.`{EVALUATION_TAG}`='{evaluation_sha256}'"
        )
        with _explained(self.uri):
            found = self._client().search_model_versions(query)
        return min(map(_version, found), key=lambda one: int(one.version), default=None)

    def find_unevaluated(self, model_sha256: str) -> RegisteredVersion | None:
        """The version with this model that was not evaluated yet; the oldest, if several."""
        if not self.exists:
            return None
        query = f"name='{self.name}' and tags.`{MODEL_TAG}`='{model_sha256}'"
        with _explained(self.uri):
            found = map(_version, self._client().search_model_versions(query))
            waiting = [one for one in found if EVALUATION_TAG not in one.tags]
        return min(waiting, key=lambda one: int(one.version), default=None)

    def register_model(
        self, model: Path, *, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> RegisteredVersion:
        """Store a voice that was not evaluated yet; ``register`` later adds its evaluation.

        Args:
            model: The exported voice's folder.
            tags: Lineage; must hold ``MODEL_TAG``. One version per model is made.
            metrics: Figures to show beside the run.
        """
        client = self._client()
        query = f"name='{self.name}' and tags.`{MODEL_TAG}`='{tags[MODEL_TAG]}'"
        if self.exists:
            with _explained(self.uri):
                known = list(map(_version, client.search_model_versions(query)))
            if known:
                return min(known, key=lambda one: int(one.version))
        mine = {NAME_TAG: self.name, MODEL_TAG: tags[MODEL_TAG], UNEVALUATED_TAG: "true"}
        run_id = self._run(client, tags, mine, f"best of {self.name}")
        with _explained(self.uri):
            client.log_artifacts(run_id, str(model), MODEL_FOLDER)
        return self._finish(client, run_id, tags, metrics)

    def register(
        self,
        model: Path,
        evaluation: Path,
        *,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> RegisteredVersion:
        """Store a voice with its evaluation as a new version, or finish one that was begun.

        A version of this model that waits for its evaluation is given it, and stays the only one.

        Args:
            model: The exported voice's folder.
            evaluation: The evaluation's folder.
            tags: Lineage; must hold ``MODEL_TAG`` and ``EVALUATION_TAG``.
            metrics: Figures to show beside the run.
        """
        found = self.find(tags[MODEL_TAG], tags[EVALUATION_TAG])
        if found is not None:
            return found
        client = self._client()
        waiting = self.find_unevaluated(tags[MODEL_TAG])
        if waiting is not None:
            return self._evaluated(client, waiting, evaluation, tags, metrics)
        mine = {NAME_TAG: self.name, **{tag: tags[tag] for tag in (MODEL_TAG, EVALUATION_TAG)}}
        run_id = self._run(client, tags, mine, f"promote {self.name}")
        with _explained(self.uri):
            client.log_artifacts(run_id, str(model), MODEL_FOLDER)
            client.log_artifacts(run_id, str(evaluation), EVALUATION_FOLDER)
        return self._finish(client, run_id, tags, metrics)

    def _finish(
        self,
        client: MlflowClient,
        run_id: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> RegisteredVersion:
        """Make a version of a run whose files are stored."""
        with _explained(self.uri):
            for name, value in metrics.items():
                client.log_metric(run_id, name, value)
            client.set_terminated(run_id)
            self._ensure_model(client)
            source = f"runs:/{run_id}/{MODEL_FOLDER}"
            made = client.create_model_version(
                self.name, source=source, run_id=run_id, tags=dict(tags)
            )
        return _version(made)

    def _evaluated(
        self,
        client: MlflowClient,
        version: RegisteredVersion,
        evaluation: Path,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> RegisteredVersion:
        """Give a version its evaluation; the tag that says so comes last."""
        with _explained(self.uri):
            client.log_artifacts(version.run_id, str(evaluation), EVALUATION_FOLDER)
            for name, value in metrics.items():
                client.log_metric(version.run_id, name, value)
            for name in sorted(tags, key=lambda tag: tag == EVALUATION_TAG):
                client.set_model_version_tag(self.name, version.version, name, tags[name])
            return _version(client.get_model_version(self.name, version.version))

    def crown(self, version: RegisteredVersion, *, previous: RegisteredVersion | None) -> None:
        """Give ``version`` the alias, after noting on it where to go back to."""
        client = self._client()
        with _explained(self.uri):
            if previous is not None and previous.version != version.version:
                client.set_model_version_tag(
                    self.name, version.version, PREVIOUS_TAG, previous.version
                )
            client.set_registered_model_alias(self.name, self.alias, version.version)

    def folder(self, version: RegisteredVersion, part: str) -> Path:
        """A local folder with a version's model or evaluation; read-only by convention.

        Files that MLflow keeps on this machine are used in place. Others are downloaded to a
        temporary folder, which is the caller's to keep or to lose.

        Raises:
            InputMissingError: the registry names files that are not there any more.
            RegistryError: they cannot be downloaded.
        """
        from mlflow.artifacts import download_artifacts

        client = self._client()
        with _explained(self.uri):
            root = client.get_run(version.run_id).info.artifact_uri
        if "://" not in root or root.startswith("file://"):
            folder = Path(url2pathname(urlparse(root).path)) / part
            if not folder.is_dir():
                raise InputMissingError(
                    folder,
                    produced_by="promote",
                    hint=f"version {version.version} of {self.name} has lost its files; "
                    "promote another voice: `kamerton promote`",
                )
            return folder
        with _explained(self.uri):
            uri = f"runs:/{version.run_id}/{part}"
            return Path(download_artifacts(artifact_uri=uri, tracking_uri=self.uri))

    def _client(self) -> MlflowClient:
        if self._opened is None:
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            with _explained(self.uri):
                self._opened = connect(self.uri)
        return self._opened

    def _run(
        self, client: MlflowClient, tags: Mapping[str, str], mine: Mapping[str, str], name: str
    ) -> str:
        """The run of a registration that was cut off, told by the tags ``mine``, or a new one."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in mine.items())
        with _explained(self.uri):
            experiment = experiment_id(client, self.uri, self._experiment)
            begun = client.search_runs([experiment], query)
            if begun:
                return str(begun[-1].info.run_id)
            made = client.create_run(experiment, tags={**tags, **mine}, run_name=name)
            return str(made.info.run_id)

    def _ensure_model(self, client: MlflowClient) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _version(found: ModelVersion) -> RegisteredVersion:
    # A database answers with int versions, a server with str.
    return RegisteredVersion(str(found.version), str(found.run_id), dict(found.tags))


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow and its storage raise into one error that names the address."""
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise ToolMissingError("mlflow", extra="track") from error
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryError(
            f"MLflow at {uri} failed: {first_line(error)}",
            hint="check tracking.mlflow_uri; the server must answer, a database must be writable",
        ) from error
