import json

from kamerton.demo.table import _clips


def test_what_the_cutting_refused_is_counted_once(tmp_path):
    clips, dataset = tmp_path / "data/clips", tmp_path / "data/dataset"
    clips.mkdir(parents=True)
    dataset.mkdir()
    rows = [{"status": "kept"}, {"status": "kept"}, {"status": "rejected", "reasons": ["low_snr"]}]
    (clips / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = {
        "clips": 1,
        "hours": 0.5,
        "splits": {"train": {"clips": 1}},
        "rejected": {"low_snr": 1, "too_fast": 1},  # of all stages, as the dataset's card has it
    }
    (dataset / "dataset.json").write_text(json.dumps(card))
    assert dict(_clips(tmp_path))["clips"] == "1 kept, 2 dropped (low_snr 1, too_fast 1)"
