"""Atomic writes, hashes and locks: no reader ever sees half a file.

Every write goes to a temporary sibling, is flushed to disk and renamed. A process that is killed
leaves at worst a sibling named ``.<name>.partial-<host>-<pid>``, which the next writer of the same
path removes once the process that made it is gone.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kamerton.core.errors import InputCorruptError, InputMissingError, UsageError

_PARTIAL = ".partial-"
_OLD = "old-"
_HASH_BLOCK_BYTES = 1 << 20
_INT64_LIMIT = 1 << 63
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)


def _owner() -> str:
    """This process among all that may share the disk: process 1 of a pod is not that of another."""
    host = "".join(char if char.isalnum() else "_" for char in socket.gethostname())
    return f"{host}-{os.getpid()}"


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PARTIAL}{_owner()}")


def _is_abandoned(leftover: Path) -> bool:
    """Whether the process that made it ran on this host and does no longer."""
    host, _, pid = leftover.name.rpartition(_PARTIAL)[2].removeprefix(_OLD).rpartition("-")
    if host != _owner().rpartition("-")[0] or not pid.isdigit():
        return False
    return int(pid) == os.getpid() or not _is_alive(int(pid))


def is_being_written(leftover: Path) -> bool:
    """Whether a temporary file or folder belongs to another process of this host that runs."""
    host, _, pid = leftover.name.rpartition(_PARTIAL)[2].removeprefix(_OLD).rpartition("-")
    ours = host == _owner().rpartition("-")[0] and pid.isdigit()
    return ours and not _is_abandoned(leftover)


def sha256_path(path: Path | str) -> str:
    """SHA-256 of a path's name, which need not be text."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only waits for its parent to notice; unknown without /proc."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return state[:1] == [b"Z"]


def remove_path(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_stale_partials(path: Path) -> None:
    """Remove what writers of ``path`` that no longer run left behind.

    A folder that was put aside and never replaced goes back to its place.
    """
    for leftover in sorted(path.parent.glob(f".{_glob_escape(path.name)}{_PARTIAL}*")):
        if not _is_abandoned(leftover):
            continue
        put_aside = leftover.name.rpartition(_PARTIAL)[2].startswith(_OLD)
        if put_aside and not path.exists():
            os.replace(leftover, path)
        else:
            remove_path(leftover)


def temporary_folder(path: Path) -> Path:
    """An empty folder beside ``path``, to be filled and published; stale ones are removed."""
    remove_stale_partials(path)
    temporary = _partial(path)
    remove_path(temporary)
    temporary.mkdir()
    return temporary


def publish_folder(temporary: Path, path: Path) -> None:
    """Give a filled folder its name, all at once.

    Raises:
        FileExistsError: there is one of that name.
    """
    try:
        os.rename(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(path) from error
        raise
    _sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder so that no reader finds half of it: it is renamed first."""
    aside = path.with_name(f".{path.name}{_PARTIAL}{_owner()}")
    os.replace(path, aside)
    remove_path(aside)


def _glob_escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, making parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(path)
    temporary = _partial(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def link_file(source: Path, path: Path) -> None:
    """Give a file the further name ``path``, atomically; where there are no hard links, a copy."""
    remove_stale_partials(path)
    temporary = _partial(path)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_bytes(path, source.read_bytes())
        return
    try:
        os.replace(temporary, path)
    finally:
        # Renaming one name of a file to another name of the same file does nothing at all.
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode("utf-8"))


def dump_json(value: object) -> str:
    """Readable JSON whose bytes depend on the value alone; NaN is refused."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as sorted, indented JSON."""
    write_text(path, dump_json(value))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, keys in the order given."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def is_storable(value: object) -> bool:
    """Whether a JSON value is one that every reader can hold, and that can be written again.

    Numbers are finite and within 64 bits; texts have no lone surrogates, which UTF-8 cannot hold.
    """
    if isinstance(value, str):
        return value.isascii() or _is_utf8(value)
    if isinstance(value, list):
        return all(map(is_storable, value))
    if isinstance(value, int):
        return -_INT64_LIMIT <= value < _INT64_LIMIT
    return not isinstance(value, float) or math.isfinite(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_text(path: Path, produced_by: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputMissingError(path, produced_by=produced_by) from error
    except IsADirectoryError as error:
        raise InputCorruptError(
            path, problem="is a folder, not a file", hint="name the file in it"
        ) from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise InputCorruptError(path, problem=problem, hint=_rewrite_hint(produced_by)) from error


def _rewrite_hint(produced_by: str) -> str:
    if produced_by == "you":
        return "correct that line, or make the file again"
    return f"make it again: `kamerton {produced_by} --force`"


def read_json(path: Path, *, produced_by: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputMissingError: there is no such file.
        InputCorruptError: it is not UTF-8, not JSON, or not an object.
    """
    text = _read_text(path, produced_by)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputCorruptError(
            path, problem=f"is not JSON: {error}", hint=_rewrite_hint(produced_by)
        ) from error
    if not isinstance(value, dict):
        raise InputCorruptError(
            path, problem="is not a JSON object", hint=_rewrite_hint(produced_by)
        )
    return value


def read_jsonl(path: Path, *, produced_by: str) -> list[dict[str, Any]]:
    """Read one JSON object per line; blank lines are passed over.

    Raises:
        InputMissingError: there is no such file.
        InputCorruptError: a line is not a JSON object; the line is named.
    """
    rows = []
    for number, line in enumerate(_read_text(path, produced_by).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputCorruptError(
                f"{path}:{number}", problem=f"is not JSON: {error}", hint=_rewrite_hint(produced_by)
            ) from error
        if not isinstance(row, dict):
            raise InputCorruptError(
                f"{path}:{number}", problem="is not a JSON object", hint=_rewrite_hint(produced_by)
            )
        rows.append(row)
    return rows


def require_new(
    path: Path, *, force: bool, hint: str = "give --force to replace it, or another path"
) -> None:
    """Refuse to overwrite ``path`` unless ``force``."""
    if path.exists() and not force and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists already.", hint=hint)


def require_apart(output: Path, *inputs: Path, inside: bool = True) -> None:
    """Refuse an output whose writing would replace an input: that path, or a folder around it.

    ``inside`` False also refuses an output in the folder of an input, where the next run would
    read it.
    """
    target = output.resolve()
    for given in inputs:
        source = given.resolve()
        if source.is_relative_to(target):
            relation = "is" if source == target else "contains"
        elif not inside and target.is_relative_to(source):
            relation = "lies in"
        else:
            continue
        raise UsageError(
            f"{output}, to be written, {relation} {given}, which is read.",
            hint="name an output apart from every input, such as a folder beside them",
        )


@contextlib.contextmanager
def output_directory(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` when the block ends well.

    An older folder at ``path`` stays whole until that moment, and for good when the block raises.
    """
    require_new(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(path)
    temporary = _partial(path)
    remove_path(temporary)
    temporary.mkdir()
    try:
        yield temporary
        _replace_directory(temporary, path)
    except BaseException:
        remove_path(temporary)
        raise
    _sync_directory(path.parent)


def _replace_directory(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.replace(temporary, path)
        return
    # A non-empty folder cannot be renamed over; the old one steps aside under a name that the
    # next writer cleans up if this process is killed between the two renames.
    aside = path.with_name(f".{path.name}{_PARTIAL}{_OLD}{_owner()}")
    remove_path(aside)
    os.replace(path, aside)
    os.replace(temporary, path)
    remove_path(aside)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system releases it when the holder dies.

    A second process waits, and says on stderr that it does.
    """
    import fcntl  # POSIX only, and only where a lock is taken

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            started = time.monotonic()
            print(f"waiting for another process that holds {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
            print(
                f"it finished after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True
            )
        yield


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """SHA-256 over the names and contents of all files below ``path``, in order of name."""
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """SHA-256 of the canonical JSON of a value: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
