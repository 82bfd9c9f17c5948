"""What decides the outcome of a training run: as a record, and as one hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from kamerton.config.schema import Params
from kamerton.core.code import code_digest
from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json, sha256_json, write_json

ORIGIN_FILE = "origin.json"  # of the run directory

# Where a run reads its data and what it runs on do not decide its numbers, or not knowingly.
_NOT_HASHED = ("dataset", "cpu", "warm_start")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run is made from, beside its parameters; kept as ``origin.json``.

    Attributes:
        dataset: Path of the dataset.
        content_sha256: Of the dataset.
        total_steps: The budget; it shapes the learning rate.
        code: Digest of our sources.
        torch: Version of torch.
        threads: How sums are split among processor threads decides their last bits.
        device: Where the model is trained.
        cpu: Instructions that torch uses; others may round otherwise.
        processes: How many train together; gradients are summed in another order.
        trial: Trials leave out pictures and sound, so they are runs of their own.
        warm_start: File that the first weights were taken from; None where the seed made them.
        warm_start_sha256: Its hash.
    """

    dataset: str
    content_sha256: str
    total_steps: int
    code: str
    torch: str
    threads: int
    device: str
    cpu: str
    processes: int
    trial: bool
    warm_start: str | None = None
    warm_start_sha256: str | None = None

    @classmethod
    def here(
        cls, *, dataset: Path, content_sha256: str, total_steps: int, threads: int, device: str,
        processes: int, trial: bool, warm_start: Path | None = None,
        warm_start_sha256: str | None = None,
    ) -> Self:  # fmt: skip
        """The origin of a run that begins now, with this code, on this machine."""
        return cls(
            dataset=str(dataset.absolute()), content_sha256=content_sha256,
            total_steps=total_steps, code=code_digest(), torch=torch.__version__,
            threads=threads, device=device, cpu=torch.backends.cpu.get_cpu_capability(),
            processes=processes, trial=trial,
            warm_start=None if warm_start is None else str(warm_start.absolute()),
            warm_start_sha256=warm_start_sha256,
        )  # fmt: skip

    def fingerprint(self, params: Params) -> str:
        """Two runs of equal fingerprint train the same model, bit for bit on a CPU.

        Args:
            params: Resolved parameters, with what the tuner found laid over them.
        """
        own = {name: value for name, value in asdict(self).items() if name not in _NOT_HASHED}
        train = params.train.model_dump(mode="json", exclude={"threads", "device"})
        audio, text = params.audio.model_dump(mode="json"), params.text.model_dump(mode="json")
        return sha256_json({"train": train, "audio": audio, "text": text, **own})

    def write(self, run: Path) -> None:
        """Keep it in the run directory ``run``."""
        write_json(run / ORIGIN_FILE, asdict(self))

    @classmethod
    def read(cls, run: Path) -> Self:
        """Undo ``write``.

        Raises:
            InputMissingError: the run has none; it is older than this file, or never began.
            InputCorruptError: it is not what ``write`` writes.
        """
        values: Mapping[str, Any] = read_json(run / ORIGIN_FILE, produced_by="train")
        try:
            return cls(**values)
        except TypeError as error:
            raise InputCorruptError(
                run / ORIGIN_FILE, problem=str(error), hint="this run cannot be repeated"
            ) from error
