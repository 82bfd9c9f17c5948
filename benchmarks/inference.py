"""Free-running decoding on one core: eager PyTorch against the exported graphs.

    python -m benchmarks.inference [PROJECT] [--steps 60] [--repeats 5]

The baseline is this project's own free-running loop in PyTorch, one utterance of 80 symbols, one
thread, a network of the paper's size (28 M weights, r = 1, 22.05 kHz, hop 256) with random weights
and a gate that never opens. Beside it, in the same run and interleaved: the exported decoder step
in single precision and with matrices of 8-bit integers, driven by the loop that serves. Times are
processor seconds of the decoder alone; the real-time factor is such seconds per second of speech.

With PROJECT (a folder where the demo or a training ran) its voice is exported too and reads its own
validation and test sentences: how far mel frames and attention of the graphs are from PyTorch's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kamerton.config.schema import AudioParams
from kamerton.data.manifest import Dataset
from kamerton.metrics.alignment import FAILED, attention_scores, summarise_attention
from kamerton.model.onnx.export import export_onnx, write_graphs
from kamerton.model.onnx.runtime import OnnxModel
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.model import Tacotron2, valid_positions
from kamerton.model.voice import Reading, Voice

SYMBOLS = 80
NEVER = 2.0  # no probability opens the gate
LEAST_RATIO = 4.0
MOST_MEL_DIFFERENCE = 0.1  # mean, in natural-log units: 0.9 dB
MOST_LOST = 2  # sentences


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of processor time per decoder step: the middle of the repeats."""

    name: str
    milliseconds: float
    megabytes: float


def measure(folder: Path, steps: int, repeats: int) -> list[Timing]:
    """Time the three forms of a full-size decoder, interleaved."""
    torch.manual_seed(0)
    model = Tacotron2(Architecture(symbols=60)).eval()
    write_graphs(model, folder)
    symbols = torch.randint(2, 60, (1, SYMBOLS))
    lengths = torch.tensor([SYMBOLS])
    valid = valid_positions(lengths, SYMBOLS)
    with torch.no_grad():
        memory = model.encoder(symbols, lengths, valid)
    prenet = model.decoder.prenet
    masks = torch.ones(steps, 1, len(prenet.layers), prenet.channels, dtype=torch.uint8)
    graphs = {name: OnnxModel(folder, precision=name) for name in ("fp32", "int8")}
    fixed = graphs["fp32"].encode({"symbols": symbols.numpy(), "symbol_lengths": lengths.numpy()})
    limit = torch.tensor([steps])

    def eager() -> None:
        model.decoder.generate(memory, valid, masks, limit, NEVER)

    def exported(name: str) -> Callable[[], None]:
        floats = masks.numpy().astype(np.float32)
        return lambda: void(graphs[name].decode(fixed, floats, limit.numpy(), NEVER))

    runs = {
        "eager PyTorch": (eager, sum(p.numel() * 4 for p in model.decoder.parameters())),
        "exported, fp32": (exported("fp32"), (folder / "step.onnx").stat().st_size),
        "exported, int8": (exported("int8"), (folder / "step.int8.onnx").stat().st_size),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, (run, _) in runs.items():
            start = time.process_time()
            run()
            if repeat:  # the first warms up
                taken[name].append((time.process_time() - start) / steps * 1e3)
        print(f"{repeat} of {repeats}", file=sys.stderr)
    return [
        Timing(name, statistics.median(taken[name]), size / 1e6) for name, (_, size) in runs.items()
    ]


def void(_: object) -> None:
    """A call for its time alone."""


def compare_voice(project: Path, folder: Path) -> dict[str, bool]:
    """Export a project's voice and print how its graphs read the sentences it never saw."""
    exported = folder / "voice"
    export_onnx(project / "models" / "voice", exported)
    dataset = Dataset.open(project / "data" / "dataset")
    texts = [row.text for split in ("val", "test") for row in dataset.rows(split)]
    readings = {
        "eager PyTorch": Voice.load(project / "models" / "voice").read(texts),
        "exported, fp32": Voice.load(exported, engine="onnx").read(texts),
        "exported, int8": Voice.load(exported, engine="onnx-int8").read(texts),
    }
    truth = readings["eager PyTorch"]
    print(f"\n{len(texts)} unseen sentences   mel difference  aligned  diagonality  focus  stopped")
    figures: dict[str, tuple[float, int, int]] = {}
    for name, spoken in readings.items():
        difference = float(
            np.mean([mel_difference(a, b) for a, b in zip(truth, spoken, strict=True)])
        )
        scores = [attention_scores(item.attention) if item.stopped else FAILED for item in spoken]
        summary = summarise_attention(scores)
        stopped = sum(item.stopped for item in spoken)
        print(
            f"{name:<20} {difference:>16.4f} {summary.aligned_share:>8.1%} "
            f"{summary.diagonality_median:>12.3f} {summary.focus_median:>6.3f} {stopped:>8}"
        )
        figures[name] = difference, sum(score.aligned for score in scores), stopped
    exact, rough = figures["eager PyTorch"], figures["exported, int8"]
    return {
        f"mel frames of the 8-bit graph within {MOST_MEL_DIFFERENCE} on average": (
            rough[0] <= MOST_MEL_DIFFERENCE
        ),
        f"at most {MOST_LOST} sentences fewer aligned and ended": (
            exact[1] - rough[1] <= MOST_LOST and exact[2] - rough[2] <= MOST_LOST
        ),
    }


def mel_difference(ours: Reading, theirs: Reading) -> float:
    """Mean absolute difference of log-mel values, over the frames that both have."""
    frames = min(ours.mel.shape[1], theirs.mel.shape[1])
    return float(np.abs(ours.mel[:, :frames] - theirs.mel[:, :frames]).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    audio = AudioParams()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timings = measure(folder, asked.steps, asked.repeats)
        base = timings[0].milliseconds
        step_ms = 1e3 * audio.hop_samples / audio.sample_rate_hz
        print(f"{'decoder, one core':<20} ms per step  real-time factor   ratio  MB of weights")
        for item in timings:
            print(
                f"{item.name:<20} {item.milliseconds:>11.2f} {item.milliseconds / step_ms:>17.3f} "
                f"{base / item.milliseconds:>7.1f} {item.megabytes:>14.1f}"
            )
        ratio = base / timings[2].milliseconds
        checks = {f"int8 at least {LEAST_RATIO:g} times as fast as eager": ratio >= LEAST_RATIO}
        if asked.project is not None:
            checks |= compare_voice(asked.project.resolve(), folder)
        else:
            print("what 8 bits do to a voice is not judged: no PROJECT is given")
    for name, held in checks.items():
        print(f"{'PASS' if held else 'MISS'}  {name}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
