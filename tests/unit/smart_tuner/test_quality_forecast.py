"""The forecast from the first tenth: coverage, what history brings, and the hook."""

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curve_families import FAMILIES, make_curve
from kamerton.smart_tuner.history import History
from kamerton.smart_tuner.quality_forecast import (
    PRIOR_RESIDUALS,
    PastCurve,
    QualityForecast,
    expected_gain,
    fitted_gain,
    forecast,
    residual_gain,
    up_to,
)
from kamerton.tracking.hooks import EvalFacts, Measure, Note
from tests.unit.smart_tuner.outcomes import run_outcome


@pytest.fixture(scope="module")
def real_curves_file(repository):
    path = repository.parent / "shared" / "curves" / "algoperf.dev.json.gz"
    if not path.is_file():
        pytest.skip("real curves are not at hand (shared/curves beside the repository)")
    return path


def power_curve(points=40, steps=1000, final=0.5):
    """Falls as a power of time to ``final`` at the end of 1000 steps."""
    each = steps // points
    return [(n * each, final * (n / points) ** -0.5) for n in range(1, points + 1)]


def synthetic(family, count):
    for seed in range(3000, 3000 + count):
        observed = make_curve(family, seed, 200).observed[4::5]
        curve = [(5 * n, float(v)) for n, v in enumerate(observed, 1) if math.isfinite(v)]
        if min(value for _, value in curve) > 0:
            yield curve, 200


def real(path):
    with gzip.open(path) as file:
        curves = json.load(file)
    groups = {}
    for one in curves:
        curve = list(zip(one["step"], one["val"], strict=True))
        groups.setdefault(one["task"], []).append((curve, one["step"][-1]))
    return groups


def judged(groups, known):
    """(share covered, median width in logarithms) with ``known`` runs of the kind as history."""
    random, covered, widths = np.random.default_rng(1), [], []
    for curves in groups:
        for number, (curve, plan) in enumerate(curves):
            others = [n for n in range(len(curves)) if n != number]
            picked = random.choice(others, min(known, len(others)), replace=False)
            past = [PastCurve(tuple(curves[n][0]), curves[n][1]) for n in picked]
            found = forecast(up_to(curve, plan, 0.1), plan, past)
            best = min(value for _, value in curve)
            covered.append(found.low - 1e-12 <= best <= found.high + 1e-12)
            widths.append(math.log(found.high / found.low))
    return float(np.mean(covered)), float(np.median(widths))


@pytest.mark.parametrize("known", [0, 10])
def test_the_interval_covers_its_share_of_unseen_synthetic_curves(known):
    share, _ = judged([list(synthetic(family, 24)) for family in FAMILIES], known)
    assert 0.70 <= share <= 0.95


@pytest.mark.parametrize("known", [0, 3, 10])
def test_the_interval_covers_its_share_of_real_curves(known, real_curves_file):
    share, _ = judged(list(real(real_curves_file).values()), known)
    assert 0.70 <= share <= 0.95


def test_history_narrows_the_interval_of_real_curves(real_curves_file):
    groups = list(real(real_curves_file).values())
    assert judged(groups, 10)[1] < 0.7 * judged(groups, 0)[1]


def test_equal_runs_before_make_the_forecast_exact():
    curve, plan = power_curve(), 1000
    past = [PastCurve(tuple(curve), plan)] * 200
    found = forecast(up_to(curve, plan, 0.1), plan, past)
    assert found.final == pytest.approx(0.5, rel=0.01)
    assert found.high / found.low < 1.05
    assert found.runs == 200
    alone = forecast(up_to(curve, plan, 0.1), plan)
    assert alone.high / alone.low > 4.0


def test_unlike_runs_count_less():
    curve, plan = power_curve(), 1000
    seen = up_to(curve, plan, 0.1)
    widths = []
    for weight in (1.0, 0.1):
        found = forecast(seen, plan, [PastCurve(tuple(curve), plan, weight)] * 20)
        widths.append(math.log(found.high / found.low))
    assert widths[0] < widths[1]


def test_the_fit_finds_the_gain_of_a_curve_of_its_own_shape():
    curve = power_curve()
    gain = math.log(curve[3][1] / 0.5)
    assert fitted_gain(curve[:8], 1000) > 0.3 * gain
    assert fitted_gain([(n, 1.0) for n in range(1, 9)], 1000) == 0.0
    assert fitted_gain(curve[:3], 1000) == 0.0


def test_a_residual_is_what_came_beyond_the_expected():
    curve = power_curve()
    seen = up_to(curve, 1000, 0.1)
    gain = math.log(seen[-1][1] / 0.5)
    found = residual_gain(PastCurve(tuple(curve), 1000), 0.1)
    assert found == pytest.approx(gain - expected_gain(seen, 1000))
    assert residual_gain(PastCurve(tuple(curve), 1000), 1.0) is None
    assert residual_gain(PastCurve((), 1000), 0.1) is None


@given(
    st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12),
    st.sampled_from([(), (PastCurve(tuple(power_curve()), 1000),)]),
)
def test_the_interval_holds_its_median_and_never_exceeds_the_best_so_far(values, past):
    found = forecast([(10 * n, v) for n, v in enumerate(values, 1)], 1000, past)
    assert 0.0 < found.low <= found.final <= found.high <= min(values)


def test_figures_that_are_not_positive_are_not_forecast():
    assert forecast([(1, 0.0)], 10) is None
    assert forecast([(1, math.nan)], 10) is None
    assert forecast([], 10) is None


def test_the_prior_is_in_order_and_about_nought():
    assert list(PRIOR_RESIDUALS) == sorted(PRIOR_RESIDUALS)
    assert abs(np.median(PRIOR_RESIDUALS)) < 0.1


def evaluate(hook, step, quality, total=100):
    return list(hook.on_eval(EvalFacts(step=step, total=total, quality=quality)))


def test_the_hook_tells_once_at_the_first_evaluation_late_enough():
    hook = QualityForecast()
    assert evaluate(hook, 4, 3.0) == []
    note, measure = evaluate(hook, 12, 2.0)
    assert isinstance(note, Note)
    assert note.event == "forecast"
    assert isinstance(measure, Measure)
    expected = forecast([(4, 3.0), (12, 2.0)], 100)
    assert measure.values == {
        "forecast/final_quality": expected.final,
        "forecast/low": expected.low,
        "forecast/high": expected.high,
    }
    assert note.fields["level"] == 0.8
    assert evaluate(hook, 20, 1.0) == []


def test_a_hook_that_is_restored_says_what_the_other_would_have_said():
    one, other = QualityForecast(), QualityForecast()
    for step in (2, 4, 6, 8):
        evaluate(one, step, 4.0 / step)
    other.restore(json.loads(json.dumps(one.memory())))
    assert evaluate(one, 10, 0.3) == evaluate(other, 10, 0.3) != []
    other.restore(one.memory())
    assert evaluate(other, 12, 0.3) == []
    other.restore({})
    assert evaluate(other, 12, 0.3) != []


def test_runs_that_were_finished_meanwhile_do_not_change_what_is_told():
    def past(count):
        curves = [[(10 * n, 2.0 - n / (90 + 10 * number)) for n in range(1, 101)]
                  for number in range(count)]  # fmt: skip
        return [PastCurve(tuple(one), 1000, name=f"r{i}") for i, one in enumerate(curves)]

    one, other, later = QualityForecast(past(3)), QualityForecast(past(5)), QualityForecast(past(5))
    evaluate(one, 50, 3.0, total=1000)
    other.restore(json.loads(json.dumps(one.memory())))
    later.restore({})  # it saw nothing, so it knows what there is now
    told = evaluate(one, 100, 2.5, total=1000)
    assert evaluate(other, 100, 2.5, total=1000) == told
    assert told[0].fields["runs"] == 3
    assert evaluate(later, 100, 2.5, total=1000)[0].fields["runs"] == 5


def test_the_hook_knows_the_history_and_does_without(tmp_path, caplog):
    analysis = {"hours": 2.0, "quality": {"score": 0.8}, "complexity": {"multiplier": 1.0}}
    card = {"speakers": ["a"], "language": "en", "sample_rate_hz": 22050}
    (tmp_path / "analysis.json").write_text(json.dumps(analysis))
    told = {}
    for name in ("absent", "there", "broken"):
        path = tmp_path / f"{name}.db"
        if name == "there":
            for number in range(30):
                curve = tuple((10 * n, 2.0 - n / 100) for n in range(1, 101))
                History(path).add_run(run_outcome(f"r{number}", curve=curve, planned_steps=1000))
            for number, left_out in enumerate(({"ended": "gave_up"}, {"warm_started": True})):
                other = run_outcome(f"x{number}", curve=curve, planned_steps=1000, **left_out)
                History(path).add_run(other)
        if name == "broken":
            path.mkdir()
        hook = QualityForecast.from_history(path, tmp_path / "analysis.json", card)
        told[name] = evaluate(hook, 100, 1.0, total=1000)[0].fields
    assert (told["absent"]["runs"], told["there"]["runs"], told["broken"]["runs"]) == (0, 30, 0)
    wide, narrow = (told[name]["high"] / told[name]["low"] for name in ("absent", "there"))
    assert narrow < wide
    assert "without history" in caplog.text
