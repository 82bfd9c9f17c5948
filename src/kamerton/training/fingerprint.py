"""What decides the outcome of a training run, as one hash."""

from __future__ import annotations

import torch

from kamerton.config.schema import Params
from kamerton.core.code import code_digest
from kamerton.core.files import sha256_json


def run_fingerprint(
    params: Params,
    *,
    total_steps: int,
    content_sha256: str,
    threads: int,
    device: str,
    trial: bool,
) -> str:
    """Two runs of equal fingerprint train the same model, bit for bit on a CPU.

    Args:
        params: Resolved parameters, with what the tuner found laid over them.
        total_steps: The budget; it shapes the learning rate.
        content_sha256: Of the dataset.
        threads: How sums are split among processor threads decides their last bits.
        device: Where the model is trained.
        trial: Trials leave out pictures and sound, so they are runs of their own.
    """
    return sha256_json(
        {
            "train": params.train.model_dump(mode="json", exclude={"threads", "device"}),
            "audio": params.audio.model_dump(mode="json"),
            "text": params.text.model_dump(mode="json"),
            "total_steps": total_steps,
            "content_sha256": content_sha256,
            "code": code_digest(),
            "threads": threads,
            "device": device,
            "torch": torch.__version__,
            "trial": trial,
        }
    )
