import shutil

import pytest

from kamerton.core.errors import InputCorruptError
from kamerton.data.manifest import Dataset
from kamerton.data.validation import validate_dataset
from tests.clip_folder import make_dataset, read_lines, write_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("voice"), clips=9)


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "dataset")


def test_a_sound_dataset_is_valid(made):
    result = validate_dataset(made)
    assert result["state"] == "valid"
    assert result["clips"] == 9
    assert result["train"] + result["val"] + result["test"] == 9


def test_other_sound_under_the_same_row_is_found(copied):
    rows = read_lines(copied / "manifest.jsonl")
    one, other = rows[0], rows[1]
    for key in ("shard", "offset_bytes", "size_bytes"):
        one[key] = other[key]
    write_lines(copied / "manifest.jsonl", rows)
    with pytest.raises(InputCorruptError, match="hash of"):
        validate_dataset(copied)


def test_a_row_that_changed_its_split_is_found(copied):
    rows = read_lines(copied / "manifest.jsonl")
    row = next(row for row in rows if row["split"] == "train")
    row["split"] = "test"
    write_lines(copied / "manifest.jsonl", rows)
    assert len(Dataset.open(copied).rows()) == 9
    with pytest.raises(InputCorruptError, match="content hash"):
        validate_dataset(copied)
