import json
import pickle

import numpy as np
import pytest

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.data.manifest import SPLITS, Dataset, Row
from tests.clip_folder import RATE_HZ, hum, make_dataset, read_lines, write_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("voice"), clips=9)


@pytest.fixture
def broken(made, tmp_path):
    """A copy of the tables (not the sound) to be damaged."""
    for name in ("dataset.json", "manifest.jsonl"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path


def test_rows_by_split_cover_all(made):
    opened = Dataset.open(made)
    assert sorted(row.id for split in SPLITS for row in opened.rows(split)) == sorted(
        row.id for row in opened.rows()
    )
    assert len(opened.rows()) == 9


def test_sound_comes_back_as_it_went_in(made):
    opened = Dataset.open(made)
    row = next(row for row in opened.rows() if row.id == f"{4:016x}")
    wave, rate_hz = opened.audio(row)
    assert rate_hz == row.sample_rate_hz == RATE_HZ
    assert wave.dtype == np.float32
    assert len(wave) / rate_hz == row.duration_seconds
    np.testing.assert_allclose(wave, hum(2.0, 110.0 + 3.0 * 4, seed=4), atol=1 / 32768)


def test_a_row_survives_its_line(made):
    row = Dataset.open(made).rows()[0]
    assert Row.from_dict(json.loads(json.dumps(row.as_dict())), "here") == row


def test_keys_of_later_versions_are_passed_over(made):
    row = Dataset.open(made).rows()[0]
    assert Row.from_dict(row.as_dict() | {"mood": "calm"}, "here") == row


def test_a_dataset_can_be_sent_to_worker_processes(made):
    opened = pickle.loads(pickle.dumps(Dataset.open(made)))
    assert len(opened.audio(opened.rows()[0])[0]) > 0


def test_no_dataset(tmp_path):
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        Dataset.open(tmp_path / "dataset")
    with pytest.raises(InputMissingError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("text", None, "text is None"),
        ("offset_bytes", 1.5, "offset_bytes is 1.5"),
        ("duration_seconds", True, "duration_seconds is True"),
        ("split", "dev", "split is 'dev'"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(broken, key, value, problem):
    rows = read_lines(broken / "manifest.jsonl")
    rows[2][key] = value
    write_lines(broken / "manifest.jsonl", rows)
    with pytest.raises(InputCorruptError, match=problem) as caught:
        Dataset.open(broken)
    assert "manifest.jsonl:3" in str(caught.value)


def test_a_missing_value_is_named(broken):
    rows = read_lines(broken / "manifest.jsonl")
    del rows[0]["shard"]
    write_lines(broken / "manifest.jsonl", rows)
    with pytest.raises(InputCorruptError, match="has no 'shard'"):
        Dataset.open(broken)


def test_rows_and_card_must_agree(broken):
    write_lines(broken / "manifest.jsonl", read_lines(broken / "manifest.jsonl")[:-1])
    with pytest.raises(InputCorruptError, match="8 rows where the card counts 9"):
        Dataset.open(broken)


def test_a_card_without_its_keys_is_corrupt(broken):
    (broken / "dataset.json").write_text("{}")
    with pytest.raises(InputCorruptError, match="has no 'clips'"):
        Dataset.open(broken)


def test_missing_sound_is_noticed_when_it_is_asked_for(broken):
    opened = Dataset.open(broken)
    with pytest.raises(InputMissingError, match=r"speaker-[0-9a-f]{16}\.tar"):
        opened.audio(opened.rows()[0])


def test_a_wrong_place_in_a_shard_is_no_sound(made, broken):
    rows = read_lines(broken / "manifest.jsonl")
    rows[0]["offset_bytes"] += 7
    write_lines(broken / "manifest.jsonl", rows)
    (broken / "shards").symlink_to(made / "shards")
    opened = Dataset.open(broken)
    with pytest.raises(InputCorruptError, match=f"clip {rows[0]['id']}.*cannot be decoded"):
        opened.audio(opened.rows()[0])
