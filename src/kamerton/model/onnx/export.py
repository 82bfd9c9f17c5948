"""Write a voice as ONNX graphs and prove that they say the same.

The graphs come from tracing, with ONNX operator set 17. The decoder step is also written with its
matrices as 8-bit integers (ONNX Runtime's dynamic quantisation, a scale per output channel): at
the paper's size they shrink from 73 to 18 MB and then fit a processor's cache, which is what
bounds a step of one utterance.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kamerton.core.errors import PipelineError, ToolMissingError
from kamerton.core.files import output_directory, require_apart, write_json
from kamerton.metrics.alignment import attention_scores
from kamerton.model import DESCRIPTION_FILE
from kamerton.model.description import VoiceDescription
from kamerton.model.export import load_model
from kamerton.model.onnx import ENCODER, FACTS, FORMAT_VERSION, INT8_STEP, POSTNET, STEP
from kamerton.model.onnx.graphs import EncoderGraph, PostnetGraph, StepGraph, named
from kamerton.model.onnx.runtime import OnnxModel, Precision
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.text.symbols import EOS, FIRST_SYMBOL

_LOG = logging.getLogger("kamerton.export")

OPERATOR_SET = 17
AGREEMENT = "agreement.json"
MOST_INT8_DIFFERENCE = 0.1  # typically, natural logarithm: 0.9 dB
LARGEST_DIFFERENCE = 1e-3  # of log-mel values in single precision: nobody hears a hundredth of a dB
CHECKED_FRAMES = 300
LEAST_QUANTISED = 1024  # weights; smaller matrices are no work


@dataclass(frozen=True, slots=True)
class Compared:
    """How one form of the graphs reads the check texts, against PyTorch.

    Attributes:
        precision: Of the decoder step.
        mel_difference: Largest difference of a log-mel value over the steps both made.
        mel_difference_typical: Median over the texts of their mean absolute difference. Free
            running, one text that is read a little sooner differs much and sounds as well.
        attention_difference: Largest difference of an attention weight.
        lengths_differ: Texts that end at another frame.
        diagonality: Median diagonality of the attention; that of PyTorch is ``torch_diagonality``.
        torch_diagonality: See ``diagonality``.
    """

    precision: Precision
    mel_difference: float
    mel_difference_typical: float
    attention_difference: float
    lengths_differ: int
    diagonality: float
    torch_diagonality: float


def export_onnx(voice: Path, output: Path, *, force: bool = False) -> list[Compared]:
    """Write the voice in folder ``voice`` to folder ``output``; returns how well it agrees.

    Raises:
        ToolMissingError: onnx or ONNX Runtime is not installed.
        InputMissingError, InputCorruptError: there is no whole voice.
        PipelineError: the single-precision graphs do not say what PyTorch says.
    """
    try:
        import onnx  # noqa: F401 - the quantiser needs it
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ToolMissingError(str(error.name), extra="onnx") from error
    model, description = load_model(voice)
    require_apart(output, voice)
    with output_directory(output, force=force) as folder:
        write_graphs(model, folder)
        write_json(folder / DESCRIPTION_FILE, description.to_dict())
        texts = check_texts(description)
        compared = [compare(model, folder, texts, precision) for precision in ("fp32", "int8")]
        agreement = {"texts": len(texts), "compared": [asdict(item) for item in compared]}
        write_json(folder / AGREEMENT, agreement)
        exact, rough = compared
        if not exact.mel_difference <= LARGEST_DIFFERENCE or exact.lengths_differ:
            raise PipelineError(
                f"the ONNX graphs differ from PyTorch by {exact.mel_difference:.2g} in log-mel "
                f"values, and {exact.lengths_differ} of {len(texts)} texts in length.",
                hint="report this voice's model.json; other versions of onnxruntime may agree",
            )
        if not rough.mel_difference_typical <= MOST_INT8_DIFFERENCE:
            (folder / INT8_STEP).unlink()
            _LOG.warning(
                "the 8-bit step is left out: its log-mel values typically differ by %.2g",
                rough.mel_difference_typical,
            )
    return compared


def write_graphs(model: Tacotron2, folder: Path) -> None:
    """Write the graphs of a model in evaluation mode, and what whoever runs them needs to know."""
    small, large = _Example.of(model, 3, 11, 6), _Example.of(model, 4, 13, 8)
    parts: list[tuple[str, nn.Module, str, str]] = [
        (ENCODER, small.encoder, "texts", "prepared"),
        (STEP, small.step, "given", "made"),
        (POSTNET, small.postnet, "frames", "sounding"),
    ]
    for name, graph, inputs, outputs in parts:
        axes = _moving(getattr(small, inputs), getattr(large, inputs))
        axes |= _moving(getattr(small, outputs), getattr(large, outputs))
        _trace(graph, folder / name, getattr(small, inputs), getattr(small, outputs), axes)
    _quantise(folder / STEP, folder / INT8_STEP)
    a = model.architecture
    prenet = model.decoder.prenet
    facts = {
        "format_version": FORMAT_VERSION, "reduction_factor": a.reduction_factor, "mels": a.mels,
        "prenet_layers": len(prenet.layers), "prenet_channels": prenet.channels,
        "prenet_dropout": prenet.dropout,
        # Outputs by position: the exporter gives those that are plain weights other names.
        "encoded": list(small.prepared),
        "states": [name.removeprefix("next_") for name in list(small.made)[3:]],
    }  # fmt: skip
    write_json(folder / FACTS, facts)


@dataclass(frozen=True, slots=True)
class _Example:
    """What the graphs are given and make, for one size of batch and text."""

    encoder: EncoderGraph
    step: StepGraph
    postnet: PostnetGraph
    texts: dict[str, Tensor]
    prepared: dict[str, Tensor]
    given: dict[str, Tensor]
    made: dict[str, Tensor]
    frames: dict[str, Tensor]
    sounding: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Tacotron2, batch: int, symbols: int, frames: int) -> _Example:
        a, prenet = model.architecture, model.decoder.prenet
        texts = {
            "symbols": torch.ones(batch, symbols, dtype=torch.long),
            "symbol_lengths": torch.arange(symbols, symbols - batch, -1),
        }
        if a.chooses_speaker:
            texts["speakers"] = torch.zeros(batch, dtype=torch.long)
        encoder, postnet = EncoderGraph(model), PostnetGraph(model)
        keys, state = encoder.prepared(*texts.values())
        step = StepGraph(model, keys, state)
        states = named("state", state)
        prepared = named("key", keys) | states
        given = {
            "given": torch.zeros(batch, a.mels),
            "masks": torch.ones(batch, len(prenet.layers), prenet.channels),
            **prepared,
        }
        names = ["frames", "gate", "weights", *(f"next_{name}" for name in states)]
        made = dict(zip(names, step(*given.values()), strict=True))
        lengths = torch.arange(frames, frames - batch, -1)
        decoded = {"frames": torch.zeros(batch, frames, a.mels), "lengths": lengths}
        sounding = {"mel": postnet(*decoded.values())}
        return cls(encoder, step, postnet, texts, prepared, given, made, decoded, sounding)


def _moving(small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """The axes whose size is that of the batch or the text: those in which two examples differ."""
    return {
        name: {
            axis: f"{name}_{axis}"
            for axis, sizes in enumerate(zip(small[name].shape, large[name].shape, strict=True))
            if sizes[0] != sizes[1]
        }
        for name in small
    }


def _trace(
    graph: nn.Module, path: Path, given: Mapping[str, Tensor], made: Mapping[str, Tensor],
    axes: Mapping[str, Mapping[int, str]],
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        # It warns that a newer exporter exists, and that Python's numbers become constants; the
        # comparison with PyTorch on other sizes is the proof that none matters.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), tuple(given.values()), str(path), dynamo=False,
            opset_version=OPERATOR_SET, input_names=list(given), output_names=list(made),
            dynamic_axes=axes,
        )  # fmt: skip


def _quantise(path: Path, output: Path) -> None:
    """Write the graph with its large matrices as 8-bit integers."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path).graph
    large = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) >= LEAST_QUANTISED}
    chosen = [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm", "LSTM") and large & set(node.input)
    ]
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises a preparation that a traced graph does not need
    try:
        quantize_dynamic(
            path,
            output,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=chosen,
            # Seven of the eight bits: processors without VNNI add up pairs in sixteen.
            reduce_range=True,
        )
    finally:
        logger.setLevel(level)


def check_texts(description: VoiceDescription, count: int = 8) -> list[list[int]]:
    """Symbol ids of made-up texts of growing length, the same for equal voices."""
    random = np.random.default_rng(0)
    table = len(description.symbols) + FIRST_SYMBOL
    return [
        [*random.integers(FIRST_SYMBOL, table, size=6 + 5 * index).tolist(), EOS]
        for index in range(count)
    ]


@torch.no_grad()
def compare(
    model: Tacotron2, folder: Path, texts: Sequence[Sequence[int]], precision: Precision
) -> Compared:
    """Read texts by PyTorch and by the graphs in ``folder``, and measure the difference."""
    lengths = torch.tensor([len(text) for text in texts])
    symbols = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in enumerate(texts):
        symbols[row, : len(text)] = torch.tensor(text)
    limits = torch.full_like(lengths, CHECKED_FRAMES)
    seeds = list(range(len(texts)))
    speakers = torch.zeros_like(lengths) if model.architecture.chooses_speaker else None
    ours = model.speak(symbols, lengths, max_frames=limits, seeds=seeds, speakers=speakers)
    theirs = OnnxModel(folder, precision=precision).speak(
        symbols.numpy(), lengths.numpy(), max_frames=limits.numpy(), seeds=seeds,
        speakers=None if speakers is None else speakers.numpy(),
    )  # fmt: skip
    r = model.architecture.reduction_factor
    mel, attention, scores = [], [], []
    for row, text in enumerate(texts):
        frames = int(min(ours.lengths[row], theirs.lengths[row]))
        steps = -(-frames // r)
        here, there = ours.frames[row, :frames].numpy(), theirs.frames[row, :frames]
        mel.append(np.abs(here - there).ravel())
        weights = [
            weights[row, :steps, : len(text)]
            for weights in (ours.attention.numpy(), theirs.attention)
        ]
        attention.append(float(np.abs(weights[0] - weights[1]).max()))
        scores.append([attention_scores(each).diagonality for each in weights])
    typical = float(np.median([each.mean() for each in mel]))
    largest = max(float(each.max()) for each in mel)
    torch_score, onnx_score = np.median(scores, axis=0).tolist()
    return Compared(
        precision, largest, typical, max(attention),
        int((ours.lengths.numpy() != theirs.lengths).sum()), onnx_score, torch_score,
    )  # fmt: skip
