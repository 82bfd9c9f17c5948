"""How many epochs to train: the rule of the specification (document 003).

The rule's numbers are those of the document. Where it contradicts itself the text of the rule is
followed, not its examples: percentages of complexity are added to each other, a boundary belongs
to the class above it, and "very small, good" is 3600 epochs although an example prints 3200.
"""

from dataclasses import dataclass
from pathlib import Path

from kamerton.config.schema import AnalyzeParams
from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json

# Up to how many hours, size, epochs; the confidence that the size adds.
SIZES = (
    (0.5, "very_small", 4000, 0.0),
    (1.0, "small", 3000, 0.05),
    (3.0, "medium", 2000, 0.12),
    (10.0, "large", 1500, 0.15),
    (float("inf"), "very_large", 1000, 0.18),
)
# From which score, label, factor.
QUALITIES = ((0.9, "excellent", 0.8), (0.7, "good", 0.9), (0.5, "fair", 1.0), (0.0, "poor", 1.3))
COMPLEXITY_SHARES = {"accent": 0.2, "emotion": 0.3, "tempo": 0.2, "pitch": 0.3}
# Up to which sum of shares, label.
COMPLEXITIES = ((0.0, "simple"), (0.3, "moderate"), (0.6, "complex"), (1.0, "very_complex"))

EPOCHS_STEP = 50
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Complexity:
    """What makes a voice harder to learn; each adds its share of epochs."""

    accent: bool = False
    emotion: bool = False
    tempo: bool = False
    pitch: bool = False

    @property
    def added_share(self) -> float:
        """Sum of the shares of what is present, 0 to 1."""
        return sum(share for name, share in COMPLEXITY_SHARES.items() if getattr(self, name))

    @property
    def label(self) -> str:
        """simple, moderate, complex or very_complex."""
        return next(label for limit, label in COMPLEXITIES if self.added_share <= limit + _ROUNDING)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Epochs to train and how they come about; ``confidence`` is a heuristic, 0.1 to 0.99.

    It is high for much, good and simple material, and sinks with the share of the sound that could
    not be measured.
    """

    base_epochs: int
    recommended_epochs: int
    confidence: float
    size: str
    quality: str
    reasons: tuple[str, ...]


def size_of(hours: float) -> tuple[str, int, float]:
    """Class of a dataset by its length, its base epochs, and the confidence it adds."""
    return next((name, epochs, sure) for limit, name, epochs, sure in SIZES if hours < limit)


def quality_of(score: float) -> tuple[str, float]:
    """Label of a quality score in [0, 1] and its factor on the epochs.

    Only "excellent" needs more than its boundary, as the document writes it (over 0.9).
    """
    if score > QUALITIES[0][0]:
        return QUALITIES[0][1], QUALITIES[0][2]
    return next((label, factor) for limit, label, factor in QUALITIES[1:] if score >= limit)


def recommend(
    hours: float,
    quality_score: float,
    complexity: Complexity,
    params: AnalyzeParams,
    measured_share: float = 1.0,
) -> Recommendation:
    """Apply the rule to measured hours, quality score in [0, 1] and complexity.

    ``measured_share`` is that of the sound whose quality was measured in full.
    """
    size, base, size_confidence = size_of(hours)
    quality, factor = quality_of(quality_score)
    exact = base * factor * (1.0 + complexity.added_share)
    rounded = int(exact / EPOCHS_STEP + 0.5 + _ROUNDING) * EPOCHS_STEP
    epochs = min(max(rounded, params.min_epochs), params.max_epochs)
    reasons = [
        f"{hours:.2f} h of speech is {size.replace('_', ' ')}: {base} epochs to begin with",
        f"quality is {quality}: {_percent(factor - 1.0)}",
        *_complexity_reasons(complexity),
    ]
    if epochs != rounded:
        reasons.append(f"{rounded} epochs lie outside the limits: {epochs}")
    confidence = 0.45 + 0.35 * quality_score + size_confidence - 0.1 * complexity.added_share
    confidence *= measured_share
    return Recommendation(
        base_epochs=base,
        recommended_epochs=epochs,
        confidence=round(min(max(confidence, 0.1), 0.99), 4),
        size=size,
        quality=quality,
        reasons=tuple(reasons),
    )


_COMPLEXITY_WORDS = {
    "accent": "the speaker has an accent",
    "emotion": "the reading is emotional",
    "tempo": "the tempo varies",
    "pitch": "the pitch range is wide",
}


def _complexity_reasons(complexity: Complexity) -> list[str]:
    present = [
        f"{_COMPLEXITY_WORDS[name]}: {_percent(share)}"
        for name, share in COMPLEXITY_SHARES.items()
        if getattr(complexity, name)
    ]
    return present or ["nothing makes the voice harder to learn than usual"]


def _percent(share: float) -> str:
    return "no change" if abs(share) < _ROUNDING else f"{share:+.0%}"


def read_recommended_epochs(analysis: Path) -> int:
    """The recommendation that stands in ``analysis`` (JSON).

    Raises:
        InputMissingError, InputCorruptError: there is none, or it is no number of epochs.
    """
    epochs = read_json(analysis, produced_by="analyze").get("recommended_epochs")
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise InputCorruptError(
            analysis,
            problem=f"recommended_epochs is {epochs!r}",
            hint="make it again: `kamerton analyze --force`",
        )
    return epochs
