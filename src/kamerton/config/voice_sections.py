"""The parameters of the stages that turn a dataset into a voice."""

from typing import Literal

from pydantic import Field, field_validator

from kamerton.config.addresses import require_no_credentials
from kamerton.config.search_space import Dimension, default_search_space
from kamerton.config.section import Section, Share
from kamerton.config.tuner_sections import AlertParams, GenerationParams


class TuneParams(Section):
    """The search for hyperparameters."""

    trials: int = Field(
        10, ge=1, le=10000, description="trials of the study, the unchanged parameters first"
    )
    trial_steps: int = Field(5000, ge=1, description="optimiser steps of each trial")
    sampler: Literal["tpe", "gp", "cma_es", "bohb", "random", "auto"] = Field(
        "tpe",
        description="how the next trial is chosen; bohb is tpe with the hyperband pruner; auto: gp "
        "up to 150 trials, which finds better ones sooner than tpe",
    )
    pruner: Literal["auto", "successive_halving", "hyperband", "median", "none"] = Field(
        "auto",
        description="how hopeless trials are ended early; auto: none up to 30 trials and with the "
        "gp sampler, which learn most from whole trials, else successive_halving",
    )
    startup_trials: int | None = Field(
        None,
        ge=1,
        description="random trials before the sampler; null: a third of the trials, 3 to 15, with "
        "sampler: auto at most 5",
    )
    seed: int = Field(1234, ge=0, description="another seed makes another study")
    workers: int = Field(
        1, ge=1, le=64, description="trials at a time; with more than one their order decides"
    )
    storage: str | None = Field(
        None,
        description="where a study that several machines share is kept: the URL of a database, "
        "grpc://host:port, or env:NAME for an environment variable with one that holds "
        "credentials; null: a journal in its folder",
    )
    patience_trials: int | None = Field(
        None,
        ge=1,
        description="trials without a better one that end the study, at least 20 and 15 more than "
        "the startup trials; null: all trials are made",
    )
    min_delta: float = Field(
        0.005, ge=0.0, description="what counts as a better trial, of the objective"
    )
    history: bool = Field(
        True, description="first trials from the best of similar datasets, where there are any"
    )
    history_trials: int = Field(3, ge=1, le=20, description="of those at most")
    generations: GenerationParams = Field(
        default_factory=GenerationParams, description="the warm loop after the trials"
    )
    search_space: dict[str, Dimension] = Field(
        default_factory=default_search_space,
        description="dimensions by the dotted name of the parameter they set",
    )

    @field_validator("storage")
    @classmethod
    def _shareable(cls, address: str | None) -> str | None:
        if address is None or address.startswith("env:"):
            return address
        scheme, separator, _ = address.partition("://")
        if not separator:
            raise ValueError("give a URL such as postgresql://host/database, or grpc://host:port")
        if scheme.startswith("sqlite"):
            raise ValueError(
                "SQLite takes one writer at a time; leave it null for one machine, or use a "
                "database server or grpc://host:port"
            )
        require_no_credentials(address, "put it into an environment variable and give env:NAME")
        return address


class EvaluateParams(Section):
    """What the voice is measured on."""

    max_items: int = Field(
        200, ge=1, description="test sentences at most, the first in order of id"
    )
    griffin_lim_iterations: int = Field(32, ge=1, le=500, description="iterations of the vocoder")
    bootstrap_samples: int = Field(
        2000, ge=100, description="resamples behind each confidence interval"
    )
    confidence_level: float = Field(0.95, gt=0.5, lt=1.0, description="level of the intervals")
    report_items: int = Field(12, ge=1, le=100, description="sentences with players in the report")
    seed: int = Field(
        1234, ge=0, description="another seed draws other prenet dropout and resamples"
    )


class PromoteParams(Section):
    """The gates between an evaluated model and the name 'champion'."""

    registered_model: str = Field(
        "kamerton-voice",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="name in the MLflow registry",
    )
    alias: str = Field(
        "champion",
        pattern=r"^[a-z][a-z0-9_-]{0,63}$",
        description="alias the served version carries",
    )
    min_items: int = Field(20, ge=1, description="fewer measured sentences are no evidence")
    min_coverage: Share = Field(
        0.95, description="share of sentences that each metric must have measured"
    )
    min_aligned_share: Share = Field(
        0.9, description="share of sentences whose attention is aligned"
    )
    max_wer_over_ceiling: float = Field(
        0.15, ge=0.0, description="word error rate may exceed that of copy-synthesis by this much"
    )
    max_mcd_over_ceiling_db: float = Field(
        4.0,
        ge=0.0,
        description="mel-cepstral distortion may exceed that of copy-synthesis by this much",
    )
    min_estoi_share_of_ceiling: Share = Field(
        0.4, description="extended STOI as a share of copy-synthesis"
    )
    non_inferiority_wer: float = Field(
        0.02,
        ge=0.0,
        description="how much worse than the champion the word error rate may possibly be",
    )
    non_inferiority_mcd_db: float = Field(
        0.3,
        ge=0.0,
        description="how much worse than the champion the mel-cepstral distortion may possibly be",
    )


class TrackingParams(Section):
    """Where runs are recorded."""

    mlflow_uri: str | None = Field(
        "sqlite:///mlflow.db",
        description="MLflow tracking and registry; null: not used (promotion needs it)",
    )
    experiment: str = Field("kamerton", min_length=1, description="MLflow experiment")
    tensorboard: bool = Field(True, description="write TensorBoard events into the run directory")
    wandb_project: str | None = Field(
        None, min_length=1, description="Weights & Biases project; null: off"
    )
    register_best: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="name under which train registers each new best voice of a dataset in MLflow, "
        "with its lineage and without an alias; that of promote.registered_model lets promote "
        "take the same version over; null: only promote registers",
    )
    alerts: AlertParams = Field(default_factory=AlertParams, description="who is told what")

    @field_validator("mlflow_uri")
    @classmethod
    def _no_file_store(cls, uri: str | None) -> str | None:
        if uri is not None and (uri.startswith("file:") or "://" not in uri):
            raise ValueError(
                "MLflow 3 refuses the file store; use sqlite:///mlflow.db or a server's URL"
            )
        if uri is not None:
            require_no_credentials(uri, "set MLFLOW_TRACKING_USERNAME and _PASSWORD")
        return uri
