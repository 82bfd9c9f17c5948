"""TensorBoard event files, written with tensorboard's own writer: no torch, no TensorFlow."""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from kamerton.core.errors import ToolMissingError
from kamerton.tracking.metrics_file import encode_wav
from kamerton.tracking.protocol import EndState
from kamerton.tracking.redaction import redact

_FLUSH_SECONDS: Final = 10  # for what is logged between evaluations; those flush themselves
_RGB_CHANNELS: Final = 3
_PNG_SIZE: Final = struct.Struct(">II")  # width and height, 16 bytes into the file


class TensorBoardTracker:
    """Writes scalars, pictures, sound and text into ``folder``.

    A resumed run writes a further file that tells readers to forget the steps which are made again.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ToolMissingError("tensorboard", extra="train") from error
        self._events, self._summaries, self._tensors = event_pb2, summary_pb2, tensor_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)
        if resume_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            first = resume_step + 1  # readers drop this step and all after it
            self._writer.add_event(
                event_pb2.Event(wall_time=time.time(), step=first, session_log=start)
            )

    def _write(self, step: int, *values: Any) -> None:
        summary = self._summaries.Summary(value=values)
        self._writer.add_event(
            self._events.Event(wall_time=time.time(), step=step, summary=summary)
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write the parameters as a text card."""
        text = yaml.safe_dump(redact(params), sort_keys=False, allow_unicode=True)
        # Markdown shows indented text as it is.
        self.log_text("params", "".join(f"    {line}\n" for line in text.splitlines()), step=0)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write one point of each series."""
        scalar = self._summaries.Summary.Value
        self._write(step, *(scalar(tag=name, simple_value=value) for name, value in values.items()))

    def log_event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Write an event as text, where it has a step to stand at."""
        if step is not None:
            words = ", ".join(f"{name}={value}" for name, value in redact(fields).items())
            self.log_text(f"event/{kind}", words or kind, step)

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        """Write a picture; its size is read from the PNG header."""
        width, height = _PNG_SIZE.unpack_from(png, 16)
        image = self._summaries.Summary.Image(
            width=width, height=height, colorspace=_RGB_CHANNELS, encoded_image_string=png
        )
        self._write(step, self._summaries.Summary.Value(tag=name, image=image))

    def log_audio(self, name: str, wave: NDArray[np.float32], rate_hz: int, step: int) -> None:
        """Write a mono wave as a player."""
        audio = self._summaries.Summary.Audio(
            sample_rate=rate_hz,
            num_channels=1,
            length_frames=len(wave),
            encoded_audio_string=encode_wav(wave, rate_hz),
            content_type="audio/wav",
        )
        self._write(step, self._summaries.Summary.Value(tag=name, audio=audio))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text card, read as Markdown."""
        metadata = self._summaries.SummaryMetadata(
            plugin_data=self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        )
        tensor = self._tensors.TensorProto(dtype="DT_STRING", string_val=[text.encode("utf-8")])
        self._write(step, self._summaries.Summary.Value(tag=name, metadata=metadata, tensor=tensor))

    def flush(self) -> None:
        """Put everything into the file."""
        self._writer.flush()

    def close(self, state: EndState) -> None:
        """Flush and close the file."""
        del state
        self._writer.close()
