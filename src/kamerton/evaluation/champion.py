"""The champion's evaluation: as it was promoted, or measured again beside a new candidate.

Two voices can be compared only on the same sentences, by the same definitions. When the dataset
has grown or a definition has changed since, the champion reads the new test set itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kamerton.core.errors import InputCorruptError, InputMissingError, PipelineError
from kamerton.evaluation.gates import Champion, why_not_comparable
from kamerton.evaluation.scorecard import Scorecard, read_utterances
from kamerton.tracking.model_registry import (
    EVALUATION_FOLDER,
    MODEL_FOLDER,
    MODEL_TAG,
    ModelRegistry,
    RegisteredVersion,
)

REMEASURED_FOLDER = "champion"  # inside the candidate's evaluation

Measure = Callable[[Path, str], Champion]
"""Measures the voice in a folder on the candidate's test set, as a version of that name."""


def champion_beside(
    card: Scorecard, registry: ModelRegistry, measure: Measure
) -> tuple[Champion | None, bool, str]:
    """The champion, comparable with the candidate, for the evaluation to show beside it.

    A registry that does not answer, or a champion that cannot speak any more, must not cost the
    evaluation of the candidate; the promotion will insist on the registry.

    Returns:
        The champion or None, whether it was measured again for this, and a sentence about it.
    """
    if not registry.exists:
        return None, False, "There is no champion to compare with yet."
    try:
        version = registry.champion()
        if version is None:
            return None, False, "There is no champion to compare with yet."
        stored = _stored(registry, version)
        why_not = why_not_comparable(card, stored) if isinstance(stored, Champion) else stored
        if isinstance(stored, Champion) and why_not is None:
            return stored, False, f"The champion is version {version.version}."
        if version.tags.get(MODEL_TAG) == card.model_sha256:
            return None, False, f"This voice is the champion, version {version.version}, itself."
        again = measure(registry.folder(version, MODEL_FOLDER), version.version)
    except PipelineError as error:
        return None, False, f"The champion could not be compared with: {error.message}"
    note = f"The champion, version {version.version}, read the same sentences, because {why_not}."
    return again, True, note


def comparable_champion(
    card: Scorecard, evaluation: Path, registry: ModelRegistry, version: RegisteredVersion
) -> tuple[Champion | None, str]:
    """The champion to hold the candidate against, or None, and the reason in words.

    Its stored evaluation is taken if it is comparable, else the one that the candidate's
    evaluation brought along, if that is of this very champion.

    Raises:
        RegistryError: the stored evaluation cannot be downloaded.
    """
    stored = _stored(registry, version)
    why_not = why_not_comparable(card, stored) if isinstance(stored, Champion) else stored
    if isinstance(stored, Champion) and why_not is None:
        return stored, f"compared with the champion, version {version.version}"
    folder = evaluation / REMEASURED_FOLDER
    if folder.is_dir():
        again = _read(folder, version.version, "evaluate")
        right = again.scorecard.model_sha256 == version.tags.get(MODEL_TAG)
        if right and why_not_comparable(card, again) is None:
            return again, f"compared with the champion, version {version.version}, measured again"
    return None, f"not compared with the champion: {why_not}"


def _stored(registry: ModelRegistry, version: RegisteredVersion) -> Champion | str:
    """The evaluation that was registered with a version, or why there is none."""
    try:
        folder = registry.folder(version, EVALUATION_FOLDER)
        return _read(folder, version.version, "promote")
    except (InputMissingError, InputCorruptError) as error:
        return f"the evaluation of version {version.version} is lost ({error.message})"


def _read(folder: Path, version: str, produced_by: str) -> Champion:
    card = Scorecard.read(folder, produced_by=produced_by)
    return Champion(version, card, read_utterances(folder, produced_by=produced_by))
