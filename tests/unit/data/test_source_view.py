import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kamerton.data.source_view import COLUMNS, FLOOR_DB, SourceView, view_source


def heard(peak, mask):
    levels = SimpleNamespace(peak=np.asarray(peak, dtype=np.float32))
    return SimpleNamespace(analysis=SimpleNamespace(levels=levels), mask=np.asarray(mask))


@given(
    st.integers(1, 3000).flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.float32, size, elements=st.floats(0.0, 1.5, width=32)),
            arrays.arrays(np.bool_, size),
        )
    )
)
def test_a_view_is_small_and_survives_its_file(recording):
    peak, mask = recording
    view = view_source(heard(peak, mask))
    text = json.dumps(view.as_dict())
    assert len(text) < 1200
    again = SourceView.from_dict(json.loads(text))
    assert again.seconds == view.seconds == len(mask) / 100
    assert len(again.level_db) == len(again.speech) == min(COLUMNS, len(mask))
    np.testing.assert_allclose(again.level_db, view.level_db, atol=0.16)
    np.testing.assert_allclose(again.speech, view.speech, atol=0.002)
    assert view.level_db.min() >= FLOOR_DB
    loudest = 20 * np.log10(np.clip(peak.max(), 1e-4, 1.0))
    assert view.level_db.max() == pytest.approx(loudest, abs=1e-3)
    if len(mask) <= COLUMNS:
        np.testing.assert_array_equal(view.speech, mask)


@pytest.mark.parametrize(
    "values", [{}, {"seconds": 1, "level": "%", "speech": ""}, {"seconds": "x"}]
)
def test_what_is_no_view_is_refused(values):
    with pytest.raises((KeyError, ValueError)):
        SourceView.from_dict(values)
