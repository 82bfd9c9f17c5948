"""The parameters of the stages that turn a dataset into a voice."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from kamerton.config.search_space import Dimension, default_search_space
from kamerton.config.section import Dropout, Section, Share


class TuneParams(Section):
    """The search for hyperparameters."""

    trials: int = Field(
        10, ge=1, le=10000, description="trials of the study, the unchanged parameters first"
    )
    trial_steps: int = Field(5000, ge=1, description="optimiser steps of each trial")
    sampler: Literal["tpe", "gp", "cma_es", "bohb", "random", "auto"] = Field(
        "tpe", description="how the next trial is chosen; bohb is tpe with the hyperband pruner"
    )
    pruner: Literal["successive_halving", "hyperband", "median", "none"] = Field(
        "successive_halving", description="how hopeless trials are ended early"
    )
    startup_trials: int | None = Field(
        None,
        ge=1,
        description="random trials before the sampler; null: a third of the trials, 3 to 15",
    )
    seed: int = Field(1234, ge=0, description="another seed makes another study")
    search_space: dict[str, Dimension] = Field(
        default_factory=default_search_space,
        description="dimensions by the dotted name of the parameter they set",
    )


class ModelParams(Section):
    """The size of Tacotron 2 (defaults: Shen et al. 2018)."""

    symbol_embedding: int = Field(512, ge=8, description="size of a symbol's vector")
    encoder_convolutions: int = Field(3, ge=1, le=8, description="convolutions of the encoder")
    encoder_kernel: int = Field(
        5, ge=1, le=31, description="width of the encoder's convolutions (odd)"
    )
    encoder_embedding_dim: int = Field(512, ge=8, description="size of the encoded text (even)")
    attention_rnn_dim: int = Field(1024, ge=8, description="size of the attention LSTM")
    decoder_rnn_dim: int = Field(1024, ge=8, description="size of the decoder LSTM")
    attention_dim: int = Field(128, ge=4, description="size of the attention's hidden layer")
    location_filters: int = Field(32, ge=1, description="filters over earlier attention weights")
    location_kernel: int = Field(31, ge=1, le=101, description="width of those filters (odd)")
    prenet_dim: int = Field(256, ge=4, description="size of the two prenet layers")
    postnet_dim: int = Field(512, ge=8, description="channels of the postnet")
    postnet_convolutions: int = Field(5, ge=2, le=10, description="convolutions of the postnet")
    postnet_kernel: int = Field(
        5, ge=1, le=31, description="width of the postnet's convolutions (odd)"
    )
    reduction_factor: int = Field(1, ge=1, le=10, description="mel frames per decoder step")

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.encoder_embedding_dim % 2:
            raise ValueError("encoder_embedding_dim must be even (two directions)")
        for name in ("encoder_kernel", "location_kernel", "postnet_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd")
        return self


class TrainParams(Section):
    """The training run."""

    model: ModelParams = Field(default_factory=ModelParams, description="the size of the network")
    epochs: int | None = Field(
        None, ge=1, description="passes over the data; null: what the analysis recommends"
    )
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps at most; null: no limit but the epochs"
    )
    batch_size: int = Field(32, ge=1, description="utterances in one step")
    learning_rate: float = Field(1e-3, gt=0.0, le=0.1, description="peak learning rate of Adam")
    min_learning_rate_share: Share = Field(
        0.1, description="learning rate at the end, as a share of the peak"
    )
    warmup_steps: int = Field(
        1000, ge=0, description="steps to reach the peak; at most 5 % of the budget are used"
    )
    weight_decay: float = Field(1e-6, ge=0.0, le=1.0, description="decoupled weight decay")
    grad_clip_thresh: float = Field(
        1.0, gt=0.0, description="gradient norm above which gradients are scaled down"
    )
    prenet_dropout: Dropout = Field(0.5, description="dropout of the prenet, also when speaking")
    encoder_dropout: Dropout = Field(0.5, description="dropout after the encoder's convolutions")
    postnet_dropout: Dropout = Field(0.5, description="dropout after the postnet's convolutions")
    attention_dropout: Dropout = Field(0.1, description="dropout of the attention LSTM's output")
    decoder_dropout: Dropout = Field(0.1, description="dropout of the decoder LSTM's output")
    guided_attention_weight: float = Field(
        10.0, ge=0.0, description="weight of the guided attention loss; 0: off"
    )
    guided_attention_sigma: float = Field(
        0.4, gt=0.0, le=2.0, description="width of the diagonal it allows"
    )
    gate_pos_weight: float = Field(
        5.0, gt=0.0, description="weight of the one last frame against all others"
    )
    gate_threshold: float = Field(
        0.5, gt=0.0, lt=1.0, description="stop probability that ends an utterance"
    )
    eval_interval_steps: int = Field(500, ge=1, description="steps between evaluations")
    checkpoint_interval_steps: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(
        3, ge=1, description="older step checkpoints kept beside last and best"
    )
    patience_share: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="stop when this share of the budget brought no better validation; null: never",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="number format of the large products"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )
    threads: int = Field(0, ge=0, le=256, description="processor threads; 0: all cores")
    seed: int = Field(1234, ge=0, description="another seed makes another run")


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

    @field_validator("mlflow_uri")
    @classmethod
    def _no_file_store(cls, uri: str | None) -> str | None:
        if uri is not None and (uri.startswith("file:") or "://" not in uri):
            raise ValueError(
                "MLflow 3 refuses the file store; use sqlite:///mlflow.db or a server's URL"
            )
        if uri is not None and "@" in uri:
            raise ValueError(
                "a URL must not carry credentials; set MLFLOW_TRACKING_USERNAME and _PASSWORD"
            )
        return uri
