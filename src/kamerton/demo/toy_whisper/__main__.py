"""Train the toy recogniser and write it in both forms, with checksums and a model card."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from kamerton.core.files import write_text
from kamerton.demo.assets import CHECKSUMS_FILE, checksums
from kamerton.demo.toy_whisper.card import model_card
from kamerton.demo.toy_whisper.ct2 import convert
from kamerton.demo.toy_whisper.evaluate import Backend, evaluate, materials
from kamerton.demo.toy_whisper.export import save_checkpoint
from kamerton.demo.toy_whisper.model import ToyWhisper
from kamerton.demo.toy_whisper.train import TrainingPlan, TrainingState, train

if TYPE_CHECKING:
    from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    plan = TrainingPlan()
    parser = argparse.ArgumentParser(
        prog="python -m kamerton.demo.toy_whisper", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--work", type=Path, help="training state (OUT/../toy-whisper.work.pt)")
    parser.add_argument("--export-only", action="store_true", help="export --work, do not train")
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="%(default)s")
    parser.add_argument("--sentences", type=int, default=plan.sentences, help="%(default)s")
    parser.add_argument("--threads", type=int, default=plan.threads, help="%(default)s")
    parser.add_argument("--seed", type=int, default=plan.seed, help="%(default)s")
    parser.add_argument("--initial", type=Path, help="checkpoint or training state to start from")
    parser.add_argument("--examine", type=int, default=200, help="held-out sentences (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; progress goes to stderr."""
    options = _parser().parse_args(arguments)
    plan = TrainingPlan(
        options.minutes, options.sentences, options.threads, options.seed, options.initial
    )
    work = options.work or options.out.with_name(f"{options.out.name}.work.pt")
    work.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def log(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {line}\n")
        sys.stderr.flush()

    if not options.export_only:
        train(plan, work, log)
    state = TrainingState.load(work)
    model = ToyWhisper()
    model.load_state_dict(state.weights)
    save_checkpoint(model.eval(), options.out / "toy.pt")
    convert(options.out / "toy.pt", options.out / "ct2")
    log("written; examining it")
    torch.set_num_threads(plan.threads)
    given = materials(options.examine)
    outcomes = [
        outcome
        for backend in get_args(Backend)
        for outcome in evaluate(options.out, backend, given)
    ]
    for outcome in outcomes:
        log(f"{outcome.backend}, {outcome.material}: WER {outcome.wer:.1%}")
    card = model_card(
        outcomes,
        minutes=state.minutes,
        threads=plan.threads,
        seed=plan.seed,
        steps=state.steps,
        initial=state.initial,
    )
    write_text(options.out / "README.md", card)
    write_text(options.out / CHECKSUMS_FILE, checksums(options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
