"""The parameters of the stages that turn recordings into a dataset."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kamerton.config.section import Section, Share

# Whisper learned them from subtitles and writes them where nobody speaks. In any language: a whole
# answer is compared.
HALLUCINATIONS = (
    "thanks for watching",
    "thank you for watching",
    "thank you so much for watching",
    "please subscribe",
    "please subscribe to my channel",
    "don't forget to like and subscribe",
    "see you in the next video",
    "subtitles by *",
    "transcription by *",
    "субтитры сделал *",
    "субтитры создавал *",
    "субтитры подготовил *",
    "субтитры подогнал *",
    "редактор субтитров *",
    "спасибо за просмотр",
    "подписывайтесь на канал",
    "подписывайтесь на мой канал",
    "продолжение следует",
)


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
    phonemes: Literal["none", "espeak"] = Field(
        "none",
        description="what the voice reads: letters, or phonemes by the program espeak-ng, which "
        "must then be installed wherever it is trained and speaks",
    )


class SegmentParams(Section):
    """Where long recordings are cut into clips of one utterance."""

    detector: Literal["auto", "neural", "energy"] = Field(
        "auto",
        description="who hears speech: silero's network with energy, or energy alone; auto: the "
        "network where it is installed",
    )
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
    pack: bool = Field(
        True, description="hear several clips in one window of 30 s; false: one window per clip"
    )
    detect_language: bool = Field(
        False, description="let the recogniser find the language of each recording"
    )
    min_language_prob: Share = Field(
        0.8, description="recordings whose detected language is less probable are rejected"
    )
    beam_size: int = Field(
        1, ge=1, le=20, description="hypotheses kept while decoding; 1 is greedy"
    )
    temperatures: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = Field(
        (0.0, 0.2, 0.4),
        min_length=1,
        description="tried in turn while an answer fails Whisper's own limits (-1.0 and 2.4)",
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
    hallucinations: tuple[str, ...] = Field(
        HALLUCINATIONS,
        description="answers that are one of these as a whole are rejected, letter case and "
        "punctuation aside; a `*` at the end stands for anything",
    )


class DatasetParams(Section):
    """What becomes training data and how it is split."""

    name: str = Field(
        "voice", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of the dataset"
    )
    speaker: str = Field(
        "speaker", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of the speaker"
    )
    speaker_by_folder: bool = Field(
        False,
        description="the first folder below the recordings names who speaks in it; recordings in "
        "none are by `speaker`",
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
        description="clips this many quartile ranges outside the dataset's usual tempo or length "
        "are rejected",
    )
    reject_duplicates: bool = Field(
        True, description="keep one of clips with equal sound, or equal text and length"
    )
    clips_per_shard: int = Field(500, ge=1, description="most clips in one tar shard")
    licence: str = Field(
        "", max_length=200, description="licence of the recordings, stated on the card"
    )
    description: str = Field(
        "", max_length=2000, description="what the recordings are, stated on the card"
    )

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
        False,
        description="the speaker has an accent (adds 20 %); a suspicion of the recogniser is "
        "reported but counts for nothing, and the sound alone tells none",
    )
    wide_pitch_semitones: float = Field(
        16.0,
        gt=0.0,
        description="a wider pitch range counts as complex; a calm reader has about 14.5",
    )
    variable_tempo_cv: float = Field(
        0.2, gt=0.0, description="a tempo that varies more counts as complex"
    )
    worst_clips: int = Field(
        10, ge=0, le=100, description="clips listed for dropping or re-recording"
    )
    drop_gain: float = Field(
        0.25,
        gt=0.0,
        le=1.0,
        description="dropping is advised from this much quality per share of the speech that is "
        "lost: 0.25 is one hundredth for four per cent",
    )
    history: str | None = Field(
        "runs/history.db",
        min_length=1,
        description="file of what finished runs needed, which the train stage writes into its "
        "folder of runs; null, or a file that is not there: the rule alone",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_epochs > self.max_epochs:
            raise ValueError("min_epochs must not exceed max_epochs")
        return self
