"""Datasets of several speakers: one folder of recordings each."""

import json
from dataclasses import replace

import pytest

from kamerton.config.schema import DatasetParams
from kamerton.data.card import content_sha256
from kamerton.data.duplicates import Candidate, find_duplicates
from kamerton.data.export import Wish, export_dataset
from kamerton.data.manifest import Dataset
from kamerton.data.recordings import speaker_of
from kamerton.data.validation import check_dataset
from kamerton.stages.dataset import dataset
from tests.clip_folder import corpus, hum, small_blocks

SOURCES = ("anna/a.wav", "anna/deep/er.wav", "boris/a.wav", "loose.wav")


def build(made, name, **params):
    path = made.folder / name
    settings = small_blocks(speaker="nobody", **params)
    dataset(made.clips_path, made.transcripts_path, path, made.folder / f"{name}.html", settings)
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    made = corpus(tmp_path_factory.mktemp("corpus"), clips=24, sources=SOURCES)
    return build(made, "several", speaker_by_folder=True)


@pytest.mark.parametrize(
    ("source", "speaker"),
    [("anna/a.wav", "anna"), ("anna/deep/er.wav", "anna"), ("Анна/a.wav", "Анна"),
     ("loose.wav", "nobody")],
)  # fmt: skip
def test_the_first_folder_names_the_speaker(source, speaker):
    params = DatasetParams(speaker="nobody", speaker_by_folder=True)
    assert speaker_of(source, params) == speaker
    assert speaker_of(source, DatasetParams(speaker="nobody")) == "nobody"


def test_rows_and_card_name_them(several):
    opened = Dataset.open(several)
    by_source = {row.source: row.speaker for row in opened.rows()}
    assert by_source == dict(zip(SOURCES, ("anna", "anna", "boris", "nobody"), strict=True))
    assert opened.card["speakers"] == ["anna", "boris", "nobody"]
    assert "anna, boris, nobody" in (several / "README.md").read_text("utf-8")
    check_dataset(several, deep=True)


def test_without_it_all_are_one(tmp_path):
    opened = Dataset.open(build(corpus(tmp_path, clips=24, sources=SOURCES), "one"))
    assert {row.speaker for row in opened.rows()} == {"nobody"}
    assert opened.card["speakers"] == ["nobody"]


def test_who_speaks_is_content(several):
    rows = Dataset.open(several).rows()
    alone = [replace(row, speaker="anna") for row in rows]
    others = [replace(row, speaker=row.speaker.replace("boris", "clara")) for row in rows]
    hashes = [content_sha256(rows) for rows in (rows, others, alone)]
    assert len(set(hashes)) == 3
    # One speaker by any name is the same content.
    assert content_sha256([replace(row, speaker="boris") for row in rows]) == hashes[2]


def test_a_sentence_that_two_speakers_read_is_no_duplicate():
    readings = [
        Candidate(str(number), "the same words", 2.0, f"sound{number}", speaker=speaker)
        for number, speaker in enumerate(("anna", "boris", "anna"))
    ]
    found = find_duplicates(readings, lambda one, other: False)
    assert found == {"2": ("same_text_and_length", "0")}


def test_through_the_stage_too(tmp_path):
    made = corpus(tmp_path, clips=24, sources=SOURCES)
    for number, folder in enumerate(("anna", "boris")):
        wave = hum(2.0, 100.0 + 70.0 * number, seed=99 + number)
        made.add("all of us read this sentence", wave=wave, source=f"{folder}/same.wav")
    made.save()
    read = {
        by_folder: sum(
            row.source.endswith("same.wav")
            for row in Dataset.open(
                build(made, str(by_folder), speaker_by_folder=by_folder)
            ).rows()
        )
        for by_folder in (False, True)
    }  # fmt: skip
    assert read == {False: 1, True: 2}


def test_nemo_numbers_them(several, tmp_path):
    out = tmp_path / "nemo"
    export_dataset(several, out, Wish("nemo"))
    lines = "".join(file.read_text("utf-8") for file in out.glob("*_manifest.json")).splitlines()
    numbers = {
        (rows[row["audio_filepath"].split("/")[1].split(".")[0]], row["speaker"])
        for rows in [{row.id: row.speaker for row in Dataset.open(several).rows()}]
        for row in map(json.loads, lines)
    }
    assert numbers == {("anna", 0), ("boris", 1), ("nobody", 2)}
