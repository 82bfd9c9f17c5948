"""A new run that begins with the weights of another: weights only, no optimiser, no position.

Symbols and speakers are matched by what they are, not by their numbers, so that a voice of one
table can begin from another's; rows that have no counterpart keep what the seed made of them.
The mean and deviation of the mel channels stay those of the new dataset: the network works on
normalised frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kamerton.core.errors import InputCorruptError, InputMissingError, ParamsError
from kamerton.core.files import sha256_file, sha256_json
from kamerton.model import DESCRIPTION_FILE, WEIGHTS_FILE
from kamerton.model.export import TORCH_FILE, load_model
from kamerton.text.symbols import FIRST_SYMBOL
from kamerton.training.checkpoint_format import read_checkpoint
from kamerton.training.meaning import Meaning, changes, is_dropout, refuse

# What may differ: sizes of tables, noise, and what only training needs.
_FREE = frozenset(
    {"symbols", "speakers", "double_decoder_reduction", "recurrent_noise", "variational",
}
)  # fmt: skip
_OF_THE_DATASET = ("mel_mean", "mel_deviation")
_SYMBOL_ROWS = "encoder.embedding.weight"
_SPEAKER_ROWS = "speaker_embedding.weight"  # wherever the network has it
_PADDING, _END = "padding", "end of text"
_OTHER_WEIGHTS = "name a checkpoint (.pt), a run directory or an exported voice"
_SHOWN_SHAPES = 8


@dataclass(frozen=True, slots=True)
class Source:
    """Weights to begin with.

    Attributes:
        path: Where they were read.
        sha256: Of the files.
        weights: By name.
        meaning: What they mean.
    """

    path: Path
    sha256: str
    weights: Mapping[str, Tensor]
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What became of them.

    Attributes:
        source: Where they were read.
        sha256: Of the files.
        taken: Names of the tensors that were taken, wholly or in part.
        fresh: Names of those that the source does not have.
        left: Names of those that the new network does not have.
        new_rows: Symbols and speakers that the source does not know.
    """

    source: Path
    sha256: str
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    new_rows: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What is logged of it."""
        return {
            "source": str(self.source), "sha256": self.sha256, "taken": list(self.taken),
            "fresh": list(self.fresh), "left": list(self.left), "new_rows": list(self.new_rows),
        }  # fmt: skip


def source_files(path: Path) -> tuple[Path, ...]:
    """The file or files that ``path`` stands for.

    Args:
        path: A checkpoint, a run directory (its best checkpoint), an exported voice, or the
            weights of one.

    Raises:
        InputMissingError: it is not there.
        InputCorruptError: it is a folder that holds neither.
    """
    if not path.exists():
        raise InputMissingError(path, produced_by="you", hint=_OTHER_WEIGHTS)
    if path.name in (WEIGHTS_FILE, TORCH_FILE, DESCRIPTION_FILE):
        path = path.parent
    if path.is_file():
        return (path,)
    if (path / DESCRIPTION_FILE).exists():
        return path / DESCRIPTION_FILE, path / WEIGHTS_FILE
    best = path / "checkpoints" / "best.pt"
    if best.exists():
        return (best,)
    raise InputCorruptError(path, problem="holds no weights", hint=_OTHER_WEIGHTS)


def source_sha256(path: Path) -> str:
    """The hash of what ``path`` stands for; raises as ``source_files`` does."""
    files = source_files(path)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise InputMissingError(missing, produced_by="train")
    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else sha256_json(hashes)


def read_source(path: Path) -> Source:
    """Read the weights at ``path``.

    Raises:
        InputMissingError: it is not there.
        InputCorruptError: it is damaged, or of another format.
    """
    files, sha256 = source_files(path), source_sha256(path)
    if len(files) > 1:
        model, description = load_model(files[0].parent)
        meaning = Meaning(
            description.architecture.to_dict(), description.audio.model_dump(mode="json"),
            description.symbols, description.speakers or (description.speaker,),
        )  # fmt: skip
        return Source(path, sha256, model.state_dict(), meaning)
    record = read_checkpoint(files[0], hint=_OTHER_WEIGHTS)
    if record["meaning"] is None:
        raise InputCorruptError(files[0], problem="does not say its network", hint=_OTHER_WEIGHTS)
    return Source(path, sha256, record["model"], Meaning.from_dict(record["meaning"]))


def warm_start(model: nn.Module, source: Source, asked: Meaning) -> WarmStart:
    """Give ``model`` the weights of ``source``.

    Args:
        model: The new network, as the seed made it.
        source: Weights of another.
        asked: What the weights of ``model`` mean.

    Raises:
        ParamsError: the network or its mels are another; the parameters, or the tensors with
            their shapes, are named.
    """
    _require_same_network(source, asked)
    own, given = model.state_dict(), source.weights
    common = [name for name in own if name in given and name not in _OF_THE_DATASET]
    merged, new_rows, wrong = {}, [], []
    for name in common:
        rows = _rows(name, source.meaning, asked)
        if rows is not None and own[name].shape[1:] == given[name].shape[1:]:
            merged[name], new = _by_row(own[name], given[name], *rows)
            new_rows += new
        elif own[name].shape == given[name].shape:
            merged[name] = given[name]
        else:
            wrong.append(f"{name} {list(given[name].shape)}, asked {list(own[name].shape)}")
    if wrong:
        more = [f"and {len(wrong) - _SHOWN_SHAPES} more"] if len(wrong) > _SHOWN_SHAPES else []
        raise ParamsError(
            f"{source.path} has other shapes: {'; '.join(wrong[:_SHOWN_SHAPES] + more)}.",
            hint="give the parameters it was trained with, or do without it",
        )
    model.load_state_dict({**own, **merged})
    absent = set(own) - set(given) - set(_OF_THE_DATASET)
    return WarmStart(
        source.path, source.sha256, tuple(common), tuple(sorted(absent)),
        tuple(sorted(set(given) - set(own))), tuple(new_rows),
    )  # fmt: skip


def _require_same_network(source: Source, asked: Meaning) -> None:
    def fixed(meaning: Meaning) -> dict[str, Any]:
        sizes = {
            name: value
            for name, value in meaning.architecture.items()
            if name not in _FREE and not is_dropout(name)
        }
        return {"train.model": sizes, "audio": dict(meaning.audio)}

    refuse(source.path, list(changes(fixed(source.meaning), fixed(asked))))


def _rows(name: str, then: Meaning, now: Meaning) -> tuple[list[str], list[str]] | None:
    """What the rows of a tensor stand for, then and now; None where they are not a table's."""
    if name == _SYMBOL_ROWS:
        fixed = [_PADDING, _END]
        assert len(fixed) == FIRST_SYMBOL
        return [*fixed, *then.symbols], [*fixed, *now.symbols]
    if name.endswith(_SPEAKER_ROWS):
        return list(then.speakers), list(now.speakers)
    return None


def _by_row(
    own: Tensor, given: Tensor, then: Sequence[str], now: Sequence[str]
) -> tuple[Tensor, list[str]]:
    """``own`` with the rows of ``given`` that stand for the same; and the names that are new."""
    places = {name: row for row, name in enumerate(then)}
    merged = own.clone()
    known = [(row, places[name]) for row, name in enumerate(now) if name in places]
    if known:
        to, of = (torch.tensor(numbers) for numbers in zip(*known, strict=True))
        merged[to] = given[of].to(merged)
    return merged, [name for name in now if name not in places]
