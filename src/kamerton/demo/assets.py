"""Where the toy recogniser's checkpoint lies, in a checkout or in an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import kamerton
from kamerton.core.errors import InputMissingError
from kamerton.core.files import sha256_file

TOY_FOLDER: Final = Path("assets/toy-whisper")  # relative to a project, as params.yaml has it
CHECKSUMS_FILE: Final = "SHA256SUMS"
_FORMS: Final = {"whisper": Path("toy.pt"), "faster-whisper": Path("ct2")}


def toy_folder() -> Path:
    """The folder with both forms of the toy recogniser.

    Raises:
        InputMissingError: this installation does not carry it.
    """
    package = Path(kamerton.__file__).resolve().parent
    roots = (package / "_project", package.parents[1])  # installed; checkout
    for root in roots:
        if (root / TOY_FOLDER / _FORMS["whisper"]).is_file():
            return root / TOY_FOLDER
    raise InputMissingError(
        roots[-1] / TOY_FOLDER,
        produced_by="you",
        hint=f"train it: `python -m kamerton.demo.toy_whisper --out {TOY_FOLDER}`",
    )


def toy_checkpoint(backend: Literal["whisper", "faster-whisper"]) -> Path:
    """What ``transcribe.model`` may name for ``backend``; raises as :func:`toy_folder`."""
    return toy_folder() / _FORMS[backend]


def checksums(folder: Path) -> str:
    """Lines for ``sha256sum --check``: every file of the checkpoint in both forms."""
    files = sorted(
        path for form in _FORMS.values() for path in _files(folder / form) if path.is_file()
    )
    return "".join(
        f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files
    )


def _files(path: Path) -> list[Path]:
    return list(path.rglob("*")) if path.is_dir() else [path]
