"""What becomes of malformed and odd recordings: a table of every input and its reason.

    python -m benchmarks.malformed

Makes the corpus of the tests in a temporary folder, runs `kamerton segment` over it as a user
would, and ends with 1 unless every input ends as it must, the good recordings become clips, and the
exit code says that the result is partial. The energy detector listens: the network does not take
these synthetic voices for speech.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests import malformed_corpus as corpus

PARTIAL = 7


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _without_ffmpeg() -> str:
    """The search path without folders that hold ffmpeg, whose answers depend on its version."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not Path(folder, "ffmpeg").exists())


def _verdict(entry: Any, row: dict[str, Any] | None, kept: int) -> tuple[bool, str, str]:
    """Whether it ended as it must, what became of it, and why."""
    if row is None:
        return entry.status == corpus.IGNORED, "ignored", ""
    reasons = "; ".join(row["reasons"])
    code = reasons.partition(":")[0]
    right = row["status"] == entry.status and code in (entry.reasons or {""})
    return right and (kept > 0 or not entry.clips), row["status"], reasons


def _cell(text: str) -> str:
    shown = text.encode("unicode_escape").decode() if not text.isprintable() else text
    shown = shown if len(shown) <= 60 else f"{shown[:28]}…{shown[-28:]}"
    return shown.replace("|", "\\|")


def main() -> int:
    """Print the table; 0 if all is as it must be."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        print("making the corpus ...", file=sys.stderr)
        made = corpus.write_corpus(project / "raw")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "kamerton", "segment", "--quiet"),
                *("--recordings", "raw", "--clips", "clips", "--report", "segment.html"),
                *("-S", "segment.detector=energy"),
            ],
            cwd=project, env={**os.environ, "PATH": _without_ffmpeg()}, check=False,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        sources = {row["source"]: row for row in _rows(project / "clips" / "sources.jsonl")}
        clips = _rows(project / "clips" / "clips.jsonl")
        corpus.remove_corpus(project / "raw")
    kept = Counter(clip["source"] for clip in clips if clip["status"] == "kept")
    print("| input | became | clips | reason | as it must |\n| --- | --- | ---: | --- | --- |")
    wrong = 0
    for entry in made:
        source = corpus.name_in_report(entry)
        right, became, reasons = _verdict(entry, sources.get(source), kept[source])
        wrong += not right
        cells = (_cell(source), became, str(kept[source]), reasons.replace("|", "\\|"))
        print(f"| {' | '.join(cells)} | {'yes' if right else 'NO'} |")
    good = sum(kept[name] > 0 for name in corpus.GOOD)
    print(
        f"\n{len(made)} inputs, {wrong} end otherwise than they must; {good} of "
        f"{len(corpus.GOOD)} good recordings became clips; exit code {done.returncode}"
    )
    return int(wrong > 0 or good < len(corpus.GOOD) or done.returncode != PARTIAL)


if __name__ == "__main__":
    sys.exit(main())
