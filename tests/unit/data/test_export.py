"""Exports, read back by readers that are not ours."""

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest
import soundfile

from kamerton.cli.main import exit_code
from kamerton.core.errors import InputCorruptError, InputEmptyError, UsageError
from kamerton.data.export import Wish, export_dataset
from kamerton.data.manifest import SPLITS, Dataset
from kamerton.stages.dataset import dataset
from tests.clip_folder import ClipFolder, sentence, small_blocks

AWKWARD = ['He said: "no", | twice\nand left, 5 times', "“A” , b; 'c'|d\te", "Ça — 7 €"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice")
    clips = ClipFolder(folder)
    for number in range(12):
        clips.add(f"{sentence(number)} {AWKWARD[number % 3]}", seconds=3.5)
    paths = clips.save()
    params = small_blocks(name="anna", licence="CC0-1.0", description="Read at home.")
    dataset(*paths, folder / "dataset", folder / "page.html", params)
    return Dataset.open(folder / "dataset")


def export(made, output, form, **options):
    return export_dataset(made.path, output, Wish(form, **options))


def pcm(path):
    samples, rate_hz = soundfile.read(path, dtype="int16")
    return samples, rate_hz


def same_samples(made, row, path):
    wave, rate_hz = made.audio(row)
    samples, exported_hz = pcm(path)
    np.testing.assert_array_equal(samples, np.rint(wave * 32768.0).astype(np.int16))
    assert rate_hz == exported_hz


def ljspeech_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE))


def test_ljspeech_gives_the_same_texts_and_samples(made, tmp_path):
    done = export(made, tmp_path / "out", "ljspeech")
    lines = ljspeech_rows(tmp_path / "out" / "metadata.csv")
    assert [line[0] for line in lines] == [row.id for row in made.rows()]
    for line, row in zip(lines, made.rows(), strict=True):
        assert line[1:] == [
            " ".join(text.replace("|", " ").split()) for text in (row.text_raw, row.text)
        ]
        same_samples(made, row, tmp_path / "out" / "wavs" / f"{row.id}.wav")
    by_split = [ljspeech_rows(tmp_path / "out" / f"metadata_{split}.csv") for split in SPLITS]
    assert sorted(line for part in by_split for line in part) == sorted(lines)
    assert done.clips == len(os.listdir(tmp_path / "out" / "wavs")) == 12


@pytest.mark.parametrize("root", [None, "/data/anna/"])
def test_nemo_gives_the_same_texts_and_samples(made, tmp_path, root):
    export(made, tmp_path / "out", "nemo", audio_root=root)
    for split in SPLITS:
        table = pd.read_json(tmp_path / "out" / f"{split}_manifest.json", lines=True)
        rows = made.rows(split)
        assert list(table["text"]) == [row.text_raw for row in rows]
        assert list(table["normalized_text"]) == [row.text for row in rows]
        assert list(table["duration"]) == [row.duration_seconds for row in rows]
        assert set(table["speaker"]) == {0}
        for name, row in zip(table["audio_filepath"], rows, strict=True):
            assert name == f"{root or ''}audio/{row.id}.wav"
            same_samples(made, row, tmp_path / "out" / "audio" / f"{row.id}.wav")


def test_an_audiofolder_gives_the_same_texts_and_samples(made, tmp_path):
    export(made, tmp_path / "out", "hf-audiofolder", sound="flac")
    for split, name in zip(SPLITS, ("train", "validation", "test"), strict=True):
        table = pd.read_csv(tmp_path / "out" / name / "metadata.csv", keep_default_na=False)
        rows = made.rows(split)
        assert list(table["transcription"]) == [row.text_raw for row in rows]
        assert list(table["normalized_text"]) == [row.text for row in rows]
        for file, row in zip(table["file_name"], rows, strict=True):
            same_samples(made, row, tmp_path / "out" / name / file)
            assert (tmp_path / "out" / name / file).read_bytes() == made.audio_bytes(row)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert card.startswith('---\npretty_name: "anna"\nlanguage:\n- "en"\n')


def test_the_card_says_where_it_came_from(made, tmp_path):
    export(made, tmp_path / "out", "ljspeech", splits=("test",))
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert made.card["content_sha256"] in card
    assert "licence: CC0-1.0" in card
    assert "Read at home." in card
    assert "train" not in card


def test_one_split_alone(made, tmp_path):
    done = export(made, tmp_path / "out", "nemo", splits=("val",))
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "audio", "val_manifest.json"]
    assert done.clips == len(made.rows("val"))


@pytest.mark.parametrize("sound", ["wav", "flac"])
def test_another_rate_is_the_same_sound(made, tmp_path, sound):
    done = export(made, tmp_path / "out", "ljspeech", rate_hz=8000, sound=sound)
    assert done.sample_rate_hz == 8000
    row = made.rows()[0]
    samples, rate_hz = pcm(tmp_path / "out" / "wavs" / f"{row.id}.{sound}")
    assert rate_hz == 8000
    wave, original_hz = made.audio(row)
    assert len(samples) == pytest.approx(len(wave) * 8000 / original_hz, abs=1)
    # Below 3 kHz, where no filter reaches, both spectra agree.
    low = np.abs(np.fft.rfft(wave))[: round(3000 * len(wave) / original_hz)]
    new = np.abs(np.fft.rfft(samples / 32768.0))[: len(low)] * len(wave) / len(samples)
    assert np.linalg.norm(new - low) < 0.02 * np.linalg.norm(low)


def test_equal_exports_are_equal_bytes(made, tmp_path):
    for name in ("one", "two"):
        export(made, tmp_path / name, "hf-audiofolder")
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 12 + 3 + 1
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes()
               for f in files)  # fmt: skip


def test_what_stands_in_the_way_is_said(made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export(made, tmp_path / "out", "nemo")
    with pytest.raises(UsageError, match=r"lies in .*which is read"):
        export(made, made.path / "out", "nemo")
    with pytest.raises(UsageError, match="1000 Hz is no rate"):
        export(made, tmp_path / "new", "nemo", rate_hz=1000)
    with pytest.raises(InputEmptyError):
        export(made, tmp_path / "new", "nemo", splits=())
    assert not (tmp_path / "new").exists()


def test_a_damaged_clip_leaves_no_half_export(made, tmp_path, monkeypatch):
    real, calls = Dataset.audio, []

    def fail_at_the_third(self, row):
        calls.append(row)
        if len(calls) == 3:
            raise InputCorruptError("here", problem="is damaged", hint="mend it")
        return real(self, row)

    monkeypatch.setattr(Dataset, "audio", fail_at_the_third)
    with pytest.raises(InputCorruptError):
        export(made, tmp_path / "out", "ljspeech")
    assert list(tmp_path.iterdir()) == []


def test_the_command(made, tmp_path, capsys):
    common = ["export", "--dataset", str(made.path), "-o", str(tmp_path / "out"), "-q"]
    wanted = ["--format", "nemo", "--split", "val", "--split", "test", "--rate", "8000", "--json"]
    assert exit_code([*common, *wanted]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["clips"] == len(made.rows("val")) + len(made.rows("test"))
    assert told["sample_rate_hz"] == 8000
    assert exit_code(common) == 2, "it exists"
    assert exit_code([*common, "--force"]) == 0
    assert (tmp_path / "out" / "metadata.csv").is_file()
    assert exit_code([*common, "--format", "vorbis"]) == 2
    assert (
        exit_code(["export", "--dataset", str(tmp_path / "none"), "-o", str(tmp_path / "x")]) == 4
    )
