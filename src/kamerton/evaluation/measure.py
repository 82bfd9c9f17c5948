"""Every measure of one sentence: what the voice made of it beside the best the vocoder could."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.metrics import perceptual, spectral
from kamerton.metrics.alignment import AttentionScores
from kamerton.metrics.intelligibility import WordErrors, word_errors
from kamerton.metrics.measurement import Measurement, Status, invalid, measured
from kamerton.metrics.pair import Pair, PairError, prepare_pair

Wave = NDArray[np.float32]

# Of the synthesis; each is measured on copy-synthesis too, and that is its ceiling.
WARPED_METRICS = ("mcd_dtw", "dur_ratio", "stoi_dtw", "estoi_dtw", "pesq_wb_dtw")
# Of copy-synthesis only, whose timing is the reference's own.
PLAIN_METRICS = ("stoi", "estoi", "pesq_wb")

DEFINITIONS: dict[str, str] = {
    "mcd_dtw": spectral.MCD_DEFINITION,
    "dur_ratio": "dur_ratio/1: trimmed length of the synthesis over that of the reference",
    "stoi_dtw": f"{perceptual.STOI_DEFINITION}; {perceptual.WARP_DEFINITION}",
    "estoi_dtw": f"{perceptual.ESTOI_DEFINITION}; {perceptual.WARP_DEFINITION}",
    "pesq_wb_dtw": f"{perceptual.PESQ_DEFINITION}; {perceptual.WARP_DEFINITION}",
    "stoi": perceptual.STOI_DEFINITION,
    "estoi": perceptual.ESTOI_DEFINITION,
    "pesq_wb": perceptual.PESQ_DEFINITION,
}

_DIGITS = 6  # pystoi adds noise of 1e-16, and a stored number must not depend on it


@dataclass(frozen=True, slots=True)
class Sounds:
    """One sentence three times, mono at one rate: recorded, copied through the vocoder, spoken."""

    reference: Wave
    copy_synthesis: Wave
    synthesis: Wave
    rate_hz: int

    def playable(self) -> dict[str, Wave]:
        """The three by name, with silence where a sample is not finite."""
        return {
            "recording": self.reference,
            "copy": self.copy_synthesis,
            "voice": np.nan_to_num(self.synthesis, nan=0.0, posinf=0.0, neginf=0.0),
        }


@dataclass(frozen=True, slots=True)
class Heard:
    """What the recogniser made of each of the three."""

    original: str
    copy_synthesis: str
    synthesis: str


@dataclass(frozen=True, slots=True)
class UtteranceScores:
    """All measures of one test sentence.

    Attributes:
        id: Of the dataset row.
        text: What was to be said, normalised.
        reference_seconds: Length of the recording, untrimmed.
        synthesis_seconds: Length of what the voice said.
        stopped: Whether the voice ended by itself; False is a runaway.
        attention: Its attention's scores; all 0 for a runaway.
        synthesis: The warped metrics of the synthesis.
        copy_synthesis: Warped and plain metrics of copy-synthesis.
        heard: The recogniser's texts.
        errors: Errors of the three texts, keyed like ``heard``.
    """

    id: str
    text: str
    reference_seconds: float
    synthesis_seconds: float
    stopped: bool
    attention: AttentionScores
    synthesis: Mapping[str, Measurement]
    copy_synthesis: Mapping[str, Measurement]
    heard: Heard
    errors: Mapping[str, WordErrors]

    @property
    def wer(self) -> float:
        """Word error rate of the synthesis of this sentence alone."""
        return self.errors["synthesis"].wer

    def as_dict(self) -> dict[str, Any]:
        """The row of utterances.jsonl."""
        return {
            "id": self.id,
            "text": self.text,
            "reference_seconds": round(self.reference_seconds, _DIGITS),
            "synthesis_seconds": round(self.synthesis_seconds, _DIGITS),
            "stopped": self.stopped,
            "aligned": self.attention.aligned,
            "attention": {
                name: round(value, _DIGITS) for name, value in asdict(self.attention).items()
            },
            "synthesis": {name: asdict(found) for name, found in self.synthesis.items()},
            "copy_synthesis": {name: asdict(found) for name, found in self.copy_synthesis.items()},
            "heard": asdict(self.heard),
            "errors": {name: asdict(found) for name, found in self.errors.items()},
        }


def warped_metrics(reference: Wave, synthesis: Wave, rate_hz: int) -> dict[str, Measurement]:
    """The metrics that allow for another tempo; when the pair is unfit, each says why."""
    try:
        pair = prepare_pair(reference, rate_hz, synthesis, rate_hz)
    except PairError as error:
        return dict.fromkeys(WARPED_METRICS, invalid(str(error)))
    distortion, path = spectral.mel_cepstral_distortion(pair)
    warped = perceptual.warp_to_reference(pair, path)
    found = {
        "mcd_dtw": measured(distortion),
        "dur_ratio": measured(pair.duration_ratio),
        "stoi_dtw": perceptual.stoi(warped),
        "estoi_dtw": perceptual.stoi(warped, extended=True),
        "pesq_wb_dtw": perceptual.pesq_wb(warped),
    }
    return {name: _rounded(value) for name, value in found.items()}


def plain_metrics(
    reference: Wave, copy: Wave, rate_hz: int, hop_samples: int
) -> dict[str, Measurement]:
    """The metrics that compare moment by moment; the lengths must agree within one mel hop."""
    apart = abs(reference.size - copy.size)
    if apart > hop_samples:
        reason = f"the two differ in length by {apart} samples, more than one hop ({hop_samples})"
        return dict.fromkeys(PLAIN_METRICS, invalid(reason))
    size = min(reference.size, copy.size)
    try:
        prepare_pair(reference[:size], rate_hz, copy[:size], rate_hz)
    except PairError as error:
        return dict.fromkeys(PLAIN_METRICS, invalid(str(error)))
    pair = _resampled(reference[:size], copy[:size], rate_hz)
    found = {
        "stoi": perceptual.stoi(pair),
        "estoi": perceptual.stoi(pair, extended=True),
        "pesq_wb": perceptual.pesq_wb(pair),
    }
    return {name: _rounded(value) for name, value in found.items()}


def errors_of(text: str, heard: Heard) -> dict[str, WordErrors]:
    """Errors of the recogniser's three texts against what was to be said."""
    return {
        "original": word_errors([text], [heard.original]),
        "copy_synthesis": word_errors([text], [heard.copy_synthesis]),
        "synthesis": word_errors([text], [heard.synthesis]),
    }


def _resampled(reference: Wave, copy: Wave, rate_hz: int) -> Pair:
    """Both at 16 kHz and untrimmed: trimming each by itself would shift them against each other."""
    from kamerton.audio.resample import resample
    from kamerton.metrics.pair import RATE_HZ

    return Pair(
        resample(reference, rate_hz, RATE_HZ).astype(np.float64),
        resample(copy, rate_hz, RATE_HZ).astype(np.float64),
    )


def _rounded(found: Measurement) -> Measurement:
    if found.value is None:
        return found
    return Measurement(round(found.value, _DIGITS), Status.OK)
