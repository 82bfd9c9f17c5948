"""Clips packed into tar files: a version of the dataset is tens of objects, not tens of thousands.

The tars are plain (any tar program unpacks them) and depend on their members alone: no time, owner
or machine is recorded. A reader needs no index of the tar, only the offset and size that the
manifest holds.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kamerton.core.errors import InputCorruptError, InputMissingError

_END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)
_REMAKE = "make the dataset again: `kamerton dataset --force`"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a member's bytes lie: file name of the shard, offset and size of the payload."""

    shard: str
    offset_bytes: int
    size_bytes: int


def write_shards(
    folder: Path, prefix: str, members: Iterable[tuple[str, bytes]], *, per_shard: int
) -> Iterator[Placement]:
    """Write ``members`` (name, payload) in their order to ``folder/<prefix>-0000.tar`` and on.

    Yields the placement of each member once it is written; a shard is complete when the first
    member of the next one is asked for, or the end is reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file: BinaryIO | None = None
    name = ""
    try:
        for index, (member, payload) in enumerate(members):
            if index % per_shard == 0:
                _close(file)
                name = f"{prefix}-{index // per_shard:04d}.tar"
                file = (folder / name).open("wb")
            assert file is not None  # opened at index 0
            yield Placement(name, _write_member(file, member, payload), len(payload))
    finally:
        _close(file)


def _close(file: BinaryIO | None) -> None:
    if file is None:
        return
    file.write(_END_OF_ARCHIVE)
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _write_member(file: BinaryIO, name: str, payload: bytes) -> int:
    """Append one member; return the offset of its payload."""
    header = tarfile.TarInfo(name)
    header.size = len(payload)
    header.mode = 0o644
    file.write(header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
    offset = file.tell()
    file.write(payload)
    file.write(bytes(-len(payload) % tarfile.BLOCKSIZE))
    return offset


def read_member(folder: Path, placement: Placement) -> bytes:
    """The payload at ``placement``.

    Raises:
        InputMissingError: the shard is not there.
        InputCorruptError: it ends before the payload does.
    """
    path = folder / placement.shard
    if Path(placement.shard).name != placement.shard:
        problem = f"the manifest names {placement.shard!r}, which is not a file of this folder"
        raise InputCorruptError(folder, problem=problem, hint=_REMAKE)
    try:
        with path.open("rb") as file:
            file.seek(placement.offset_bytes)
            payload = file.read(placement.size_bytes)
    except FileNotFoundError as error:
        raise InputMissingError(path, produced_by="dataset") from error
    except (OSError, ValueError) as error:  # a placement that no file can have
        raise InputCorruptError(path, problem=f"cannot be read ({error})", hint=_REMAKE) from error
    if len(payload) != placement.size_bytes:
        problem = f"ends before byte {placement.offset_bytes + placement.size_bytes}"
        raise InputCorruptError(path, problem=problem, hint=_REMAKE)
    return payload
