"""A dataset as loose sound files with the tables that other programs read."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kamerton.audio.files import encode_flac, encode_wav
from kamerton.audio.resample import resample
from kamerton.core.errors import InputEmptyError, UsageError
from kamerton.core.files import output_directory, require_apart, require_new, write_text
from kamerton.core.progress import Progress, silent
from kamerton.data.manifest import SPLITS, Dataset, Row, Split, ljspeech_line

Format = Literal["ljspeech", "nemo", "hf-audiofolder"]
SoundFile = Literal["wav", "flac"]
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8000, 48000

_HUGGING_FACE_SPLITS: Mapping[Split, str] = {"train": "train", "val": "validation", "test": "test"}
_SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be exported, and how.

    ``rate_hz`` None keeps the samples as they are; ``audio_root`` is put before the file names of
    NeMo's manifests, which are else relative to the manifest.
    """

    format: Format
    splits: tuple[Split, ...] = SPLITS
    rate_hz: int | None = None
    sound: SoundFile = "wav"
    audio_root: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    format: Format
    clips: int
    hours: float
    sample_rate_hz: int

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a format wants its sound and which tables it wants beside it."""

    place: Callable[[Row, SoundFile], str]
    tables: Callable[[Sequence[Row], Wish], Mapping[str, str]]
    about: str


def export_dataset(
    dataset: Path,
    output: Path,
    wish: Wish,
    *,
    force: bool = False,
    on_progress: Progress = silent,
) -> Exported:
    """Write the clips of ``dataset`` to the new folder ``output``, which appears whole or not.

    Raises:
        UsageError: ``output`` exists, lies in or around the dataset, or the rate is none that sound
            has.
        InputMissingError, InputCorruptError: there is no dataset, or a clip of it is damaged.
        InputEmptyError: the splits asked for hold nothing.
    """
    require_new(output, force=force)
    require_apart(output, dataset, inside=False)
    if wish.rate_hz is not None and not LOWEST_RATE_HZ <= wish.rate_hz <= HIGHEST_RATE_HZ:
        raise UsageError(
            f"{wish.rate_hz} Hz is no rate for a voice.",
            hint=f"give one between {LOWEST_RATE_HZ} and {HIGHEST_RATE_HZ}",
        )
    opened = Dataset.open(dataset)
    rows = [row for row in opened.rows() if row.split in wish.splits]
    if not rows:
        raise InputEmptyError(
            dataset, wanted=f"clips in {', '.join(wish.splits)}", hint="name other splits"
        )
    layout = _LAYOUTS[wish.format]
    with output_directory(output, force=force) as folder:
        for done, row in enumerate(rows):
            on_progress(done, len(rows), row.source)
            path = folder / layout.place(row, wish.sound)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_sound(opened, row, wish))
        on_progress(len(rows), len(rows))
        for name, text in layout.tables(rows, wish).items():
            write_text(folder / name, text)
        exported = Exported(
            output, wish.format, len(rows), _hours(rows), wish.rate_hz or rows[0].sample_rate_hz
        )
        write_text(folder / "README.md", _readme(opened.card, exported, rows, wish))
    return exported


def _sound(dataset: Dataset, row: Row, wish: Wish) -> bytes:
    unchanged = wish.rate_hz in (None, row.sample_rate_hz)
    if unchanged and wish.sound == "flac":
        return dataset.audio_bytes(row)
    wave, rate_hz = dataset.audio(row)
    if not unchanged and wish.rate_hz is not None:
        wave, rate_hz = np.clip(resample(wave, rate_hz, wish.rate_hz), -1.0, 1.0), wish.rate_hz
    return (encode_flac if wish.sound == "flac" else encode_wav)(wave, rate_hz)


def _hours(rows: Sequence[Row]) -> float:
    return round(sum(row.duration_seconds for row in rows) / _SECONDS_AN_HOUR, 6)


def _by_split(rows: Sequence[Row]) -> dict[Split, list[Row]]:
    found = {split: [row for row in rows if row.split == split] for split in SPLITS}
    return {split: inside for split, inside in found.items() if inside}


def _ljspeech_place(row: Row, sound: SoundFile) -> str:
    return f"wavs/{row.id}.{sound}"


def _ljspeech_tables(rows: Sequence[Row], wish: Wish) -> dict[str, str]:
    del wish
    tables = {"metadata.csv": rows} | {
        f"metadata_{split}.csv": inside for split, inside in _by_split(rows).items()
    }
    return {name: "".join(map(ljspeech_line, inside)) for name, inside in tables.items()}


def _speakers(rows: Sequence[Row]) -> list[str]:
    return sorted({row.speaker for row in rows})


def _nemo_place(row: Row, sound: SoundFile) -> str:
    return f"audio/{row.id}.{sound}"


def _nemo_tables(rows: Sequence[Row], wish: Wish) -> dict[str, str]:
    speakers = _speakers(rows)
    root = "" if wish.audio_root is None else f"{wish.audio_root.rstrip('/')}/"

    def line(row: Row) -> str:
        values = {
            "audio_filepath": f"{root}{_nemo_place(row, wish.sound)}",
            "duration": row.duration_seconds,
            "text": row.text_raw,
            "normalized_text": row.text,
            "speaker": speakers.index(row.speaker),  # the form wants a number
        }
        return json.dumps(values, ensure_ascii=False) + "\n"

    return {
        f"{split}_manifest.json": "".join(map(line, inside))
        for split, inside in _by_split(rows).items()
    }


def _folder_place(row: Row, sound: SoundFile) -> str:
    return f"{_HUGGING_FACE_SPLITS[row.split]}/{row.id}.{sound}"


def _folder_tables(rows: Sequence[Row], wish: Wish) -> dict[str, str]:
    return {
        f"{_HUGGING_FACE_SPLITS[split]}/metadata.csv": _folder_table(inside, wish)
        for split, inside in _by_split(rows).items()
    }


def _folder_table(rows: Sequence[Row], wish: Wish) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ("file_name", "transcription", "normalized_text", "speaker", "language", "duration")
    )
    for row in rows:
        table.writerow(
            (
                f"{row.id}.{wish.sound}",
                row.text_raw,
                row.text,
                row.speaker,
                row.language,
                f"{row.duration_seconds:.6f}",
            )
        )
    return text.getvalue()


_LAYOUTS: Mapping[Format, _Layout] = {
    "ljspeech": _Layout(
        _ljspeech_place,
        _ljspeech_tables,
        "In the form of LJSpeech: `metadata.csv` has a line `id|text|text as spoken` for every "
        "file of `wavs/`, and `metadata_SPLIT.csv` those of one split. The form knows no escapes: "
        "a bar or a line break inside a text became a space.",
    ),
    "nemo": _Layout(
        _nemo_place,
        _nemo_tables,
        "Manifests of NVIDIA NeMo: one JSON object per line of `SPLIT_manifest.json`. File names "
        "are relative to the manifest unless `--audio-root` was given; loaders that want them "
        "absolute need it.",
    ),
    "hf-audiofolder": _Layout(
        _folder_place,
        _folder_tables,
        "An `audiofolder` of Hugging Face datasets: "
        '`load_dataset("audiofolder", data_dir="THIS FOLDER")` gives the splits `train`, '
        "`validation` and `test` with the columns of `metadata.csv`.",
    ),
}


def _readme(card: Mapping[str, Any], exported: Exported, rows: Sequence[Row], wish: Wish) -> str:
    lines = [
        f"# {card['name']}",
        "",
        *([card["description"], ""] if card.get("description") else []),
        _LAYOUTS[wish.format].about,
        "",
        f"- {exported.clips} clips, {exported.hours:.3f} hours, {exported.sample_rate_hz} Hz, "
        f"16-bit {wish.sound.upper()}",
        *(
            f"- {split}: {len(inside)} clips, {_hours(inside):.3f} hours"
            for split, inside in _by_split(rows).items()
        ),
        f"- speaker {', '.join(_speakers(rows))}, language {card['language']}",
        f"- licence: {card.get('licence') or 'not stated'}",
        f"- exported from the dataset with content `{card['content_sha256']}`",
    ]
    head = []
    if wish.format == "hf-audiofolder":
        # Quoted: to YAML the bare code of Norwegian, no, is false.
        name, language = json.dumps(card["name"]), json.dumps(card["language"])
        head = ["---", f"pretty_name: {name}", f"language:\n- {language}",
                "task_categories:\n- text-to-speech", "---", ""]  # fmt: skip
    return "\n".join([*head, *lines]) + "\n"
