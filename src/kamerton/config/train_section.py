"""The parameters of the training run."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kamerton.config.section import Dropout, Section, Share
from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.config.tuner_sections import BatchSizeParams, QualityControlParams

_Positive = Annotated[float, Field(gt=0.0)]
_AtLeast0 = Annotated[float, Field(ge=0.0)]
Preset = Literal["plain", "quality"]


def _given(value: Any, preset: Preset, plain: Any, quality: Any) -> Any:
    if value is not None:
        return value
    return quality if preset == "quality" else plain


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
    attention: Literal["location_sensitive", "dynamic_convolution", "forward"] = Field(
        "location_sensitive", description="how the decoder finds its place in the text"
    )
    speaker_embedding_dim: int | None = Field(
        None,
        ge=0,
        description="size of a speaker's vector; null: 64 where the dataset has several speakers, "
        "none where it has one",
    )
    double_decoder_reduction: int = Field(
        6,
        ge=2,
        le=20,
        description="mel frames per step of the coarse decoder that trains beside the first; "
        "used where train.losses.double_decoder_weight is above 0",
    )

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.encoder_embedding_dim % 2:
            raise ValueError("encoder_embedding_dim must be even (two directions)")
        for name in ("encoder_kernel", "location_kernel", "postnet_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd")
        return self


class LossParams(Section):
    """Losses beside those of mel, gate and guided attention; null: by ``train.preset``."""

    mel: Literal["l1_l2", "mse"] = Field(
        "l1_l2", description="error of mel frames: absolute plus squared, or squared alone"
    )
    spectral_weight: float | None = Field(
        None, ge=0.0, description="errors weighted by band, and of the change over time; 0.3"
    )
    perceptual_weight: float | None = Field(
        None, ge=0.0, description="errors weighted by how loud a band is heard; 0.2"
    )
    style_weight: float | None = Field(
        None, ge=0.0, description="mean, variance and correlation of the bands; 0.1"
    )
    monotonic_weight: float | None = Field(
        None, ge=0.0, description="attention that goes back or leaps; 0.1"
    )
    double_decoder_weight: float | None = Field(
        None, ge=0.0, description="a second, coarse decoder that attention must agree with; 0.5"
    )
    adaptive_gate: bool | None = Field(
        None, description="weigh the gate by how well stops are found; quality: on"
    )

    def resolved(self, preset: Preset) -> Self:
        """The same with the preset's values where keys are null."""
        quality = {
            "spectral_weight": 0.3, "perceptual_weight": 0.2, "style_weight": 0.1,
            "monotonic_weight": 0.1, "double_decoder_weight": 0.5,
        }  # fmt: skip
        values: dict[str, Any] = {
            name: _given(getattr(self, name), preset, 0.0, value) for name, value in quality.items()
        }
        values["adaptive_gate"] = _given(self.adaptive_gate, preset, False, True)
        return self.model_copy(update=values)


class RegularisationParams(Section):
    """Noise in the network; null: by ``train.preset``."""

    recurrent: Literal["output", "recurrent", "zoneout", "variational"] | None = Field(
        None,
        description="what attention_dropout and decoder_dropout do to the two LSTMs: drop outputs; "
        "drop the state that recurs too; keep old state; one mask for all steps; "
        "null: output, in quality zoneout",
    )
    variational: Literal["gal", "gaussian", "learned"] = Field(
        "gal", description="the noise of 'variational': zeros, Gaussian, Gaussian of learned width"
    )
    variational_kl_weight: float = Field(
        1e-4, ge=0.0, description="weight of what learned widths cost, after a warm-up"
    )
    spectral_dropout: Dropout | None = Field(
        None,
        description="share of cosine coefficients dropped from the frames fed back; "
        "null: 0, in quality 0.05",
    )

    def resolved(self, preset: Preset) -> Self:
        """The same with the preset's values where keys are null."""
        return self.model_copy(
            update={
                "recurrent": _given(self.recurrent, preset, "output", "zoneout"),
                "spectral_dropout": _given(self.spectral_dropout, preset, 0.0, 0.05),
            }
        )


class PhaseParams(Section):
    """Phases: alignment, learning, quality, fine-tuning; by share of the budget and by metric."""

    count: Literal[0, 3, 4] = Field(
        4, description="3 merges the last two; 0: one phase, the schedule alone"
    )
    evaluations: int = Field(
        3, ge=1, description="evaluations in a row that must meet a phase's goal to leave it early"
    )
    learning_rate_factors: tuple[_Positive, _Positive, _Positive, _Positive] = Field(
        (1.0, 0.8, 0.5, 0.3), description="what each phase makes of the schedule's learning rate"
    )
    guided_attention_factors: tuple[_AtLeast0, _AtLeast0, _AtLeast0, _AtLeast0] = Field(
        (1.0, 0.3, 0.1, 0.05), description="what each phase makes of guided_attention_weight"
    )
    attention_goals: tuple[Share, Share] = Field(
        (0.5, 0.8),
        description="free-running diagonality at which the first two phases may be left early; "
        "how attention looks does not say that quality is reached",
    )
    curriculum: bool | None = Field(
        None, description="short clips first, all by the end of phase 1; null: off, in quality on"
    )
    curriculum_start_share: Share = Field(
        0.4, description="share of the clips, the shortest, that the curriculum begins with"
    )

    def resolved(self, preset: Preset) -> Self:
        """The same with the preset's values where keys are null."""
        return self.model_copy(update={"curriculum": _given(self.curriculum, preset, False, True)})


class RecoveryParams(Section):
    """What is done about explosion, plateau and collapse; each an event, and few per run."""

    enabled: bool = Field(True, description="false: bad steps are only skipped")
    max_recoveries: int = Field(
        3,
        ge=0,
        description="interventions per run; an explosion or a collapse after them ends it with its "
        "best model",
    )
    cooldown_share: Share = Field(0.05, description="share of the budget between two of them")
    explosion_norm: float = Field(
        10.0, gt=0.0, description="gradient norm from which one may be an explosion"
    )
    explosion_factor: float = Field(
        5.0, gt=1.0, description="times the usual norm from which it is one, three steps in a row"
    )
    plateau_share: Share = Field(
        0.125,
        description="share of the budget without a better evaluation that is a plateau, at most "
        "half of early_stopping.patience_share",
    )
    divergence_share: float = Field(
        0.3,
        gt=0.0,
        description="rise of the mel loss over the best, as a share of the improvement since the "
        "first one and at least half of the best, that is a divergence, twice in a row",
    )
    collapse_below: Share = Field(
        0.3,
        description="free-running diagonality that is a collapse after it was above "
        "collapse_after, if the teacher-forced one is not above that either",
    )
    collapse_after: Share = Field(0.5, description="see collapse_below")
    min_learning_rate: float = Field(1e-7, gt=0.0, description="no intervention goes below it")

    @model_validator(mode="after")
    def _collapse(self) -> Self:
        if self.collapse_below >= self.collapse_after:
            raise ValueError("collapse_below must be less than collapse_after")
        return self


class MonitoringParams(Section):
    """What a run writes down beside its evaluations."""

    log_interval_steps: int = Field(10, ge=1, description="steps between training figures")
    figure_interval_steps: int | None = Field(
        None, ge=1, description="steps between pictures; null: at every evaluation"
    )
    sample_interval_steps: int | None = Field(
        None, ge=1, description="steps between samples of speech; null: at every evaluation"
    )
    debug_interval_steps: int = Field(
        1000, ge=1, description="steps between debug reports (JSON and Markdown)"
    )
    free_running_sentences: int = Field(
        8, ge=1, le=64, description="validation sentences read aloud at every evaluation"
    )


class ChangeParams(Section):
    """What a run is made with from some point on, as factors of its other parameters."""

    from_share: Share = Field(description="share of the budget from which it holds")
    learning_rate: _Positive = Field(1.0, description="factor of the schedule's learning rate")
    weight_decay: _AtLeast0 = Field(1.0, description="factor of weight_decay")
    guided_attention_weight: _AtLeast0 = Field(1.0, description="factor of that weight")
    dropout: _AtLeast0 = Field(1.0, description="factor of attention and decoder dropout")


class TrainParams(Section):
    """The training run."""

    model: ModelParams = Field(default_factory=ModelParams, description="the size of the network")
    epochs: int | None = Field(
        None, ge=1, description="passes over the data; null: what the analysis recommends"
    )
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps at most; null: no limit but the epochs"
    )
    preset: Literal["plain", "quality"] = Field(
        "plain",
        description="what the losses and regularisers that are null below stand for: the paper's "
        "alone, or all that help",
    )
    batch_size: int = Field(
        32, ge=1, description="utterances in one batch, of average length; see train.batching"
    )
    batching: Literal["frames", "utterances", "auto"] = Field(
        "auto",
        description="frames: batches of equal frames, batch_size times the mean length; "
        "utterances: of equal count; auto: frames on a CPU, utterances on a GPU",
    )
    accumulation: int = Field(
        1, ge=1, description="batches whose gradients are averaged in one step of each process"
    )
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
    adaptive_clip: bool | None = Field(
        None,
        description="clip at the 95th percentile of the last 1000 norms where that is less; "
        "null: by preset (quality: on)",
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
    guided_attention_kind: Literal["tachibana", "gaussian_mse", "ctc_forward_sum"] = Field(
        "tachibana", description="how attention is held to the diagonal"
    )
    losses: LossParams = Field(default_factory=LossParams, description="further losses")
    regularisation: RegularisationParams = Field(
        default_factory=RegularisationParams, description="further regularisers"
    )
    phases: PhaseParams = Field(default_factory=PhaseParams, description="phases of the training")
    recovery: RecoveryParams = Field(
        default_factory=RecoveryParams, description="what is done when training goes wrong"
    )
    monitoring: MonitoringParams = Field(
        default_factory=MonitoringParams, description="what is written down, and how often"
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
    early_stopping: EarlyStoppingParams = Field(
        default_factory=EarlyStoppingParams, description="when a run ends before its budget"
    )
    quality_control: QualityControlParams = Field(
        default_factory=QualityControlParams, description="what is done about faults"
    )
    batch_size_adaptation: BatchSizeParams = Field(
        default_factory=BatchSizeParams, description="a batch size that follows the training"
    )
    changes: tuple[ChangeParams, ...] = Field(
        (), description="changes of the schedule in the course of a run, as generations find them"
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="number format of the large products; auto: the fastest that is safe"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )
    threads: int = Field(0, ge=0, le=256, description="processor threads; 0: all cores")
    seed: int = Field(1234, ge=0, lt=2**63, description="another seed makes another run")

    def resolved(self) -> "TrainParams":
        """The same with the preset's values where keys are null."""
        return self.model_copy(
            update={
                "adaptive_clip": _given(self.adaptive_clip, self.preset, False, True),
                "losses": self.losses.resolved(self.preset),
                "regularisation": self.regularisation.resolved(self.preset),
                "phases": self.phases.resolved(self.preset),
                "quality_control": self.quality_control.resolved(self.preset),
            }
        )
