"""The scorecard: what its numbers are made of, and that it survives its file."""

import json

import pytest

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import write_json, write_jsonl
from kamerton.evaluation.scorecard import (
    METRICS_FILE,
    UTTERANCES_FILE,
    Scorecard,
    eval_set_hash,
    read_utterances,
)
from tests.evaluations import scorecard, utterance

ROWS = [
    utterance(0, mcd=4.0),
    utterance(1, mcd=6.0, wrong_words=2),
    utterance(2, mcd=None, estoi=None, wrong_words=4, aligned=False),
]


def test_a_failed_measurement_is_left_out_of_the_mean_and_lowers_the_coverage():
    card = scorecard(ROWS)
    assert card.metrics["mcd_dtw"].value == pytest.approx(5.0)
    assert card.metrics["mcd_dtw"].n == 2
    assert card.coverage["mcd_dtw"] == pytest.approx(2 / 3, abs=1e-6)
    assert card.coverage["dur_ratio"] == 1.0


def test_word_errors_are_of_the_whole_set_with_ceiling_and_recordings_beside():
    wer = scorecard(ROWS).metrics["wer"]
    assert wer.value == pytest.approx(6 / 15)
    assert (wer.ceiling, wer.original) == (0.0, 0.0)
    assert wer.low <= wer.value <= wer.high


def test_a_metric_that_never_worked_has_no_value_but_its_ceiling():
    card = scorecard([utterance(index, mcd=None) for index in range(3)])
    score = card.metrics["mcd_dtw"]
    assert (score.value, score.low, score.ceiling, score.n) == (None, None, 2.5, 0)
    assert card.coverage["mcd_dtw"] == 0.0


def test_attention_counts_runaways_as_nothing():
    attention = scorecard(ROWS).attention
    assert attention["aligned_share"] == pytest.approx(2 / 3, abs=1e-6)
    assert attention["diagonality_worst"] == 0.0
    assert attention["runaways"] == 1


def test_sentences_with_more_than_half_wrong_are_counted():
    assert scorecard(ROWS).half_wrong_share == pytest.approx(1 / 3, abs=1e-6)


def test_the_file_gives_the_scorecard_back(tmp_path):
    card = scorecard(ROWS)
    write_json(tmp_path / METRICS_FILE, card.as_dict())
    assert Scorecard.read(tmp_path) == card


def test_equal_rows_give_equal_bytes():
    assert json.dumps(scorecard(ROWS).as_dict()) == json.dumps(scorecard(ROWS).as_dict())


def test_a_missing_scorecard_names_the_stage(tmp_path):
    with pytest.raises(InputMissingError, match="'evaluate' stage"):
        Scorecard.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.update(format_version=99), "format 99"),
        (lambda content: content.pop("metrics"), "KeyError: 'metrics'"),
        (lambda content: content.update(metrics=[1]), "not a scorecard"),
        (lambda content: content["metrics"]["wer"].update(bogus=1), "bogus"),
        (lambda content: content["metrics"]["wer"].update(value="low"), "'low' is not a number"),
        (lambda content: content["coverage"].update(wer=True), "True is not a number"),
        (lambda content: content["bootstrap"].pop("level"), "KeyError: 'level'"),
    ],
)
def test_another_format_is_refused_with_its_fault(tmp_path, change, problem):
    content = scorecard(ROWS).as_dict()
    change(content)
    write_json(tmp_path / METRICS_FILE, content)
    with pytest.raises(InputCorruptError, match=problem):
        Scorecard.read(tmp_path)


def test_the_test_set_is_known_by_its_sentences_and_sounds_not_by_their_order():
    one, two = ("a", "text", "s1"), ("b", "other", "s2")
    assert eval_set_hash([one, two]) == eval_set_hash([two, one])
    assert eval_set_hash([one, two]) != eval_set_hash([one, ("b", "other", "s3")])
    assert eval_set_hash([one, two]) != eval_set_hash([one])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: row.pop("errors"), "KeyError: 'errors'"),
        (lambda row: row["synthesis"].pop("mcd_dtw"), "KeyError: 'mcd_dtw'"),
        (lambda row: row["errors"]["synthesis"].update(words="many"), "not a number"),
        (lambda row: row["synthesis"]["mcd_dtw"].update(value="bad"), "not a number"),
        (lambda row: row.update(synthesis=None), "TypeError"),
    ],
)
def test_a_damaged_row_is_named_by_its_line(tmp_path, change, problem):
    rows = [row.as_dict() for row in ROWS]
    write_jsonl(tmp_path / UTTERANCES_FILE, rows)
    assert read_utterances(tmp_path) == rows
    change(rows[1])
    write_jsonl(tmp_path / UTTERANCES_FILE, rows)
    with pytest.raises(InputCorruptError, match=problem) as caught:
        read_utterances(tmp_path)
    assert "utterances.jsonl:2" in caught.value.message
