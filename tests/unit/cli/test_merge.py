import json
import os
import time

import pytest

from kamerton.cli import main
from tests.clip_folder import read_lines, write_lines
from tests.recordings import bursts, paced, write_sound

SET = ["-S", "segment.detector=energy", "-S", "segment.target_seconds=2.0", "--workers", "1"]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two recordings, each cut as one of two parts."""
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        spans, seconds = paced([1.6, 1.9], [0.5] * 3)
        write_sound(tmp_path / f"raw/r{seed}.wav", bursts(spans, seconds, 16_000, seed), 16_000)
    for index in range(2):
        names = ["--recordings", "raw", "--clips", f"parts/{index}", "--report", f"{index}.html"]
        assert main.exit_code(["segment", *names, *SET, "--shard", f"{index}/2", "-q"]) == 0
    return ["--clips", "parts/0", "--clips", "parts/1"]


def test_parts_are_joined_and_reported(parts, tmp_path, capsys):
    assert main.exit_code(["merge", *parts, "-o", "data/clips", "--report", "all.html"]) == 0
    assert "4 read" in capsys.readouterr().out
    rows = read_lines(tmp_path / "data/clips/clips.jsonl")
    assert [row["source"] for row in rows] == [f"r{n}.wav" for n in range(4) for _ in range(2)]
    assert "4 of 4" in (tmp_path / "all.html").read_text()
    assert main.exit_code(["merge", *parts, "-o", "data/clips"]) == 2
    capsys.readouterr()
    assert main.exit_code(["merge", *parts, "-o", "data/clips", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["clips"] == 8

    for index in range(2):
        kept = [row["id"] for row in read_lines(tmp_path / f"parts/{index}/clips.jsonl")]
        row = {"text": "a", "language": "en", "avg_logprob": None, "origin": "given"}
        row |= {"status": "kept", "reasons": []}
        write_lines(tmp_path / f"t{index}.jsonl", [{"id": clip_id, **row} for clip_id in kept])
    both = ["--transcripts", "t0.jsonl", "--transcripts", "t1.jsonl"]
    assert main.exit_code(["merge", *both, "-o", "t.jsonl"]) == 0
    assert [row["id"] for row in read_lines(tmp_path / "t.jsonl")] == [row["id"] for row in rows]
    assert main.exit_code(["merge", *both, *parts, "-o", "u.jsonl"]) == 2
    assert "the merged one" in capsys.readouterr().err
    assert main.exit_code(["merge", *both[:2], "-o", "u.jsonl"]) == 2
    assert "have no transcript" in capsys.readouterr().err


def test_nothing_to_merge_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.exit_code(["merge", "-o", "clips"]) == 2
    assert "--clips FOLDER" in capsys.readouterr().err
    assert main.exit_code(["merge", "--clips", "nowhere", "-o", "clips"]) == 4
    assert not (tmp_path / "clips").exists()


def test_finished_work_is_shown_and_pruned(parts, tmp_path, capsys):
    capsys.readouterr()
    assert main.exit_code(["cache", "show"]) == 0
    assert "segment  4 results" in capsys.readouterr().out
    assert main.exit_code(["cache", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segment"]["entries"] == 4
    assert main.exit_code(["cache", "prune"]) == 0
    assert "removed  0 results" in capsys.readouterr().out
    for entry in (tmp_path / ".kamerton/segment").glob("*/*"):
        os.utime(entry, (0, time.time() - 2 * 3600))  # what was used within the hour stays
    assert main.exit_code(["cache", "prune", "--unused-days", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 4}
    assert main.exit_code(["cache", "show"]) == 0
    assert "empty" in capsys.readouterr().out
    assert list((tmp_path / "parts/0/audio").iterdir())
    assert main.exit_code(["cache", "show", "--cache", "nowhere"]) == 4
    assert "--cache" in capsys.readouterr().err


def test_a_wrong_shard_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    assert main.exit_code(["segment", "--shard", "2/2"]) == 2
    assert "--shard 0/3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "segment --recordings raw --clips raw --report r.html",
        "segment --recordings raw --clips . --report r.html",
        "segment --recordings raw --clips raw/clips --report r.html",
        "segment --recordings raw --clips new --report raw",
        "transcribe --clips parts/0 --transcripts parts",
        "dataset --clips parts/0 --transcripts raw/r0.wav --dataset parts --report r.html",
        "analyze --dataset parts/0 --analysis parts/0 --report r.html",
        "train --dataset parts/0 --analysis a --best-params b --model parts --report r.html",
        "merge --clips parts/0 --clips parts/1 -o parts",
        "merge --clips parts/0 --clips parts/1 -o parts/1",
        "merge --transcripts raw/r0.wav --clips parts/0 -o raw/r0.wav",
        "export --dataset parts/0 -o parts --format nemo",
    ],
)
def test_force_never_replaces_what_is_read(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    for name in ("raw/r0.wav", "parts/0/clips.jsonl", "parts/1/clips.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main.exit_code([*words.split(), "--force"]) == 2
    assert "which is read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
