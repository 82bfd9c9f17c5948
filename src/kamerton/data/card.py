"""The dataset's card: dataset.json for programs, README.md for people."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from kamerton.config.schema import Params
from kamerton.core.files import sha256_json
from kamerton.data.filters import REASONS
from kamerton.data.joining import Rejection
from kamerton.data.manifest import SPLITS, Row
from kamerton.text.phonemes import program_version
from kamerton.text.symbols import SymbolTable

FORMAT_VERSION = 2
_LISTED_SOURCES = 200
_SECONDS_AN_HOUR, _SECONDS_A_MINUTE = 3600.0, 60.0
_HASH_DIGITS = 16

_FILES = """\
## Files

- `manifest.jsonl`: one line per clip: text as written and as spoken, split, recording and the
  samples of it that the clip was cut from, and where its sound is. `train.jsonl`, `val.jsonl` and
  `test.jsonl` are the lines of each split.
- `shards/*.tar`: the clips as 16-bit FLAC, in plain tar files named by their content.
- `metadata.csv`: `id|text|text as spoken`, in the form of LJSpeech.
- `rejected.jsonl`: what was left out, by which stage and why.
- `dataset.json`: this card for programs.

Loose sound files for other programs: `kamerton export --format ljspeech`, `nemo` or
`hf-audiofolder`. Check that everything is whole: `kamerton check --deep`.
"""


def content_sha256(rows: Iterable[Row]) -> str:
    """Hash of what a model can learn from, in any order.

    That is ids, texts, phonemes, splits and sound, and who speaks where there are several.
    """
    rows = list(rows)
    several = len({row.speaker for row in rows}) > 1
    return sha256_json(
        sorted(
            [row.id, row.text, row.split, row.audio_sha256]
            + ([] if row.phonemes is None else [row.phonemes])
            + ([row.speaker] if several else [])
            for row in rows
        )
    )


def make_card(
    rows: Sequence[Row], rejections: Iterable[Rejection], params: Params
) -> dict[str, Any]:
    """What one wants to know of a dataset without reading its rows."""
    reasons = Counter(reason for rejection in rejections for reason in rejection.reasons)
    read_aloud = (row.model_text for row in rows)
    return {
        "format_version": FORMAT_VERSION,
        "name": params.dataset.name,
        "description": params.dataset.description,
        "licence": params.dataset.licence,
        "content_sha256": content_sha256(rows),
        "language": params.text.language,
        "speaker": params.dataset.speaker,
        "speakers": sorted({row.speaker for row in rows}),
        "sample_rate_hz": rows[0].sample_rate_hz,
        "clips": len(rows),
        "hours": _hours(rows),
        "recordings": len({row.source for row in rows}),
        "texts": dict(sorted(Counter(row.text_origin for row in rows).items())),
        "splits": {
            split: {"clips": len(members), "hours": _hours(members)}
            for split, members in _by_split(rows).items()
        },
        "split_rule": params.dataset.model_dump(
            include={"split_seed", "block_seconds", "test_fraction", "val_fraction"}
        ),
        "symbols": list(SymbolTable.for_params(params.text, read_aloud).symbols),
        "text": params.text.model_dump(),
        "phonemes_by": None if params.text.phonemes == "none" else f"espeak-ng {program_version()}",
        "rejected": dict(sorted(reasons.items())),
    }


def _by_split(rows: Iterable[Row]) -> Mapping[str, list[Row]]:
    rows = list(rows)
    return {split: [row for row in rows if row.split == split] for split in SPLITS}


def _hours(rows: Iterable[Row]) -> float:
    return round(sum(row.duration_seconds for row in rows) / _SECONDS_AN_HOUR, 6)


def readme(
    card: Mapping[str, Any],
    rows: Sequence[Row],
    rejections: Sequence[Rejection],
    params: Params,
) -> str:
    """The card as Markdown; equal datasets give equal bytes."""
    parts = [f"# {card['name']}\n"]
    if card["description"]:
        parts.append(f"{card['description']}\n")
    parts += [
        _table(("", ""), _facts(card)),
        "## Splits\n",
        f"Stretches of {card['split_rule']['block_seconds']:g} s of a recording are in one split "
        "together, and so are clips of equal text.\n",
        _table(
            ("split", "clips", "minutes"),
            [
                (split, str(len(inside)), _minutes(inside))
                for split, inside in _by_split(rows).items()
            ],
        ),
        "## Recordings\n",
        _table(("recording", "SHA-256", "clips", "minutes"), _sources(rows)),
        "## Left out\n",
        _table(("by", "reason", "clips", "minutes", "meaning"), _left_out(rejections)),
        "## Parameters\n",
        f"```yaml\n{_parameters(params)}```\n",
        _FILES,
    ]
    return "\n".join(parts)


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    reads = "letters" if card["phonemes_by"] is None else f"phonemes ({card['phonemes_by']})"
    return [
        ("hours", f"{card['hours']:.3f}"),
        ("clips", f"{card['clips']} of {card['recordings']} recordings"),
        ("texts", ", ".join(f"{count} {origin}" for origin, count in card["texts"].items())),
        ("speaker", ", ".join(card["speakers"])),
        ("language", card["language"]),
        ("sound", f"{card['sample_rate_hz']} Hz, mono, 16-bit FLAC"),
        ("the voice reads", f"{len(card['symbols'])} symbols: {reads}"),
        ("licence", card["licence"] or "not stated"),
        ("content", f"`{card['content_sha256']}`"),
    ]


def _sources(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    by_source: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_source[row.source, row.source_sha256].append(row)
    listed: list[tuple[str, ...]] = [
        (source, f"`{sha256[:_HASH_DIGITS]}`", str(len(clips)), _minutes(clips))
        for (source, sha256), clips in sorted(by_source.items())[:_LISTED_SOURCES]
    ]
    if more := len(by_source) - len(listed):
        listed.append((f"and {more} more: see manifest.jsonl", "", "", ""))
    return listed


def _left_out(rejections: Iterable[Rejection]) -> list[tuple[str, ...]]:
    by_reason: dict[tuple[str, str], list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        for reason in rejection.reasons:
            by_reason[rejection.by, reason].append(rejection)
    return [
        (by, reason, str(len(clips)), _minutes(clips), REASONS.get(reason, ""))
        for (by, reason), clips in sorted(by_reason.items())
    ]


def _minutes(clips: Iterable[Row | Rejection]) -> str:
    return f"{sum(clip.duration_seconds or 0.0 for clip in clips) / _SECONDS_A_MINUTE:.2f}"


def _parameters(params: Params) -> str:
    sections = {"dataset": params.dataset.model_dump(), "text": params.text.model_dump()}
    return yaml.safe_dump(sections, allow_unicode=True, sort_keys=True)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    if not rows:
        return "Nothing.\n"
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(_cell(value) for value in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
