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

# What a run runs on decides the last bits of its numbers, not what they mean.
SURROUNDINGS = ("code", "torch", "threads", "device", "cpu")
_PLACES = ("dataset", "warm_start")
# Parameters that no number of a run depends on: the surroundings count as they are found, the
# budget as ``total_steps``, the kind of batches as ``batching``, and a preset is resolved.
_WITHOUT_EFFECT: Any = {
    "threads": True, "device": True, "epochs": True, "max_steps": True, "preset": True,
    "batching": True,
    "monitoring": {
        "log_interval_steps": True, "figure_interval_steps": True,
        "sample_interval_steps": True, "debug_interval_steps": True,
    },
}  # fmt: skip


def decisive_params(params: Params) -> dict[str, Any]:
    """The resolved parameters that the numbers of a run depend on, nested by section."""
    return {
        "train": params.train.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
        "audio": params.audio.model_dump(mode="json"),
        "text": params.text.model_dump(mode="json"),
    }


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
        batching: What is equal among batches, which ``auto`` leaves to the device.
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
    batching: str | None = None

    @classmethod
    def here(
        cls, *, dataset: Path, content_sha256: str, total_steps: int, threads: int, device: str,
        processes: int, trial: bool, warm_start: Path | None = None,
        warm_start_sha256: str | None = None, batching: str | None = None,
    ) -> Self:  # fmt: skip
        """The origin of a run that begins now, with this code, on this machine."""
        return cls(
            dataset=str(dataset.absolute()), content_sha256=content_sha256,
            total_steps=total_steps, code=code_digest(), torch=torch.__version__,
            threads=threads, device=device, cpu=torch.backends.cpu.get_cpu_capability(),
            processes=processes, trial=trial,
            warm_start=None if warm_start is None else str(warm_start.absolute()),
            warm_start_sha256=warm_start_sha256, batching=batching,
        )  # fmt: skip

    def fingerprint(self, params: Params) -> str:
        """Two runs of equal fingerprint train the same model; in equal surroundings to the bit.

        Args:
            params: Resolved parameters, with what the tuner found laid over them.
        """
        return sha256_json({**decisive_params(params), **self.decisive()})

    def decisive(self) -> dict[str, Any]:
        """What decides what is trained: a run of other values is another run."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in SURROUNDINGS and name not in _PLACES
        }

    def surroundings(self) -> dict[str, Any]:
        """What a run may go on without: it then differs in the last bits of its sums."""
        return {name: getattr(self, name) for name in SURROUNDINGS}

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
        return cls.read_file(run / ORIGIN_FILE)

    @classmethod
    def read_file(cls, path: Path) -> Self:
        """The origin that a file of the form of ``origin.json`` holds; raises as ``read`` does."""
        values: Mapping[str, Any] = read_json(path, produced_by="train")
        try:
            return cls(**values)
        except TypeError as error:
            raise InputCorruptError(
                path, problem=str(error), hint="this run cannot be repeated"
            ) from error
