import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.report.strip import draw_strip

SHARES = st.floats(0.0, 1.0)
SPANS = st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 50.0)), max_size=5)


@given(
    st.floats(0.0, 90_000.0),
    st.lists(st.tuples(st.floats(-90.0, 0.0), SHARES), max_size=50),
    SPANS,
    SPANS,
)
def test_any_recording_can_be_drawn(seconds, columns, kept, rejected):
    svg = draw_strip(
        seconds,
        [level for level, _ in columns],
        [share for _, share in columns],
        kept,
        rejected,
        floor_db=-80.0,
    )
    root = ET.fromstring(svg)
    assert "nan" not in svg
    bars = [each for each in root.iter("rect") if each.get("y") == "0"]
    assert len(bars) == len(kept) + len(rejected)
    assert len(list(root.iter("text"))) <= 16


def test_places_are_in_proportion():
    svg = draw_strip(
        20.0, [-40.0] * 4, [0.0, 1.0, 1.0, 0.0], [(5.0, 10.0)], [(10.0, 15.0)], floor_db=-80.0
    )
    rects = [
        {k: each.get(k) for k in ("x", "y", "width", "fill")}
        for each in ET.fromstring(svg).iter("rect")
    ]
    speech, kept, rejected = rects
    assert (float(speech["x"]), float(speech["width"])) == (239.0, 478.0)
    assert (float(kept["x"]), float(kept["width"])) == (239.0, 238.0)
    assert (kept["fill"], rejected["fill"]) == ("var(--accent)", "var(--bad)")
    assert float(rejected["x"]) == 478.0
    heights = {float(y) for y in re.findall(r"V([0-9.]+)H", svg)}
    assert heights == {12.0 + 96.0 / 2}


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [(8.0, ["0 s", "1 s"]), (600.0, ["0 s", "1:00"]), (36_000.0, ["0 s", "60:00"])],
)
def test_time_is_told_in_round_steps(seconds, labels):
    svg = draw_strip(seconds, [-10.0], [0.0], [], [], floor_db=-80.0)
    texts = [each.text for each in ET.fromstring(svg).iter("text") if "dB" not in each.text]
    assert texts[:2] == labels
