"""The page: its order, what it shows, and that what people said cannot become markup."""

import numpy as np
import pytest

from kamerton.config.schema import PromoteParams
from kamerton.evaluation.gates import absolute_gates
from kamerton.evaluation.measure import Sounds
from kamerton.evaluation.report import choose_takes, render_report
from kamerton.evaluation.speaking import Take
from tests.evaluations import AUDIO, scorecard, utterance
from tests.speechlike import speechlike


def take(index, **scores):
    wave = speechlike(0.5)
    mel = np.zeros((AUDIO.mel_channels, 20), dtype=np.float32)
    attention = np.full((20, 6), 1 / 6, dtype=np.float32)
    return Take(utterance(index, **scores), Sounds(wave, wave, wave, 16_000), mel, attention)


def page(takes, champion=None, note="There is no champion.", **promote):
    card = scorecard([one.scores for one in takes])
    gates = absolute_gates(card, PromoteParams(**promote))
    shown = choose_takes(takes, 2)
    return render_report(
        card, takes, gates, shown, audio=AUDIO, champion=champion, champion_note=note
    )


def test_the_worst_are_shown_first_then_the_best_and_nothing_twice():
    takes = [take(index, wrong_words=index % 5, mcd=4.0 + index / 10) for index in range(20)]
    groups = choose_takes(takes, 8)
    assert list(groups) == ["Worst", "Best", "Between them"]
    worst = [one.scores.wer for one in groups["Worst"]]
    assert worst == sorted(worst, reverse=True) == [0.8] * 4
    assert groups["Best"][0].scores.id == f"{0:016x}"
    everything = [one.scores.id for group in groups.values() for one in group]
    assert len(everything) == len(set(everything)) == 8


@pytest.mark.parametrize(
    ("available", "wanted"), [(1, 1), (1, 12), (2, 2), (3, 5), (5, 5), (30, 7)]
)
def test_as_many_as_there_are(available, wanted):
    groups = choose_takes([take(index) for index in range(available)], wanted)
    shown = [one.scores.id for group in groups.values() for one in group]
    assert len(shown) == len(set(shown)) == min(available, wanted)


def test_failures_come_first_and_in_words():
    html = page([take(index, wrong_words=3) for index in range(3)], min_items=20)
    verdict, scores = html.index("gates not passed"), html.index("<h2>Scores</h2>")
    assert verdict < html.index("test sentences: 3, at least 20 wanted") < scores
    order = ["Scores", "Distributions", "Worst sentences", "Coverage and failures"]
    places = [html.index(f"<h2>{title}</h2>") for title in order]
    assert places == sorted(places)


def test_a_voice_that_passes_says_so():
    assert "All 7 gates passed." in page([take(index) for index in range(30)])


def test_each_shown_sentence_has_three_players_and_its_differences():
    html = page([take(index, wrong_words=1) for index in range(2)])
    assert html.count("<audio") == 6
    assert html.count("<del>") == 2
    assert html.count("<ins>wrong</ins>") == 2


def test_a_metric_without_a_number_is_listed_with_its_reason():
    html = page([take(0), take(1, mcd=None)])
    assert "the synthesis is silent" in html
    assert "50.0%" in html


def test_the_champion_stands_beside_the_candidate():
    takes = [take(index) for index in range(2)]
    champion = scorecard([utterance(index, mcd=4.25) for index in range(2)])
    html = page(takes, champion=champion, note="The champion is version 7.")
    assert "4.250" in html
    assert "+0.750" in html
    assert "version 7" in html


def test_definitions_and_lineage_are_on_the_page():
    takes = [take(0)]
    html = page(takes)
    card = scorecard([one.scores for one in takes])
    for wanted in (card.model_sha256, card.eval_set_sha256, card.definitions_sha256, "alpha 0.41"):
        assert wanted in html


def test_text_is_never_markup():
    hostile = take(0)
    scores = utterance(0)
    scores = type(scores)(
        **{
            **{name: getattr(scores, name) for name in scores.__dataclass_fields__},
            "id": "<script>alert(1)</script>",
        }
    )
    hostile = Take(scores, hostile.sounds, hostile.mel, hostile.attention)
    assert "<script>" not in page([hostile])


def test_equal_input_gives_equal_bytes():
    takes = [take(index) for index in range(3)]
    assert page(takes) == page(takes)
