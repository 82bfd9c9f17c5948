"""Which number format the large products of a training step are made in.

Measured on two cores with avx512_bf16, processor time of whole steps with 16 utterances: bfloat16
makes the network of the paper 1.6 times as fast, one of half its width 1.2 times, and that of the
demo, whose weights stay in the processor's cache, 1.06 times, which is not worth the digits lost.
``python -m benchmarks.train_step`` measures the first; no GPU was measured. Losses, softmax, cells,
normalisation and sums over frames stay in single precision in every format.
"""

from __future__ import annotations

import logging

import torch

from kamerton.config.schema import TrainParams
from kamerton.core.errors import ParamsError
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.products import cpu_has_bf16

_LOG = logging.getLogger("kamerton.train")
_WORTH_BF16 = 1_000_000
"""Weights in the attention LSTM's recurrent matrix from which bfloat16 pays on a CPU: between the
demo's 0.4 million and the 1.6 million of a network of half the paper's width (1.2 times)."""
_AMPERE = (8, 0)


def autocast_dtype(
    train: TrainParams, device: torch.device, architecture: Architecture
) -> torch.dtype | None:
    """The format for ``torch.autocast``, or None for single precision throughout.

    ``auto`` is bfloat16 on CPUs that have instructions for it where the network is large enough to
    gain; elsewhere single precision, which a GPU may round to TF32 (``sets_tf32``). NVIDIA's table
    for this network on an A100 has 26,484 mel frames a second with mixed precision and 31,499 with
    TF32: its steps are bound by the number of kernels, and casts add to that.

    Raises:
        ParamsError: ``train.precision`` is a format that the device does not have.
    """
    if train.precision == "auto":
        return torch.bfloat16 if _gains_from_bf16(device, architecture) else None
    _refuse_missing(train.precision, device)
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(train.precision)


def sets_tf32(train: TrainParams, device: torch.device) -> bool:
    """Whether products left in single precision may be rounded to TF32 by a GPU that has it."""
    return train.precision in ("auto", "tf32") and _is_ampere(device)


def needs_scaler(train: TrainParams, device: torch.device) -> bool:
    """Whether gradients need a loss scaler: only float16 has a range too small for them."""
    return train.precision == "fp16" and device.type == "cuda"


def _gains_from_bf16(device: torch.device, architecture: Architecture) -> bool:
    if device.type != "cpu":
        return False
    size = architecture.attention_rnn_dim
    weights = 4 * size * (size + architecture.encoder_embedding_dim)
    return weights >= _WORTH_BF16 and cpu_has_bf16()


def _is_ampere(device: torch.device) -> bool:
    """Whether it is an NVIDIA GPU that has bfloat16 and TF32: compute capability 8.0 or more."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def _refuse_missing(precision: str, device: torch.device) -> None:
    hint = "set train.precision=auto"
    if precision in ("fp16", "tf32") and device.type != "cuda":
        raise ParamsError(
            f"train.precision {precision} needs a GPU, and training runs on {device.type}",
            hint=hint,
        )
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        _LOG.warning("this processor has no instructions for bfloat16; single precision is faster")
    if precision in ("bf16", "tf32") and device.type == "cuda" and not _is_ampere(device):
        raise ParamsError(f"train.precision {precision} is not in this GPU", hint=hint)
