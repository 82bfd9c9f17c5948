"""Every input of the malformed corpus ends in its reason, and the good recordings in clips."""

import json
import os
import re

import pytest

from kamerton.cli import main
from kamerton.config.schema import Params
from kamerton.data.segmentation import segment_source
from tests import malformed_corpus as corpus
from tests.malformed_files import put, wav

POSSIBLE = [entry for entry in corpus.ALL if corpus.possible(entry)]


class Outcome:
    """One run of `kamerton segment` over the corpus, in a project without ffmpeg."""

    def __init__(self, project):
        self.project = project
        self.code = main.exit_code(
            [
                *("segment", "--quiet", "--recordings", "raw", "--clips", "clips"),
                *("--report", "segment.html", "--workers", "1", "-S", "segment.detector=energy"),
            ]
        )
        self.sources = {row["source"]: row for row in self._rows("sources.jsonl")}
        self.clips = self._rows("clips.jsonl")

    def _rows(self, name):
        text = (self.project / "clips" / name).read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def kept(self, source):
        return [c for c in self.clips if c["source"] == source and c["status"] == "kept"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    project = tmp_path_factory.mktemp("malformed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PATH", str(project / "no programs"))
        corpus.write_corpus(project / "raw")
        yield Outcome(project)
        corpus.remove_corpus(project / "raw")


def test_the_corpus_is_large_and_each_input_is_another():
    names = [entry.name for entry in corpus.ALL]
    assert len(set(names)) == len(names) >= 120
    assert sum(entry.status == corpus.SKIPPED for entry in corpus.ALL) >= 60


def test_the_exit_code_says_partial(outcome):
    assert outcome.code == 7


@pytest.mark.parametrize("entry", POSSIBLE, ids=lambda entry: ascii(entry.name)[-60:])
def test_each_input_ends_as_it_must(outcome, entry):
    name = corpus.name_in_report(entry)
    if entry.status == corpus.IGNORED:
        assert name not in outcome.sources
        return
    row = outcome.sources[name]
    assert row["status"] == entry.status, row["reasons"]
    code = row["reasons"][0].partition(":")[0] if row["reasons"] else ""
    assert code in (entry.reasons or {""}), row["reasons"]
    if entry.status == corpus.SKIPPED:
        assert not any(clip["source"] == name for clip in outcome.clips)
    elif entry.clips:
        assert outcome.kept(name)


def test_good_recordings_are_processed(outcome):
    for name in corpus.GOOD:
        assert outcome.sources[name]["status"] == "read"
        assert outcome.sources[name]["reasons"] == []
        assert outcome.kept(name)


def test_nothing_else_is_reported_or_left(outcome):
    expected = {corpus.name_in_report(entry) for entry in POSSIBLE if entry.status != "ignored"}
    assert set(outcome.sources) == expected | set(corpus.GOOD)
    left = {path.name for path in outcome.project.iterdir()} - {"raw", ".kamerton"}
    assert left == {"clips", "segment.html"}
    tars = {path.name for path in (outcome.project / "clips" / "audio").iterdir()}
    assert tars == {f"{clip['source_sha256'][:16]}.tar" for clip in outcome.clips if clip["file"]}


def test_reasons_are_the_same_on_every_machine(outcome):
    for row in outcome.sources.values():
        text = " ".join(row["reasons"])
        assert str(outcome.project) not in text
        assert not re.search("0x[0-9a-f]{6}", text), text


def test_the_page_names_what_was_left_out(outcome):
    page = (outcome.project / "segment.html").read_text("utf-8")
    for text in ("needs_ffmpeg", "truncated", "Git LFS pointer", "too_short", "damaged"):
        assert text in page
    assert "<b>'\"" not in page, "names are escaped"


def test_a_recording_that_shrinks_while_it_is_read_is_skipped(tmp_path):
    path = tmp_path / "a.wav"
    put(lambda: wav(1))(path)
    params = Params.model_validate({"segment": {"detector": "energy"}})

    def shrink(_seconds):
        os.truncate(path, 60_000)

    with pytest.raises(Exception, match="changed_while_reading"):
        segment_source(path, "00", params.segment, params.audio, emit=lambda *_: None, tick=shrink)
