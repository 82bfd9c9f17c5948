"""Weights & Biases, where its package is installed and a project is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import ToolMissingError
from kamerton.tracking.protocol import EndState
from kamerton.tracking.redaction import redact

_EXIT_CODE: Final = {"finished": 0, "stopped": 0, "failed": 1}


class WandbTracker:
    """Sends a run to W&B; its client keeps its own queue and its own process.

    The run's id is the run directory's name, so a resumed run goes on in the same W&B run. The key
    is read by the client itself, from the environment.
    """

    def __init__(self, run: Path, *, project: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ToolMissingError("wandb", extra="wandb") from error
        self._wandb = wandb
        self._run = wandb.init(
            project=project, id=run.name, name=run.name, dir=str(run), resume="allow"
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set the run's configuration."""
        self._run.config.update(redact(params), allow_val_change=True)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add one point of each series."""
        self._run.log(dict(values), step=step)

    def log_event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Put the newest event of each kind into the summary."""
        self._run.summary[f"event/{kind}"] = redact({"step": step, **fields})

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        """Add a picture."""
        import io

        from PIL import Image

        self._run.log({name: self._wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def log_audio(self, name: str, wave: NDArray[np.float32], rate_hz: int, step: int) -> None:
        """Add a player."""
        self._run.log({name: self._wandb.Audio(wave, sample_rate=rate_hz)}, step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Put a text into the summary."""
        self._run.summary[name] = {"step": step, "text": text}

    def flush(self) -> None:
        """Do nothing: the client sends by itself."""

    def close(self, state: EndState) -> None:
        """Finish the run."""
        self._run.finish(exit_code=_EXIT_CODE[state])
