"""The promote stage: an evaluation in, a verdict out, and a champion if it passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kamerton.core.environment import git_revision
from kamerton.core.errors import GateNotMetError, InputCorruptError, InputMissingError
from kamerton.core.files import (
    require_apart,
    require_new,
    sha256_file,
    sha256_json,
    write_json,
)
from kamerton.core.progress import Progress, silent
from kamerton.model import WEIGHTS_FILE

if TYPE_CHECKING:
    from kamerton.config.schema import Params, PromoteParams
    from kamerton.evaluation.gates import Gate
    from kamerton.evaluation.scorecard import Scorecard
    from kamerton.tracking.model_registry import ModelRegistry, RegisteredVersion

Verdict = Literal["promoted", "unchanged", "rejected"]


@dataclass(frozen=True, slots=True)
class PromoteReport:
    """The verdict; ``version`` is None for a voice that is not in the registry."""

    verdict: Verdict
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    model_name: str
    alias: str
    version: str | None
    previous_champion: str | None

    @property
    def partial(self) -> bool:
        """Never."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat numbers."""
        passed = sum(gate.passed for gate in self.gates)
        found = {"gates": float(len(self.gates)), "gates_passed": float(passed)}
        if self.version is not None:
            found["version"] = float(self.version)
        return {**found, "passed": float(self.verdict != "rejected")}

    def summary(self) -> list[tuple[str, str]]:
        """Lines for the terminal."""
        lines = [("verdict", self.verdict), *(("", reason) for reason in self.reasons)]
        if self.version is not None:
            lines.append((self.alias, f"{self.model_name} version {self.version}"))
        return lines


def promote(
    evaluation: Path,
    model: Path,
    promotion: Path,
    params: Params,
    *,
    require: bool = False,
    force: bool = False,
    on_progress: Progress = silent,
) -> PromoteReport:
    """Hold the evaluation against the gates and make the voice champion if it passes.

    A voice that is champion already, with the same evaluation, stays what it is. A promotion that
    was cut off at any point is completed by the next one.

    Args:
        evaluation: Folder of the evaluation.
        model: Folder of the voice that was evaluated.
        promotion: JSON file to write: verdict, reasons, gates, version.
        params: Sections promote and tracking.
        require: Fail, after writing ``promotion``, when a gate is not met.
        force: Replace ``promotion`` if it exists.
        on_progress: Told of the work done.

    Raises:
        InputMissingError: the evaluation or the model is not there.
        InputCorruptError: the evaluation is of another model.
        GateNotMetError: with ``require``, a gate was not met.
        RegistryError: MLflow did not do what was asked.
    """
    from kamerton.evaluation.scorecard import Scorecard, evaluation_hash, read_utterances
    from kamerton.tracking.model_registry import ModelRegistry

    require_new(promotion, force=force)
    require_apart(promotion, evaluation, model)
    card = Scorecard.read(evaluation)
    utterances = read_utterances(evaluation)
    model_sha256 = _checked_weights(model, card, evaluation)
    identity = (model_sha256, evaluation_hash(evaluation))
    registry = ModelRegistry.of(params.tracking, params.promote)
    on_progress(0, 1, "holding the evaluation against the gates")
    with registry.lock():
        champion = registry.champion()
        if champion is not None and champion.identity == identity:
            report = _of_champion(champion, card, params.promote, registry)
        else:
            gates, reasons = _judge(
                card, utterances, evaluation, champion, params.promote, registry
            )
            if all(gate.passed for gate in gates):
                tags = _lineage(card, identity, params)
                on_progress(0.5, 1, "registering")
                version = registry.register(model, evaluation, tags=tags, metrics=_figures(card))
                registry.crown(version, previous=champion)
            else:
                version = None
            report = _report(gates, reasons, version, champion, registry)
    write_json(promotion, _as_dict(report, identity))
    on_progress(1, 1, report.verdict)
    if require and report.verdict == "rejected":
        failed = "; ".join(gate.reason for gate in report.gates if not gate.passed)
        raise GateNotMetError(
            f"The voice was not promoted: {failed}.",
            hint=f"listen to the evaluation report; {promotion} lists every gate",
        )
    return report


def _checked_weights(model: Path, card: Scorecard, evaluation: Path) -> str:
    """Hash of the weights, which must be those that were evaluated."""
    weights = model / WEIGHTS_FILE
    if not weights.is_file():
        raise InputMissingError(weights, produced_by="train")
    found = sha256_file(weights)
    if found != card.model_sha256:
        raise InputCorruptError(
            evaluation,
            problem=f"is the evaluation of another model than {model}",
            hint="evaluate this one: `kamerton evaluate --force`",
        )
    return found


def _judge(
    card: Scorecard,
    utterances: Sequence[dict[str, Any]],
    evaluation: Path,
    current: RegisteredVersion | None,
    params: PromoteParams,
    registry: ModelRegistry,
) -> tuple[list[Gate], list[str]]:
    """All gates that apply, and the verdict's reasons in words."""
    from kamerton.evaluation.champion import comparable_champion
    from kamerton.evaluation.gates import absolute_gates, champion_gates

    gates = absolute_gates(card, params)
    if current is None:
        note = "there was no champion before; the gates on the candidate itself decided"
    else:
        champion, note = comparable_champion(card, evaluation, registry, current)
        if champion is not None:
            gates += champion_gates(card, utterances, champion, params)
    failed = [gate.reason for gate in gates if not gate.passed]
    return gates, [*failed, note] if failed else [f"all {len(gates)} gates passed", note]


def _of_champion(
    champion: RegisteredVersion, card: Scorecard, params: PromoteParams, registry: ModelRegistry
) -> PromoteReport:
    """The verdict on the champion itself: gates that were raised since may reject it."""
    from kamerton.evaluation.gates import absolute_gates
    from kamerton.tracking.model_registry import PREVIOUS_TAG

    gates = absolute_gates(card, params)
    failed = [gate.reason for gate in gates if not gate.passed]
    note = "this voice, with this evaluation, is the champion already"
    return PromoteReport(
        verdict="rejected" if failed else "unchanged",
        reasons=(*failed, f"{note} and stays it until another takes over") if failed else (note,),
        gates=tuple(gates),
        model_name=registry.name,
        alias=registry.alias,
        version=champion.version,
        previous_champion=champion.tags.get(PREVIOUS_TAG),
    )


def _report(
    gates: Sequence[Gate],
    reasons: Sequence[str],
    version: RegisteredVersion | None,
    champion: RegisteredVersion | None,
    registry: ModelRegistry,
) -> PromoteReport:
    return PromoteReport(
        verdict="rejected" if version is None else "promoted",
        reasons=tuple(reasons),
        gates=tuple(gates),
        model_name=registry.name,
        alias=registry.alias,
        version=version.version if version else None,
        previous_champion=champion.version if champion else None,
    )


def _lineage(card: Scorecard, identity: tuple[str, str], params: Params) -> dict[str, str]:
    """Where the version comes from, as tags of the registry; unknown facts are left out."""
    from kamerton.tracking.model_registry import EVALUATION_TAG, MODEL_TAG

    revision = git_revision()
    tags = {
        MODEL_TAG: identity[0],
        EVALUATION_TAG: identity[1],
        "dataset.sha256": card.dataset_sha256,
        "eval.set_sha256": card.eval_set_sha256,
        "eval.sentences": card.items,
        "metrics.def_id": card.definitions_sha256,
        "params.sha256": card.training.get("params_sha256"),
        "seed": card.training.get("seed"),
        "gate.status": "passed",
        "gate.policy_sha256": sha256_json(params.promote.model_dump(mode="json")),
        "git.commit": revision["commit"],
        "git.dirty": revision["dirty"],
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def _figures(card: Scorecard) -> dict[str, float]:
    found = {name: score.value for name, score in card.metrics.items() if score.value is not None}
    return {**found, "aligned_share": float(card.attention["aligned_share"])}


def _as_dict(report: PromoteReport, identity: tuple[str, str]) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "reasons": list(report.reasons),
        "gates": [gate.as_dict() for gate in report.gates],
        "model_name": report.model_name,
        "alias": report.alias,
        "version": report.version,
        "previous_champion": report.previous_champion,
        "model_sha256": identity[0],
        "evaluation_sha256": identity[1],
    }
