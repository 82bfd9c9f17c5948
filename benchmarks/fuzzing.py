"""Throw spoilt files at every reader of text: each must be read, refused or told, never crash.

    python -m benchmarks.fuzzing [--inputs 100000] [--only READER] [--start N]

Each input is a valid file spoilt in a way that its number alone decides, so that a crash is made
again by ``--only READER --start NUMBER --inputs 1``. A file is *accepted* when all of it is
read, *told* when its problems are listed and the rest is read, *refused* when the reader raises one
of the product's own errors. Anything else is a crash, and so is what is accepted but cannot be
written again, a reason that no report explains, and an input that takes longer than two seconds of
CPU. Ends with 1 after a crash.
"""

import argparse
import io
import json
import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from random import Random
from typing import Any

from benchmarks.fuzz_mutations import mutate
from kamerton.core.errors import PipelineError
from kamerton.data.given_texts import PROBLEMS, GivenText, TextProblem, match_given, read_texts
from kamerton.data.given_texts.decoding import TextError
from kamerton.data.given_texts.reading import (
    Found,
    Names,
    take_corrections,
    take_metadata,
    take_subtitles,
    take_text_file,
)
from kamerton.data.given_texts.table import take_text
from kamerton.data.manifest import CARD_FILE, MANIFEST_FILE, Dataset
from kamerton.data.tables import CLIPS_FILE, Clip, read_clips, read_transcripts

SLOWEST_SECONDS = 2.0
SHOWN_CRASHES = 5
RECORDINGS = ("a.wav", "sub/b.flac", "sub/c.wav", "Привет мир.wav")


class MemoryFile:
    """As much of a path as the readers use, over bytes in memory."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self._name, self._files = name, files

    def __truediv__(self, name: str) -> "MemoryFile":
        return MemoryFile(str(PurePosixPath(self._name, name)), self._files)

    def __str__(self) -> str:
        return self._name

    def exists(self) -> bool:
        """There is nothing else."""
        return True

    def is_dir(self) -> bool:
        """A folder is what is no file."""
        return self._name not in self._files

    def read_bytes(self) -> bytes:
        """All of it."""
        return self._files[self._name]

    def read_text(self, encoding: str) -> str:
        """As pathlib reads it."""
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding) as file:
            return file.read()


# --- valid files

CARD = {
    "clips": 3, "content_sha256": "ab" * 32, "hours": 0.002, "language": "en", "name": "demo",
    "sample_rate_hz": 22050, "speaker": "anna", "splits": {"train": 1, "val": 1, "test": 1},
    "symbols": " abc", "text": {"lowercase": True},
}  # fmt: skip


def _row(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}", "shard": "shard-00.tar", "offset_bytes": 512 * number,
        "size_bytes": 400, "audio_sha256": "cd" * 32, "duration_seconds": 2.5,
        "sample_rate_hz": 22050, "text_raw": "It’s «5» o’clock", "text": "it's five o'clock",
        "language": "en", "speaker": "anna", "split": ("train", "val", "test")[number % 3],
        "source": "sub/Привет.wav", "source_sha256": "ef" * 32, "source_rate_hz": 44100,
        "start_sample": 1000 * number, "end_sample": 1000 * number + 900, "snr_db": 31.5,
        "avg_logprob": None,
        "clipped_share": 0.0, "phonemes": "ɪts faɪv",
    }  # fmt: skip


def _clip(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}", "file": "audio/ab.tar", "offset_bytes": 512 * number,
        "size_bytes": 400, "audio_sha256": "cd" * 32, "pcm_sha256": "01" * 32,
        "source": RECORDINGS[number % 4], "source_sha256": "ef" * 32,
        "start_sample": 44100 * number, "end_sample": 44100 * (number + 1),
        "sample_rate_hz": 44100, "duration_seconds": 1.0, "snr_db": None, "clipped_share": 1e-4,
        "forced_cut": False,
        "status": "kept", "reasons": [],
    }  # fmt: skip


def _transcript(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}", "text": "Hello, “you”.", "language": "en", "avg_logprob": -0.25,
        "no_speech_prob": 1e-12, "compression_ratio": 1.1, "temperature": 0.0, "backend": "whisper",
        "model": "tiny", "origin": "recognised", "status": "rejected", "reasons": ["low_logprob"],
    }  # fmt: skip


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


TEXTS = [
    GivenText("correction", "a.wav", "0000000000000001", 1.0, 2.0, "Yes.", "corrections.csv:2"),
    GivenText("correction", None, "0000000000000003", None, None, "", "corrections.csv:3"),
    GivenText("subtitle", "a.wav", None, 1.5, 2.5, "Да.", "a.srt:2"),
    GivenText("text", "sub/b.flac", None, None, None, "All of it.", "sub/b.txt"),
]
CLIPS = _lines([_clip(number) for number in range(4)])
CORRECTIONS = [
    "id,source,start_seconds,end_seconds,text,accept,recognised,reasons\n"
    '0000000000000001,sub/b.flac,1.000,2.000,"Hello, ""you"".",,Hello you,low_logprob\n'
    ",a.wav,0,1.01,Привет — мир,yes,Привет мир,\n"
    '0000000000000003,,,,"two\nlines",,,\n'
    ",sub/c.wav,2.0,3.0,,,gone,\n",
    "sep=;\r\ntext;source;start_seconds;end_seconds\r\n"
    "не так;a.wav;0,05;0,99\r\n'=ok;sub\\b.flac;1;2\r\n",
    "start_seconds\tend_seconds\tsource\ttext\n1\t2\tsub/b.flac\tthree words here\n",
]
SUBTITLES = [
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> &amp; you.\n\n"
    "2\n00:00:02,600 --> 00:00:04,000\n{\\an8}- Привет.\n- [door] Да!\n\n"
    "3\n100:00:05,000 --> 100:00:06,000\nLate.\n",
    "WEBVTT - talk\nKind: captions\n\nNOTE no\n\nSTYLE\n::cue { color: red }\n\n"
    "intro\n00:01.000 --> 00:02.000 align:start position:0%\nhello<00:00:01.500><c> world</c>\n\n"
    "00:02.000 --> 00:02.010\nhello world\n\n"
    "00:02.010 --> 01:00:04.000\nhello world\n<v Anna>next<00:00:03.000><c> line</c>\n",
]
METADATA = [
    "a|It cost $5.|It cost five dollars.\nsub/b|“Quoted”|\nПривет мир|Да.\nc.wav|x|y\n",
    "audio_file|text|speaker_name\nsub/c.wav|Hello there.|anna\n",
]

# --- readers: bytes to the number of things read, and the problems told

Read = Callable[[bytes, Random], tuple[list[Any], list[TextProblem]]]
NAMES = Names(RECORDINGS)
KNOWN_CLIPS: list[Clip] = read_clips(MemoryFile("clips", {f"clips/{CLIPS_FILE}": CLIPS}))


def _manifest(data: bytes, random: Random) -> tuple[list[Any], list[TextProblem]]:
    """The manifest is spoilt, or, one time in eight, the card."""
    card = json.dumps(CARD).encode()
    if random.random() < 0.125:
        card, data = mutate(card, random), VALID["manifest"][0]
    files = {f"d/{CARD_FILE}": card, f"d/{MANIFEST_FILE}": data}
    dataset = Dataset.open(MemoryFile("d", files))
    return [row.as_dict() for row in dataset.rows()], []


def _clips(data: bytes, _random: Random) -> tuple[list[Any], list[TextProblem]]:
    clips = read_clips(MemoryFile("clips", {f"clips/{CLIPS_FILE}": data}))
    match_given(TEXTS, clips)
    return [asdict(clip) for clip in clips], []


def _transcripts(data: bytes, _random: Random) -> tuple[list[Any], list[TextProblem]]:
    rows = read_transcripts(MemoryFile("t", {"t": data}))
    return [asdict(row) for row in rows.values()], []


def _texts(data: bytes, _random: Random) -> tuple[list[Any], list[TextProblem]]:
    texts = read_texts(MemoryFile("t", {"t": data}))
    return [asdict(text) for text in texts], match_given(texts, KNOWN_CLIPS).problems


def _sidecar(take: Callable[[bytes, str, Names], Found], where: str) -> Read:
    """Read, match with clips, and write what was read as the segment stage does."""

    def read(data: bytes, _random: Random) -> tuple[list[Any], list[TextProblem]]:
        try:
            texts, problems = take(data, where, NAMES)
        except TextError as error:
            return [], [TextProblem(where, error.reason, error.detail)]
        rows = [asdict(text) for text in texts]
        for row in rows:
            take_text(row, where)
        return rows, problems + match_given(texts, KNOWN_CLIPS).problems

    return read


VALID: dict[str, list[bytes]] = {
    "manifest": [_lines([_row(number) for number in range(3)])],
    "clips": [CLIPS],
    "transcripts": [_lines([_transcript(number) for number in range(3)])],
    "given texts": [_lines([asdict(text) for text in TEXTS])],
    "corrections": [text.encode() for text in CORRECTIONS],
    "subtitles": [text.encode() for text in SUBTITLES],
    "metadata": [text.encode() for text in METADATA],
    "text": ["Hello, “you”.\r\nПривет, мир!\n".encode()],
}
READERS: dict[str, Read] = {
    "manifest": _manifest,
    "clips": _clips,
    "transcripts": _transcripts,
    "given texts": _texts,
    "corrections": _sidecar(take_corrections, "corrections.csv"),
    "subtitles": _sidecar(take_subtitles, "sub/b.srt"),
    "metadata": _sidecar(take_metadata, "metadata.csv"),
    "text": _sidecar(take_text_file, "a.txt"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input; ``crash`` says what went wrong."""

    kind: str
    seconds: float
    crash: str | None = None


def read_one(reader: str, number: int) -> Outcome:
    """Make the input of a number and read it."""
    random = Random(number)
    valid = VALID[reader]
    data = mutate(valid[number % len(valid)], random)
    started = time.process_time()
    try:
        rows, problems = READERS[reader](data, random)
        kind = "told" if problems else "accepted"
        _check(rows, problems)
    except PipelineError as error:
        kind = "refused" if error.message and error.hint else "crash"
    except Exception:
        return Outcome("crash", time.process_time() - started, traceback.format_exc(limit=-3))
    seconds = time.process_time() - started
    if seconds > SLOWEST_SECONDS:
        return Outcome("crash", seconds, f"took {seconds:.1f} s of CPU for {len(data)} bytes")
    return Outcome(kind, seconds)


def _check(rows: list[Any], problems: list[TextProblem]) -> None:
    """What was accepted can be written and sent on; what was told can be explained."""
    json.dumps(rows, ensure_ascii=False, allow_nan=False).encode()
    for row in rows:
        for value in row.values():
            assert not isinstance(value, int) or math.isfinite(1e6 * value)
    for problem in problems:
        assert problem.reason in PROBLEMS
        str(problem).encode()


def fuzz(reader: str, start: int, inputs: int) -> tuple[Counter[str], float, float]:
    """Counts by outcome, CPU seconds of reading in all, and of the slowest input."""
    counts: Counter[str] = Counter()
    total = slowest = 0.0
    for number in range(start, start + inputs):
        outcome = read_one(reader, number)
        counts[outcome.kind] += 1
        total += outcome.seconds
        slowest = max(slowest, outcome.seconds)
        if outcome.crash and counts["crash"] <= SHOWN_CRASHES:
            print(f"{reader}, input {number}:\n{outcome.crash}", file=sys.stderr, flush=True)
        if (number - start) % 20_000 == 19_999:
            print(f"{reader}: {number - start + 1}", file=sys.stderr, flush=True)
    return counts, total, slowest


def main() -> int:
    """Print a row per reader."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for each reader")
    parser.add_argument("--only", choices=list(READERS), action="append", help="repeatable")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args()
    print("| reader | inputs | accepted | told | refused | crashes | µs each | slowest ms |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    crashes = 0
    for reader in arguments.only or READERS:
        counts, seconds, slowest = fuzz(reader, arguments.start, arguments.inputs)
        crashes += counts["crash"]
        shares = " | ".join(str(counts[kind]) for kind in ("accepted", "told", "refused", "crash"))
        each = 1e6 * seconds / max(1, arguments.inputs)
        print(
            f"| {reader} | {arguments.inputs} | {shares} | {each:.0f} | {slowest * 1e3:.0f} |",
            flush=True,
        )
    print(f"must: no crash – {'missed' if crashes else 'held'}")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
