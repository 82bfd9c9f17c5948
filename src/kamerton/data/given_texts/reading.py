"""Find the texts beside recordings and read them.

| file | says | about |
|---|---|---|
| ``corrections.csv`` | what a clip says | recordings in its folder and below |
| ``NAME.srt``, ``NAME.vtt`` | what is said when | ``NAME.*`` beside it |
| ``NAME.txt`` | all that is said | ``NAME.*`` beside it |
| ``metadata.csv`` | all that is said, by name | recordings in its folder and below |

NAME is a recording's name with or without its ending; subtitles may add a language, as in
``talk.en.srt``. Text files of usual names (README, LICENSE …) are notes and passed over,
unless a recording is called so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from kamerton.data.given_texts.corrections import parse_corrections
from kamerton.data.given_texts.decoding import MAX_BYTES, TextError, decode_text, has_words, tidy
from kamerton.data.given_texts.metadata import parse_metadata
from kamerton.data.given_texts.model import GivenText, TextProblem
from kamerton.data.given_texts.subtitles import parse_subtitles
from kamerton.data.recordings import Recording, find_files

Found = tuple[list[GivenText], list[TextProblem]]
Reader = Callable[[bytes, str, "Names"], Found]

_NOTES = re.compile(
    r"(read[-_ ]?me|licen[cs]e|copying|notice|notes?|authors|credits|changelog|changes|todo)"
    r"([-_. ].*)?",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})?$")


def read_given_texts(folder: Path, recordings: Sequence[Recording]) -> Found:
    """Read every correction, subtitle and transcript below ``folder``.

    ``recordings`` must be all that `find_recordings` finds in the folder, also where only a shard
    of them is to be cut: a sidecar without its recording is a problem. Nothing in a sidecar is
    an error; what cannot be used is listed.

    Returns:
        Texts in order of file and line (subtitles: of time), and problems in order of file.
    """
    names = Names([recording.name for recording in recordings])
    texts: list[GivenText] = []
    problems: list[TextProblem] = []
    for file in find_files(folder):
        reader = _reader(file.name, names)
        if reader is None:
            continue
        try:
            found = reader(_read(file.path), file.name, names)
        except TextError as error:
            found = [], [TextProblem(file.name, error.reason, error.detail)]
        texts += found[0]
        problems += found[1]
    return texts, problems


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise TextError("not_readable", "no plain file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TextError("not_readable", error.strerror or "") from error


def _reader(name: str, names: Names) -> Reader | None:
    path = PurePosixPath(name)
    by_name = {"corrections.csv": take_corrections, "metadata.csv": take_metadata}
    if reader := by_name.get(path.name.lower()):
        return reader
    if path.suffix.lower() == ".txt":
        is_note = _NOTES.fullmatch(path.stem) and not names.beside(name, languages=False)
        return None if is_note else take_text_file
    return take_subtitles if path.suffix.lower() in (".srt", ".vtt") else None


class Names:
    """Recordings by the names that people give them.

    Letters count as equal however they are composed: file systems and editors differ in that.
    """

    def __init__(self, recordings: Sequence[str]) -> None:
        self._exact = {_composed(name): name for name in recordings}
        self._beside: dict[tuple[str, str], list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for name in recordings:
            path = PurePosixPath(_composed(name))
            for called in {path.name, path.stem}:
                self._beside.setdefault((path.parent.as_posix(), called), []).append(name)
                self._stems.setdefault(called, []).append(name)

    def beside(self, sidecar: str, *, languages: bool) -> list[str]:
        """Recordings in the sidecar's folder that it is called after."""
        path = PurePosixPath(_composed(sidecar))
        parent = path.parent.as_posix()
        found = self._beside.get((parent, path.stem), [])
        if not found and languages:
            found = self._beside.get((parent, _LANGUAGE.sub("", path.stem)), [])
        return found

    def path_from(self, sidecar: str, written: str) -> str | None:
        """The recording that a path in a sidecar means: from its folder, else from the root."""
        folder = PurePosixPath(_composed(sidecar)).parent
        path = _composed(written).replace("\\", "/").removeprefix("./")
        below = self._exact.get((folder / path).as_posix())
        if below is not None:
            return below
        from_root = self._exact.get(path)
        return from_root if from_root and _is_below(path, folder) else None

    def stem_below(self, sidecar: str, written: str) -> list[str]:
        """Recordings below the sidecar's folder of that path or name, with or without ending."""
        if exact := self.path_from(sidecar, written):
            return [exact]
        folder = PurePosixPath(_composed(sidecar)).parent
        path = folder / _composed(written).replace("\\", "/").removeprefix("./")
        if found := self._beside.get((path.parent.as_posix(), path.name)):
            return found
        called = self._stems.get(_composed(written), [])
        return [name for name in called if _is_below(_composed(name), folder)]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_below(name: str, folder: PurePosixPath) -> bool:
    return folder == PurePosixPath() or PurePosixPath(name).is_relative_to(folder)


def take_corrections(data: bytes, where: str, names: Names) -> Found:
    """Texts of a corrections.csv; two different ones for the same clip cancel each other."""
    rows, problems = parse_corrections(data, where)
    texts: list[GivenText] = []
    for row in rows:
        line = f"{where}:{row.line}"
        source = names.path_from(where, row.source) if row.source else None
        if row.source and source is None and row.id is None:
            problems.append(TextProblem(line, "no_recording", row.source))
            continue
        times = (row.start_seconds, row.end_seconds) if source or row.id else (None, None)
        texts.append(GivenText("correction", source, row.id, *times, row.text, line))
    return texts, problems


def take_subtitles(data: bytes, where: str, names: Names) -> Found:
    """Cues of the subtitles of a recording."""
    sources = names.beside(where, languages=True)
    if not sources:
        return [], [TextProblem(where, "no_recording")]
    cues, problems = parse_subtitles(data, where)
    texts = [
        GivenText(
            "subtitle",
            source,
            None,
            cue.start_seconds,
            cue.end_seconds,
            cue.text,
            f"{where}:{cue.line}",
        )
        for source in sources
        for cue in cues
    ]
    return texts, problems


def take_text_file(data: bytes, where: str, names: Names) -> Found:
    """The text of a whole recording."""
    sources = names.beside(where, languages=False)
    if not sources:
        return [], [TextProblem(where, "no_recording")]
    text = tidy(decode_text(data))
    if not has_words(text):
        return [], [TextProblem(where, "no_text")]
    return [GivenText("text", name, None, None, None, text, where) for name in sources], []


def take_metadata(data: bytes, where: str, names: Names) -> Found:
    """Texts of whole recordings, one by line; lines without a recording are told together."""
    rows, problems = parse_metadata(data, where)
    texts: list[GivenText] = []
    absent: list[str] = []
    for row in rows:
        line = f"{where}:{row.line}"
        sources = names.stem_below(where, row.id)
        if len({PurePosixPath(name).parent for name in sources}) > 1:
            problems.append(TextProblem(line, "several_recordings", ", ".join(sources[:3])))
        elif sources:
            texts += [GivenText("metadata", s, None, None, None, row.text, line) for s in sources]
        else:
            absent.append(row.id)
    if absent:
        detail = f"{len(absent)} lines, the first of {absent[0]}"
        problems.append(TextProblem(where, "no_recording", detail))
    return texts, problems
