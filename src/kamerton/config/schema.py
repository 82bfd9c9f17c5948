"""Every parameter of a voice project, with its unit, its bounds and what it does.

One class per section of params.yaml. Defaults are the production values; a project writes only
what differs. Descriptions are the reference (`kamerton params docs`).
"""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kamerton.config.search_space import Dimension, default_search_space

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AudioParams(Section):
    """The sound that clips are written in and the mel spectrogram that the model learns."""

    sample_rate_hz: int = Field(
        22050, ge=8000, le=48000, description="rate of clips and of the voice"
    )
    fft_samples: int = Field(1024, ge=128, le=8192, description="length of the Fourier transform")
    window_samples: int = Field(1024, ge=64, le=8192, description="length of the Hann window")
    hop_samples: int = Field(256, ge=32, le=4096, description="step between mel frames")
    mel_channels: int = Field(80, ge=16, le=256, description="bands of the mel spectrogram")
    mel_fmin_hz: float = Field(0.0, ge=0.0, description="lowest frequency of the mel bands")
    mel_fmax_hz: float | None = Field(
        8000.0, gt=0.0, description="highest frequency of the mel bands; null: half the sample rate"
    )

    @property
    def fmax_hz(self) -> float:
        """The highest mel frequency in Hz, with null resolved."""
        return self.sample_rate_hz / 2 if self.mel_fmax_hz is None else self.mel_fmax_hz

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window_samples > self.fft_samples:
            raise ValueError("window_samples must not exceed fft_samples")
        if self.hop_samples > self.window_samples:
            raise ValueError("hop_samples must not exceed window_samples")
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise ValueError("mel_fmax_hz must not exceed half of sample_rate_hz")
        if self.mel_fmin_hz >= self.fmax_hz:
            raise ValueError("mel_fmin_hz must be below mel_fmax_hz")
        return self


class TextParams(Section):
    """The language and how text becomes symbols."""

    language: str = Field(
        "en", pattern=r"^[a-z]{2,3}$", description="ISO 639 code of the recordings' language"
    )
    lowercase: bool = Field(True, description="fold letters to lower case")
    expand_numbers: bool = Field(True, description="write digits, dates and sums as words")
    expand_abbreviations: bool = Field(
        True, description="write abbreviations such as 'dr.' in full"
    )


class SegmentParams(Section):
    """Where long recordings are cut into clips of one utterance."""

    min_seconds: float = Field(1.0, gt=0.0, le=30.0, description="no clip is shorter")
    target_seconds: float = Field(6.0, gt=0.0, le=30.0, description="the length a clip should have")
    max_seconds: float = Field(12.0, gt=0.0, le=30.0, description="no clip is longer")
    min_pause_seconds: float = Field(
        0.15, ge=0.05, le=2.0, description="shorter silences are part of speech"
    )
    max_inner_pause_seconds: float = Field(
        0.8, ge=0.1, le=10.0, description="a pause inside a clip that is longer is always cut at"
    )
    pad_seconds: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="silence kept at each side, never past the middle of the pause",
    )
    fade_seconds: float = Field(0.01, ge=0.0, le=0.1, description="fade at both ends of a clip")
    loudness_lufs: float = Field(
        -23.0, ge=-40.0, le=-10.0, description="loudness that each recording is brought to"
    )
    true_peak_dbfs: float = Field(
        -1.0, ge=-12.0, le=0.0, description="no clip's true peak is above"
    )
    min_snr_db: float = Field(
        5.0, ge=-20.0, le=60.0, description="clips with more noise are rejected"
    )
    keep_forced_cuts: bool = Field(
        False,
        description="keep clips that had to be cut where no pause was, instead of rejecting them",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min_seconds <= self.target_seconds <= self.max_seconds:
            raise ValueError("min_seconds <= target_seconds <= max_seconds must hold")
        return self


class TranscribeParams(Section):
    """The recogniser and which of its answers are believed."""

    backend: Literal["whisper", "faster-whisper"] = Field(
        "whisper",
        description="openai-whisper (the reference) or faster-whisper (CTranslate2, no torch)",
    )
    model: str = Field(
        "large-v3",
        min_length=1,
        description="name of a Whisper model, or a path to one (relative to the project)",
    )
    detect_language: bool = Field(
        False, description="let the recogniser find the language of each clip"
    )
    beam_size: int = Field(
        1, ge=1, le=20, description="hypotheses kept while decoding; 1 is greedy"
    )
    temperatures: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = Field(
        (0.0, 0.2, 0.4),
        min_length=1,
        description="tried in turn while an answer fails the limits below",
    )
    threads: int = Field(0, ge=0, le=256, description="processor threads; 0: all cores")
    min_avg_logprob: float = Field(
        -1.0, le=0.0, description="answers of lower mean log probability are rejected"
    )
    max_compression_ratio: float = Field(
        2.4, gt=1.0, description="answers that repeat themselves more are rejected"
    )
    max_no_speech_prob: Share = Field(
        0.6,
        description="answers more probably silence, and unsure, are rejected",
    )
    min_unique_word_share: Share = Field(
        0.3, description="answers with fewer different words are rejected"
    )


class DatasetParams(Section):
    """What becomes training data and how it is split."""

    name: str = Field(
        "voice", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of the dataset"
    )
    speaker: str = Field(
        "speaker", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of the speaker"
    )
    test_fraction: float = Field(
        0.05, gt=0.0, lt=0.5, description="share of the blocks set aside for evaluation"
    )
    val_fraction: float = Field(
        0.05, gt=0.0, lt=0.5, description="share of the blocks that steers training"
    )
    block_seconds: float = Field(
        60.0,
        gt=0.0,
        description="length of the stretches of a recording that go to one split together",
    )
    split_seed: int = Field(1234, ge=0, description="another seed draws another split")
    min_clip_seconds: float = Field(0.5, gt=0.0, description="shorter clips are rejected")
    max_clip_seconds: float = Field(15.0, gt=0.0, description="longer clips are rejected")
    min_chars_per_second: float = Field(
        3.0, ge=0.0, description="slower text is rejected: words are missing"
    )
    max_chars_per_second: float = Field(
        25.0, gt=0.0, description="faster text is rejected: words were invented"
    )
    outlier_iqr: float = Field(
        3.0,
        gt=0.0,
        description="clips this many quartile ranges outside the dataset's tempo are rejected",
    )
    reject_duplicates: bool = Field(
        True, description="keep one of clips with equal sound, or equal text and length"
    )
    clips_per_shard: int = Field(500, ge=1, description="clips in one tar shard")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_clip_seconds >= self.max_clip_seconds:
            raise ValueError("min_clip_seconds must be below max_clip_seconds")
        if self.min_chars_per_second >= self.max_chars_per_second:
            raise ValueError("min_chars_per_second must be below max_chars_per_second")
        if self.test_fraction + self.val_fraction >= 0.9:
            raise ValueError("test_fraction + val_fraction must stay below 0.9")
        return self


class AnalyzeParams(Section):
    """The epoch rule of the specification and what it takes for granted."""

    min_epochs: int = Field(500, ge=1, description="the recommendation is never lower")
    max_epochs: int = Field(5000, ge=1, description="the recommendation is never higher")
    accent: bool = Field(
        False, description="the speaker has an accent (adds 20 %); never guessed from the sound"
    )
    wide_pitch_semitones: float = Field(
        14.0, gt=0.0, description="a wider pitch range counts as complex"
    )
    variable_tempo_cv: float = Field(
        0.2, gt=0.0, description="a tempo that varies more counts as complex"
    )
    worst_clips: int = Field(
        10, ge=0, le=100, description="clips listed for dropping or re-recording"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_epochs > self.max_epochs:
            raise ValueError("min_epochs must not exceed max_epochs")
        return self


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
    prenet_dropout: Share = Field(0.5, description="dropout of the prenet, also when speaking")
    encoder_dropout: Share = Field(0.5, description="dropout after the encoder's convolutions")
    postnet_dropout: Share = Field(0.5, description="dropout after the postnet's convolutions")
    attention_dropout: Share = Field(0.1, description="dropout of the attention LSTM's output")
    decoder_dropout: Share = Field(0.1, description="dropout of the decoder LSTM's output")
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


class Params(Section):
    """All of params.yaml."""

    audio: AudioParams = Field(default_factory=AudioParams)
    text: TextParams = Field(default_factory=TextParams)
    segment: SegmentParams = Field(default_factory=SegmentParams)
    transcribe: TranscribeParams = Field(default_factory=TranscribeParams)
    dataset: DatasetParams = Field(default_factory=DatasetParams)
    analyze: AnalyzeParams = Field(default_factory=AnalyzeParams)
    tune: TuneParams = Field(default_factory=TuneParams)
    train: TrainParams = Field(default_factory=TrainParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    promote: PromoteParams = Field(default_factory=PromoteParams)
    tracking: TrackingParams = Field(default_factory=TrackingParams)

    def with_overrides(self, overrides: dict[str, Any]) -> Self:
        """These parameters with nested ``overrides`` laid over them, validated again."""
        return type(self).model_validate(merge(self.model_dump(), overrides))


SECTIONS: tuple[str, ...] = tuple(Params.model_fields)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on top; mappings are merged, the search space is replaced."""
    merged = dict(base)
    for key, value in over.items():
        deep = (
            isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "search_space"
        )
        merged[key] = merge(merged[key], value) if deep else value
    return merged


def is_local_path(model: str) -> bool:
    """Whether a model is named by a path rather than by one of Whisper's names."""
    return "/" in model or "\\" in model or PurePosixPath(model).suffix == ".pt"
