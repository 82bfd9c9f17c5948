"""TensorBoard event files, in tensorboard's own record format: no torch, no TensorFlow."""

import contextlib
import errno
import itertools
import os
import socket
import struct
import time
from collections import deque
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
from kamerton.tracking.trouble import Pause

_FLUSH_SECONDS: Final = 10  # for what is logged between evaluations; those flush themselves
_MOST_UNSURE: Final = 20_000  # events of a few hundred bytes
_RGB_CHANNELS: Final = 3
_PNG_SIZE: Final = struct.Struct(">II")  # width and height, 16 bytes into the file

_numbers = itertools.count()


class _EventFile:
    """One event file, written in whole records by the thread that calls.

    TensorBoard's own writer has a thread of its own, which dies of the first write that fails and
    prints a traceback; its record format is used, its thread is not.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # Readers take the files of a folder in the order of their names.
        name = (
            f"events.out.tfevents.{time.time_ns() // 1_000_000:014d}"
            f".{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        )
        self._path = folder / name
        self._file = self._path.open("xb", buffering=0)
        self._buffer = bytearray()
        self._records = RecordWriter(self)
        self._flushed = time.monotonic()
        self.add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.flush()

    def write(self, data: bytes) -> None:
        """Take the bytes of one record."""
        self._buffer += data

    def add(self, event: Any) -> None:
        """Write an event, at the latest some seconds from now."""
        self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put everything into the file; raises OSError where it cannot or is gone."""
        while self._buffer:
            del self._buffer[: self._file.write(self._buffer)]
        # Writing into a file that somebody removed succeeds.
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, "the event file is gone", str(self._path))
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close without writing."""
        with contextlib.suppress(OSError):
            self._file.close()


class TensorBoardTracker:
    """Writes scalars, pictures, sound and text into ``folder``.

    A resumed run writes a further file that tells readers to forget the steps which are made again.
    A folder that is read-only, gone or on a full disk raises OSError, once for every call that is
    lost; a new file is begun when that is over, and scalars written meanwhile are not lost.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        except ImportError as error:
            raise ToolMissingError("tensorboard", extra="train") from error
        self._events, self._summaries, self._tensors = event_pb2, summary_pb2, tensor_pb2
        self._folder, self._resume_step = folder, resume_step
        self._file: _EventFile | None = None
        self._pause = Pause(time.monotonic)
        # Scalars that may not be in a file yet: written again into the next one if this one fails.
        self._unsure: deque[Any] = deque(maxlen=_MOST_UNSURE)
        with contextlib.suppress(OSError):  # the first call that is lost tells of it
            self._open()

    def _open(self) -> _EventFile:
        if self._file is not None:
            return self._file
        if not self._pause.over:
            raise OSError(f"{self._folder} cannot be written")
        try:
            file = _EventFile(self._folder)
            if self._resume_step is not None:
                first = self._resume_step + 1  # readers drop this step and all after it
                start = self._events.SessionLog(status=self._events.SessionLog.START)
                file.add(self._events.Event(wall_time=time.time(), step=first, session_log=start))
            for event in self._unsure:
                file.add(event)
            file.flush()
        except OSError:
            self._pause.failed()
            raise
        self._pause.reset()
        self._resume_step = None
        self._file = file
        return file

    def _lose(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._pause.failed()

    def _write(self, step: int, *values: Any) -> None:
        summary = self._summaries.Summary(value=values)
        event = self._events.Event(wall_time=time.time(), step=step, summary=summary)
        scalars = all(value.HasField("simple_value") for value in values)
        if scalars:
            self._unsure.append(event)
        if self._file is None:
            file = self._open()
            if scalars:
                return  # opening wrote it
        else:
            file = self._file
        try:
            file.add(event)
        except OSError:
            self._lose()
            raise

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
        try:
            self._open().flush()
        except OSError:
            self._lose()
            raise
        self._unsure.clear()

    def close(self, state: EndState) -> None:
        """Flush and close the file."""
        del state
        self._pause.reset()  # the last chance
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
