"""The benchmark's curves, rules and figures: a baseline that is wrong proves nothing."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import early_stopping, stop_rules
from benchmarks.curve_families import (
    FAMILIES,
    PLANS,
    Curve,
    make_curve,
    population,
    real_curves,
    synthetic,
)
from benchmarks.stop_figure import draw
from benchmarks.stop_scoring import Outcome, best_patience, play, ratio, score
from kamerton import stopping
from kamerton.config.stopping_section import EarlyStoppingParams

numbers = st.lists(st.floats(-5, 5), min_size=3, max_size=60)


def curve_of(values, **more):
    array = np.asarray(values, dtype=np.float64)
    return Curve("x", "0", array, array, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_is_a_curve(family):
    one, same, other = make_curve(family, 3), make_curve(family, 3), make_curve(family, 4)
    assert np.array_equal(one.observed, same.observed, equal_nan=True)
    assert not np.array_equal(one.observed[:200], other.observed[:200], equal_nan=True)
    assert one.plan in PLANS
    assert one.regret(int(np.nanargmin(one.truth))) == 0.0
    assert one.truth[0] > np.nanmin(one.truth)
    if one.attention is not None:
        assert one.attention.shape == one.observed.shape
        assert one.attention.max() <= 1.0
    assert one.drops == () or family == "lrsteps"


def test_families_have_the_shape_of_their_name():
    def shares(family, what, seeds=range(12)):
        return float(np.mean([what(make_curve(family, seed, 400)) for seed in seeds]))

    def best_at(curve):
        return float(np.nanargmin(curve.truth)) / curve.plan

    def end_over_best(curve):
        last = curve.truth[-1]
        return bool(np.isnan(last) or last > np.nanmin(curve.truth) * 1.05)

    assert shares("power", best_at) > 0.99
    assert shares("exp", lambda curve: end_over_best(curve)) == 0.0
    for family in ("overfit", "diverge"):
        assert shares(family, best_at) < 0.7
        assert shares(family, end_over_best) == 1.0
    assert shares("diverge", lambda curve: np.isnan(curve.truth).any(), range(60)) > 0.1
    assert shares("lrsteps", lambda curve: len(curve.drops)) >= 2
    assert shares("breakthrough", lambda c: c.attention[:20].mean() < 0.5 < c.attention[-1]) == 1.0
    lost = shares("attn_collapse", lambda c: c.attention[-1] < 0.5, range(40))
    assert 0.6 < lost < 1.0  # some recover
    # Double descent: there is a first minimum with a rise behind it, and a better one later.
    for seed in range(6):
        truth = make_curve("doubledescent", seed, 400).truth
        turns = np.flatnonzero((truth[1:-1] < truth[:-2]) & (truth[1:-1] <= truth[2:]))
        assert turns.size
        assert truth[turns[0] :].min() < truth[turns[0]]


def test_the_noise_is_what_was_asked_for():
    """Spread and correlation, over many seeds of the family without heavy tails."""
    correlations, spreads = [], []
    for seed in range(40):
        curve = make_curve("exp", seed, 1000)
        noise = (curve.observed - curve.truth) / (curve.truth[0] - curve.truth.min())
        spreads.append(noise.std())
        correlations.append(np.corrcoef(noise[1:], noise[:-1])[0, 1])
    assert 0.002 < min(spreads) < 0.006
    assert 0.01 < max(spreads) < 0.03
    assert -0.1 < min(correlations) < 0.15
    assert 0.45 < max(correlations) < 0.7


def test_families_take_turns():
    jobs = synthetic(500)
    assert [seed for _, seed in jobs] == list(range(1000, 1500))
    assert {sum(family == name for family, _ in jobs) for name in FAMILIES} == {50}
    assert len(FAMILIES) >= 10


@given(numbers, st.integers(1, 20))
def test_patience_is_that_of_its_definition(values, epochs):
    """By a search over all ends: the first at which so many evaluations brought nothing better."""
    last, kept = stop_rules.patience(epochs=epochs)(curve_of(values))

    def best(end):
        return min(range(end + 1), key=lambda index: (values[index], index))

    ends = [end for end in range(len(values)) if end - best(end) >= epochs]
    assert last == (ends[0] if ends else len(values) - 1)
    assert kept == best(last)


@given(numbers)
def test_mann_kendall_is_that_of_kendalls_tau(values):
    array = np.array(values)
    if len(set(values)) < len(values):
        return  # the variance with ties is another
    n = len(values)
    tau = stats.kendalltau(np.arange(n), array).statistic
    signs = tau * n * (n - 1) / 2
    expected = (signs - np.sign(round(signs))) / np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    assert stop_rules.mann_kendall(array) == pytest.approx(expected, abs=1e-9)


def test_the_median_rule_compares_runs():
    others = [curve_of(np.linspace(1.0, 0.2, 100)) for _ in range(5)]
    rule = stop_rules.median(lambda _: others, startup=0.2)
    assert rule(curve_of(np.linspace(1.0, 0.1, 100)))[0] == 99  # better than the others' means
    assert rule(curve_of(np.full(100, 2.0)))[0] == 20
    assert rule(curve_of(np.linspace(1.0, 0.1, 150)))[0] == 149  # longer than they are


def test_the_specifications_rule_hears_every_voter():
    values = 0.3 + np.exp(-np.arange(1, 401) / 20)
    flat = curve_of(values + np.random.default_rng(0).normal(0, 0.01, 400))
    aligned = curve_of(flat.observed, attention=np.full(400, 0.9))
    lost = curve_of(flat.observed, attention=np.zeros(400))
    stops = {
        weights: [
            stop_rules.specification(threshold=0.6, weights=weights)(curve)[0]
            for curve in (flat, aligned, lost)
        ]
        for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.01, 0.0, 1.0))
    }
    assert len({tuple(found) for found in stops.values()}) == 3
    assert stops[0.01, 0.0, 1.0][1] < stops[0.01, 0.0, 1.0][2] == 399
    rising = curve_of(values + np.linspace(0, 2, 400))
    patient = stop_rules.specification(threshold=0.35, patience_share=0.2)
    assert patient(rising)[0] > stop_rules.specification(threshold=0.35)(rising)[0]


def test_the_oracle_is_the_first_that_is_good_enough():
    curve = make_curve("overfit", 5, 200)
    last, kept = stop_rules.oracle(0.01)(curve)
    regrets = [curve.regret(index) for index in range(200)]
    assert last == kept == next(index for index, one in enumerate(regrets) if one <= 0.01)
    ended = play(stop_rules.oracle(0.01), curve)
    assert ended.saved == pytest.approx(1 - (last + 1) / 200)
    assert ended.regret == regrets[last]


def test_figures_are_means_and_pairs():
    ours = [Outcome(0.4, 0.0, 9, 1.0), Outcome(0.2, 0.5, 29, 1.0)] * 20
    theirs = [Outcome(0.2, 0.0, 9, 1.0), Outcome(0.1, 0.01, 9, 1.0)] * 20
    one = score(ours)
    assert (one.saved, one.right, one.regret_p95) == (pytest.approx(0.3), 0.5, 0.5)
    assert one.cpu_ms == pytest.approx(2.0 / 40)
    assert one.saved_interval[0] < 0.3 < one.saved_interval[1]
    # Twice as much on every curve: the ratio has no spread, because its curves are paired.
    gain, (low, high) = ratio(ours, theirs)
    assert gain == pytest.approx(2.0)
    assert (low, high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert best_patience({"a": score(ours), "b": score(theirs)}, 0.97) == "b"
    assert best_patience({"a": score(ours)}, 0.97) is None


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_peers_start_where_the_curve_starts(seed):
    curve = make_curve("exp", seed, 200)
    for other in population(curve, 3):
        assert other.truth[0] == pytest.approx(curve.truth[0])
        assert other.plan == curve.plan
        assert not np.array_equal(other.truth, curve.truth)


def test_every_ablation_changes_the_parameters():
    for changes in early_stopping.ABLATIONS.values():
        changed = EarlyStoppingParams.model_validate(early_stopping._nested(changes))
        assert changed != EarlyStoppingParams()


def half(values, planned, attention=None, *, params=None, schedule_drops=()):
    """Stops in the middle, or a little later where the divergence rule is out of force."""
    stop = planned // 2 + (0 if params.rules.divergence else 3)
    return stopping.Replay(stop, int(np.nanargmin(np.asarray(values)[: stop + 1])))


def test_the_benchmark_runs_and_judges(tmp_path, capsys, monkeypatch):
    rows = [
        {"task": task, "id": f"{task}{index}", "step": list(range(30)),
         "val": [1 / (step + 1 + index) for step in range(29)] + [None]}
        for task in ("librispeech_x", "other") for index in range(3)
    ]  # fmt: skip
    (tmp_path / "real").mkdir()
    (tmp_path / "real/curves.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert len(real_curves(tmp_path / "real/curves.json.gz")) == 6
    monkeypatch.setattr(stopping, "replay", half)  # where it would stop is tested elsewhere
    monkeypatch.setattr(early_stopping, "make_curve", lambda f, s: make_curve(f, s, 40))
    arguments = ["early_stopping", "--curves", "10", "--ablation-curves", "2", "--real",
                 str(tmp_path / "real"), "--json",
                 str(tmp_path / "f.json"), "--processes", "1"]  # fmt: skip
    monkeypatch.setattr("sys.argv", arguments)
    assert early_stopping.main() in {0, 1}
    out = capsys.readouterr().out
    for word in (*FAMILIES, "median rule", "oracle", "ours", "real speech"):
        assert word in out
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert rows["rule divergence"].endswith("other stop in 3 of 3: earns")
    assert rows["rule collapse"].endswith("other stop in 0 of 3: earns nothing")
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {"synthetic", "real speech recognition", "real, other tasks"} == figures.keys()
    assert early_stopping.run_real(tmp_path / "nowhere", 1, ablated=True) == ({}, [], {})
    assert "skipped" in capsys.readouterr().out


def test_the_figure_is_drawn_of_what_there_is():
    outcomes = [Outcome(0.1, 0.0, 9, 1.0)] * 3
    scores = {name: score(outcomes) for name in ("patience 20 % of plan", "ours")}
    one = draw({"synthetic": scores}, ["patience 20 % of plan", "ours", "absent"])
    assert one.startswith(b"\x89PNG")
    assert one != draw({"synthetic": {"ours": scores["ours"]}}, ["ours"])
