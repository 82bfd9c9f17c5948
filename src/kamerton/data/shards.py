"""Clips packed into tar files: a version of the dataset is tens of objects, not tens of thousands.

The tars are plain (any tar program unpacks them) and depend on their members alone: no time, owner
or machine is recorded. A reader needs no index of the tar, only the offset and size that the
manifest holds.

Which clips share a tar is drawn from hashes of their recordings, as the leaves of a tree that is
split where it is too full. So a recording that comes or goes changes the tar that it falls in and
leaves every other one as it is, byte for byte and by name: only that tar travels to a remote.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import sha256_json

_END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)
_HASH_BYTES = 8
_KEY_BITS = 2 * 8 * _HASH_BYTES
_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a member's bytes lie: file name of the shard, offset and size of the payload."""

    shard: str
    offset_bytes: int
    size_bytes: int


class TarWriter:
    """A tar under construction; it is whole and on disk when the ``with`` block ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("wb")

    def add(self, name: str, payload: bytes) -> Placement:
        """Append one member."""
        header = tarfile.TarInfo(name)
        header.size = len(payload)
        header.mode = 0o644
        self._file.write(header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        offset = self._file.tell()
        self._file.write(payload)
        self._file.write(bytes(-len(payload) % tarfile.BLOCKSIZE))
        return Placement(self._path.name, offset, len(payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del error, trace
        with self._file as file:
            if kind is None:
                file.write(_END_OF_ARCHIVE)
                file.flush()
                os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class Member:
    """A clip on its way into a shard.

    ``recording`` is the hash of the recording that it was cut from, ``position`` its place there,
    ``sha256`` the hash of its payload.
    """

    name: str
    sha256: str
    recording: str
    position: int

    @property
    def key(self) -> int:
        """Bits that lead to its leaf: those of the recording, then its own."""
        parts = (self.recording, self.name)
        digests = (hashlib.blake2b(part.encode(), digest_size=_HASH_BYTES) for part in parts)
        return int.from_bytes(b"".join(digest.digest() for digest in digests), "big")


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar to be written, named by the speaker and a hash of what is in it."""

    name: str
    members: tuple[Member, ...]


def plan_shards(prefix: str, members: Iterable[Member], *, per_shard: int) -> list[Shard]:
    """Group members into shards of at most ``per_shard``, those of one recording together.

    A recording with more members than that is split by hashes of their names, so that one of them
    that comes or goes changes one shard only.
    """
    keyed = sorted(((member.key, member) for member in members), key=lambda pair: pair[0])
    return [_shard(prefix, leaf) for leaf in _leaves(keyed, 0, per_shard)]


def _leaves(
    keyed: Sequence[tuple[int, Member]], bit: int, per_shard: int
) -> Iterator[Sequence[tuple[int, Member]]]:
    """Split what is sorted by key at the first key with the bit set, until the parts fit."""
    if len(keyed) <= per_shard or bit == _KEY_BITS:
        if keyed:
            yield keyed
        return
    mask = 1 << (_KEY_BITS - 1 - bit)
    middle = next((n for n, (key, _) in enumerate(keyed) if key & mask), len(keyed))
    yield from _leaves(keyed[:middle], bit + 1, per_shard)
    yield from _leaves(keyed[middle:], bit + 1, per_shard)


def _shard(prefix: str, leaf: Sequence[tuple[int, Member]]) -> Shard:
    inside = sorted((member for _, member in leaf), key=lambda m: (m.recording, m.position, m.name))
    content = sha256_json([[member.name, member.sha256] for member in inside])
    return Shard(f"{prefix}-{content[:_NAME_DIGITS]}.tar", tuple(inside))


def write_shard(
    folder: Path, shard: Shard, read: Callable[[Member], bytes]
) -> dict[str, Placement]:
    """Write one shard into ``folder``; return the placement of every member by name.

    ``read`` is asked for one payload after the other; no more than one is held.
    """
    with TarWriter(folder / shard.name) as tar:
        return {member.name: tar.add(member.name, read(member)) for member in shard.members}


def read_member(folder: Path, placement: Placement, *, written_by: str = "dataset") -> bytes:
    """The payload at ``placement``; ``written_by`` is the stage that errors advise to run again.

    Raises:
        InputMissingError: the shard is not there.
        InputCorruptError: it ends before the payload does.
    """
    hint = f"make it again: `kamerton {written_by} --force`"
    path = folder / placement.shard
    if Path(placement.shard).name != placement.shard:
        problem = f"the manifest names {placement.shard!r}, which is not a file of this folder"
        raise InputCorruptError(folder, problem=problem, hint=hint)
    try:
        with path.open("rb") as file:
            file.seek(placement.offset_bytes)
            payload = file.read(placement.size_bytes)
    except FileNotFoundError as error:
        raise InputMissingError(path, produced_by=written_by) from error
    except (OSError, ValueError) as error:  # a placement that no file can have
        raise InputCorruptError(path, problem=f"cannot be read ({error})", hint=hint) from error
    if len(payload) != placement.size_bytes:
        problem = f"ends before byte {placement.offset_bytes + placement.size_bytes}"
        raise InputCorruptError(path, problem=problem, hint=hint)
    return payload
