"""A finished run to what the next stages take: the exported voice and the page on its training."""

from __future__ import annotations

from pathlib import Path

from kamerton.config.phase_ends import boundaries
from kamerton.core.files import output_directory, sha256_json, write_text
from kamerton.metrics.alignment import summarise_attention
from kamerton.model.description import VoiceDescription
from kamerton.model.export import export_voice
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import RunDirectory, names
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.evaluation import Evaluation, evaluate
from kamerton.training.report import RunStory, training_page
from kamerton.training.session import Session
from kamerton.training.state import TrainState

# A finished run does not go back to make its best checkpoint again.
_BEGIN_ANEW = "begin anew: `kamerton train --force`"


def publish(
    session: Session, run: RunDirectory, state: TrainState, *, model: Path, report: Path,
    force: bool,
) -> Evaluation:  # fmt: skip
    """Export the best checkpoint to ``model`` and write ``report``; returns its evaluation."""
    network = session.new_model()
    best = session.checkpoints(run).best
    network.load_state_dict(read_checkpoint(best, hint=_BEGIN_ANEW)["model"])
    final = evaluate(network, session.data, session.params.train)
    with output_directory(model, force=force) as folder:
        export_voice(folder, network.state_dict(), _description(session, network, state, final))
    story = RunStory(
        title=f"Training of {session.dataset.card['name']}",
        facts=_facts(session, network, state, final),
        state=state,
        total_steps=session.total_steps,
        phases=len(boundaries(session.params.train.phases)),
        texts=[row.text for row in session.data.spoken],
        final=final,
    )
    write_text(report, training_page(run, story, session.params.audio))
    return final


def _description(
    session: Session, network: Tacotron2, state: TrainState, final: Evaluation
) -> VoiceDescription:
    params, card = session.params, session.dataset.card
    summary = summarise_attention(final.scores)
    return VoiceDescription(
        architecture=network.architecture,
        audio=params.audio,
        text=params.text,
        symbols=session.data.symbols.symbols,
        language=str(card["language"]),
        speaker=str(card["speaker"]),
        speakers=session.data.speakers if network.architecture.chooses_speaker else (),
        gate_threshold=params.train.gate_threshold,
        frames_per_symbol=session.data.frames_per_symbol(),
        training={
            "steps": state.step,
            "best_step": state.best_step,
            "dataset_sha256": card["content_sha256"],
            "params_sha256": sha256_json(
                params.model_dump(mode="json", include={"train", "audio", "text"})
            ),
            "seed": params.train.seed,
            "val_mel_loss": final.values[names.VAL_MEL_LOSS],
            "attention": {
                "sentences": summary.utterances,
                "aligned_share": summary.aligned_share,
                "diagonality_median": summary.diagonality_median,
                "coverage_median": summary.coverage_median,
                "focus_median": summary.focus_median,
            },
        },
    )


def _facts(
    session: Session, network: Tacotron2, state: TrainState, final: Evaluation
) -> dict[str, str]:
    weights = sum(parameter.numel() for parameter in network.parameters())
    values = final.values
    facts = {
        "weights": f"{weights / 1e6:.1f} M",
        "training clips": str(len(session.dataset.rows("train"))),
        "steps": f"{state.step} of {session.total_steps}",
        "best step": str(state.best_step),
        "validation mel loss": f"{values[names.VAL_MEL_LOSS]:.3f}",
        "diagonality, median": f"{values[names.ATTENTION_SCORE]:.2f}",
        "coverage, median": f"{values[names.ATTENTION_COVERAGE]:.2f}",
        "focus, median": f"{values[names.ATTENTION_FOCUS]:.2f}",
        "stop frame F1": f"{values[names.GATE_F1]:.2f}",
        "frames off the end": f"{values[names.GATE_FRAMES_OFF]:.1f}",
    }
    if state.recovery.gave_up:
        facts["ended early"] = f"given up after {state.recovery.gave_up}: no recovery was left"
    if state.stopped:
        facts["ended early"] = state.stopped.replace("_", " ")
    if state.skipped:
        facts["skipped steps"] = str(state.skipped)
    if state.recovery.count:
        facts["interventions"] = str(state.recovery.count)
    return facts
