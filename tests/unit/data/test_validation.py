import json
import shutil

import pytest

from kamerton.core.errors import InputMissingError
from kamerton.data.validation import check_dataset
from tests.clip_folder import make_dataset, read_lines, write_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("voice"), clips=9)


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "dataset")


def change(folder, number, **values):
    rows = read_lines(folder / "manifest.jsonl")
    rows[number] |= values
    write_lines(folder / "manifest.jsonl", rows)
    return rows


def all_problems(folder, **options):
    return "\n".join(check_dataset(folder, **options).problems)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_dataset_is_valid(made, deep):
    found = check_dataset(made, deep=deep)
    assert found.problems == ()
    card = json.loads((made / "dataset.json").read_text("utf-8"))
    assert found.clips == 9
    assert found.hours == card["hours"]
    assert found.content_sha256 == card["content_sha256"]
    assert found.as_dict()["state"] == "valid"


def test_no_dataset(tmp_path):
    with pytest.raises(InputMissingError, match="'dataset' stage"):
        check_dataset(tmp_path)


def test_other_sound_under_the_same_row_is_found(copied):
    other = read_lines(copied / "manifest.jsonl")[1]
    place = {key: other[key] for key in ("shard", "offset_bytes", "size_bytes")}
    rows = change(copied, 0, **place)
    assert f"clip {rows[1]['id']}: its place in {rows[1]['shard']} overlaps" in all_problems(copied)
    assert f"clip {rows[0]['id']}: its sound is not the one" in all_problems(copied, deep=True)


def test_a_flipped_bit_in_a_shard_is_found_by_the_deep_check_only(copied):
    rows = read_lines(copied / "manifest.jsonl")
    shard = copied / "shards" / rows[4]["shard"]
    data = bytearray(shard.read_bytes())
    data[rows[4]["offset_bytes"] + rows[4]["size_bytes"] // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert check_dataset(copied).problems == ()
    (problem,) = check_dataset(copied, deep=True).problems
    assert rows[4]["id"] in problem


def test_a_row_that_changed_its_split_is_found(copied):
    rows = read_lines(copied / "manifest.jsonl")
    change(copied, next(n for n, row in enumerate(rows) if row["split"] == "train"), split="test")
    problems = all_problems(copied)
    assert "content_sha256" in problems
    assert "train.jsonl does not hold" in problems
    assert "test.jsonl does not hold" in problems


@pytest.mark.parametrize("text", ["the same", "The same!"])
def test_words_in_two_splits_are_found(copied, text):
    rows = read_lines(copied / "manifest.jsonl")
    test = next(n for n, row in enumerate(rows) if row["split"] == "test")
    train = next(n for n, row in enumerate(rows) if row["split"] == "train")
    change(copied, test, text=text)
    change(copied, train, text="the same")
    assert ": the same words as clip" in all_problems(copied)


def test_sound_in_two_splits_is_found(copied):
    rows = read_lines(copied / "manifest.jsonl")
    test = next(n for n, row in enumerate(rows) if row["split"] == "test")
    train = next(n for n, row in enumerate(rows) if row["split"] == "train")
    change(copied, test, audio_sha256=rows[train]["audio_sha256"])
    assert ": the same sound as clip" in all_problems(copied)


def test_all_problems_are_listed(copied):
    lines = (copied / "manifest.jsonl").read_text("utf-8").splitlines()
    lines[0] = "{not json"
    lines[1] = "[]"
    lines[2] = json.dumps(json.loads(lines[2]) | {"text": None})
    lines[3] = json.dumps(json.loads(lines[3]) | {"text": "日本", "sample_rate_hz": 8000})
    lines.append(lines[5])
    (copied / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    (copied / "shards" / "stray.tar").write_bytes(b"")
    (copied / "metadata.csv").unlink()
    (copied / "rejected.jsonl").write_text("oops\n")
    problems = all_problems(copied, deep=True)
    for part in (
        "manifest.jsonl:1: is no JSON object",
        "manifest.jsonl:2: is no JSON object",
        "manifest.jsonl:3: text is None",
        "symbols that dataset.json does not list: ['日', '本']",
        "is at 8000 Hz, unlike dataset.json",
        "its sound is at 16000 Hz, not 8000",
        "stands twice in manifest.jsonl",
        "manifest.jsonl has clips 7, dataset.json says 9",
        "hours",
        "shards/stray.tar: no clip is in it",
        "metadata.csv does not hold",
        "rejected.jsonl has a line that is no JSON object",
    ):
        assert part in problems


def test_shards_that_are_gone_or_cut_off_are_found_without_reading_them(copied):
    shard = next((copied / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-3000])
    assert f"shards/{shard.name}: ends before its last clip does" in all_problems(copied)
    shard.unlink()
    assert f"shards/{shard.name}: is not there" in all_problems(copied)
    assert "does not exist" in all_problems(copied, deep=True)


def test_a_card_without_its_keys_is_a_problem(copied):
    (copied / "dataset.json").write_text("{}")
    assert "dataset.json has no 'clips'" in all_problems(copied)
