import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from kamerton.audio.blend import _false_claims, blend

SCORES = numpy_strategies.arrays(
    np.float32, 400, elements=st.floats(0, 1, width=32), fill=st.sampled_from([0.0, 1.0])
)


@given(neural=SCORES, energy=SCORES)
def test_a_blend_lies_between(neural, energy):
    mixed = blend(neural, energy)
    low, high = np.minimum(neural, energy), np.maximum(neural, energy)
    assert (mixed.scores >= low - 1e-6).all()
    assert (mixed.scores <= high + 1e-6).all()
    assert 0.0 <= mixed.distrust <= 1.0


def speech(*spans, frames=6000):
    scores = np.zeros(frames, dtype=np.float32)
    for start, end in spans:
        scores[start:end] = 1.0
    return scores


def test_in_a_steady_room_energy_has_the_last_word():
    neural = speech((1000, 1210), (2000, 2300))
    energy = speech((1000, 1200), (2000, 2300))
    mixed = blend(neural, energy)
    assert mixed.distrust == 0.0
    np.testing.assert_array_equal(mixed.scores >= 0.5, energy >= 0.5)


def test_in_music_the_network_decides():
    neural = speech((1000, 1200), (2000, 2300))
    mixed = blend(neural, np.ones(6000, dtype=np.float32))
    assert mixed.distrust == 1.0
    np.testing.assert_array_equal(mixed.scores, neural)


def test_music_in_one_half_leaves_the_other_to_energy():
    neural = speech((1000, 1200), (8000, 8210), frames=10_000)
    energy = speech((0, 4000), (8000, 8200), frames=10_000)
    scores = blend(neural, energy).scores
    np.testing.assert_array_equal(scores[:4000] >= 0.5, neural[:4000] >= 0.5)
    np.testing.assert_array_equal(scores[7000:] >= 0.5, energy[7000:] >= 0.5)


def test_false_claims_equal_a_naive_loop():
    rng = np.random.default_rng(0)
    neural = (rng.uniform(size=3005) > 0.995).astype(np.float32)
    energy = rng.uniform(size=3005).astype(np.float32)
    found = _false_claims(neural, energy)
    assert len(found) == 301
    silent = [not (neural[max(0, t - 20) : t + 21] >= 0.3).any() for t in range(3005)]
    everywhere = np.mean([e for e, s in zip(energy.tolist(), silent, strict=True) if s])
    for block in (0, 77, 150, 300):
        near = range(max(0, 10 * (block - 100)), min(3005, 10 * (block + 101)))
        claims = sum(float(energy[t]) for t in near if silent[t]) + 100 * everywhere
        expected = claims / (sum(silent[t] for t in near) + 100)
        assert found[block] == pytest.approx(expected, rel=1e-5)


def test_nothing():
    assert len(blend(np.zeros(0, np.float32), np.zeros(0, np.float32)).scores) == 0
