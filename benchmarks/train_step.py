"""A whole training step against the per-step loop that everybody uses, side by side in one run.

    python -m benchmarks.train_step [--quick] [--json FILE]

The network of the paper (512 encoder, 1024 LSTMs, r = 1), 80 tokens, 400 frames, two threads; a
step is forward, loss, backward, clipping and fused Adam. The baseline is
``tests/reference_tacotron2.py`` in single precision: prenet and memory projection before the loop
as NVIDIA's code has them, everything else as PyTorch does it, the same encoder and postnet. Steps
of all variants take turns, after one unmeasured step each. Part of the gain is not the algorithm
but oneDNN in the place of MKL, which is slow on AMD's processors: the line "oneDNN off" shows the
algorithm alone.

Memory is how far a step's peak rises above what the process held after its first step (a tiny
one, which creates Adam's state), each variant in a process of its own. Ends with 1 if a target is
missed. Networks with noise in the state of their LSTMs (zoneout) keep its factors besides; that is
not measured. ``--quick`` takes 60 frames and three rounds, and judges exactness alone.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.train_step_variants import (
    NARROW,
    OURS,
    REFERENCE,
    Batch,
    Size,
    Trial,
    Variant,
    after_backward,
    difference,
    memory_in_child,
    parts,
    product_floor,
)
from kamerton.model.tacotron2 import products

TARGETS = {16: {OURS: 1.8, NARROW: 2.7}, 8: {OURS: 2.4, NARROW: 3.8}}
PLAIN = Variant("ours, fp32, oneDNN off", onednn=False)
MAX_MEMORY, MAX_OUTPUT, MAX_GRADIENT = 0.6, 1e-4, 1e-5


@dataclass
class Report:
    """What was printed, for ``--json``, and how many targets were missed."""

    judged: bool
    missed: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, value: str, held: bool, *, always: bool = False) -> None:
        """Print a line that says whether a target is met."""
        if not (self.judged or always):
            print(f"       {what}: {value}")
            return
        print(f"{'PASS' if held else 'MISS'}   {what}: {value}")
        self.missed += not held


def narrate(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def variants(device: str) -> list[Variant]:
    """Those that the device can run, the baseline first."""
    found = [REFERENCE, OURS]
    if device == "cpu":
        found.append(PLAIN)
    if products.cpu_has_bf16() if device == "cpu" else torch.cuda.is_bf16_supported():
        found.append(NARROW)
    return found


def time_steps(size: Size, rounds: int, device: str) -> dict[Variant, list[float]]:
    """Seconds of each round's step, by variant; all variants in every round."""
    trials = {variant: Trial(variant, device) for variant in variants(device)}
    times: dict[Variant, list[float]] = {variant: [] for variant in trials}
    batch = Batch.of(size, trials[REFERENCE].model, device)
    for number in range(rounds + 1):
        for variant, trial in trials.items():
            with mock.patch.object(products, "_AVAILABLE", products._AVAILABLE and variant.onednn):
                taken = trial.timed_step(batch)
            narrate(f"batch {size.batch}, round {number}: {variant.name} {taken:.2f} s")
            if number:
                times[variant].append(taken)
    return times


def show_steps(report: Report, size: Size, rounds: int, device: str) -> None:
    times = time_steps(size, rounds, device)
    medians = {variant: statistics.median(taken) for variant, taken in times.items()}
    frames = size.batch * size.frames
    print(
        f"\nwhole step on {device}, batch {size.batch}, {size.symbols} tokens, {size.frames} frames"
    )
    print(f"{'':<28} {'median':>8} {'fastest':>8} {'slowest':>8} {'frames/s':>9} {'ratio':>6}")
    for variant, taken in times.items():
        middle = medians[variant]
        print(
            f"{variant.name:<28} {middle:>6.2f} s {min(taken):>6.2f} s {max(taken):>6.2f} s "
            f"{frames / middle:>9.0f} {medians[REFERENCE] / middle:>6.2f}"
        )
    report.values[f"seconds, {device}, batch {size.batch}"] = {
        variant.name: taken for variant, taken in times.items()
    }
    for variant, least in TARGETS.get(size.batch, {}).items() if device == "cpu" else ():
        if variant in medians:
            ratio = medians[REFERENCE] / medians[variant]
            what = f"{variant.name}, batch {size.batch}, times as fast (at least {least})"
            report.check(what, f"{ratio:.2f}", ratio >= least)


def show_parts(report: Report, size: Size, repeats: int) -> None:
    for variant in (v for v in variants("cpu") if v in (OURS, NARROW)):
        narrate(f"parts of {variant.name}")
        rows = parts(variant, size, repeats)
        rest = after_backward(variant, size, repeats)
        floor = product_floor(variant, size, repeats)
        both = sum(sum(rows[name]) for name in ("attention loop", "decoder LSTM"))
        print(f"\n{variant.name}, batch {size.batch}: where the time goes, seconds")
        print(f"{'':<28} {'forward':>8} {'backward':>8}")
        for name, (forward, backward) in rows.items():
            print(f"{name:<28} {forward:>8.3f} {backward:>8.3f}")
        for name, taken in rest.items():
            print(f"{name:<28} {taken:>8.3f}")
        print(f"{'sum':<28} {sum(map(sum, rows.values())) + sum(rest.values()):>8.3f}")
        print(f"{'both LSTMs with attention':<28} {both:>8.3f}")
        print(f"{'  their products alone':<28} {floor:>8.3f}  ({floor / both:.0%})")
        report.values[f"parts, {variant.name}"] = {"parts": rows, **rest, "floor": floor}


def show_memory(report: Report, size: Size, threads: int) -> None:
    print(f"\npeak memory of a step, batch {size.batch}, above the resident size after the first")
    used = {}
    for variant in (v for v in variants("cpu") if v.onednn):
        narrate(f"memory of {variant.name}")
        used[variant] = memory_in_child(variant, size, threads)
        share = used[variant] / used[REFERENCE]
        print(f"{variant.name:<28} {used[variant]:>6.0f} MB {share:>6.2f}")
    report.values["memory, MB"] = {variant.name: value for variant, value in used.items()}
    share = used[OURS] / used[REFERENCE]
    report.check(f"share of memory (at most {MAX_MEMORY})", f"{share:.2f}", share <= MAX_MEMORY)


def show_difference(report: Report, size: Size) -> None:
    narrate("difference of outputs and gradients")
    found = difference(size)
    report.values["difference"] = asdict(found)
    print()
    what = f"largest difference of outputs (at most {MAX_OUTPUT:g})"
    report.check(what, f"{found.output:.1e}", found.output <= MAX_OUTPUT, always=True)
    what = f"largest relative difference of gradients (at most {MAX_GRADIENT:g})"
    value = f"{found.gradient:.1e}, of {found.parameter}"
    report.check(what, value, found.gradient <= MAX_GRADIENT, always=True)


def main() -> int:
    """Print everything; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.train_step", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 frames; judges exactness alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frames, rounds = (60, 3) if options.quick else (400, 5)
    report = Report(judged=not options.quick)
    show_difference(report, Size(16, frames=frames))
    for batch in (16, 8):
        show_steps(report, Size(batch, frames=frames), rounds, "cpu")
    show_parts(report, Size(16, frames=frames), 3)
    show_memory(report, Size(16, frames=frames), options.threads)
    if torch.cuda.is_available():
        for batch in (16, 64):
            show_steps(report, Size(batch, frames=frames), rounds, "cuda")
    if options.json:
        options.json.write_text(json.dumps(report.values, indent=1) + "\n", "utf-8")
    print(f"\n{report.missed} missed" if report.missed else "\nall held")
    return 1 if report.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
