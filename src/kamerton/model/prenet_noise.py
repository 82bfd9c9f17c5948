"""The noise of the prenet in free running, the same wherever a voice speaks.

Tacotron 2 keeps the prenet's dropout when it speaks (see ``tacotron2.decoder.Prenet``). Torch and
ONNX Runtime must draw equal masks for equal voices, so they are drawn here, by neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def prenet_masks(
    seed: int, steps: int, *, layers: int, channels: int, dropout: float
) -> NDArray[np.uint8]:
    """Masks (steps, layers, channels) of 0 and 1; more steps of one seed begin as fewer do."""
    random = np.random.default_rng(seed)
    drawn = random.random((steps, layers, channels), dtype=np.float32)
    return (drawn >= dropout).astype(np.uint8)
