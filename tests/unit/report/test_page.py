import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import soundfile

from kamerton.report import figures
from kamerton.report.page import Page, encode_audio

VOID = {"meta", "img"}


class Balance(HTMLParser):
    """Fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        del attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def full_page(text="hello"):
    wave = 0.3 * np.sin(np.arange(4410) / 10).astype(np.float32)
    return (
        Page(text, text)
        .verdict(text, ok=False)
        .section(text, text)
        .facts({text: text})
        .table([text, "n"], [(text, 1), (None, 2.5), (True, float("nan"))], caption=text)
        .figure(figures.histogram([1.0, 2.0, 2.0], "x"), text)
        .audio([(text, wave, 22050)], text)
        .render()
    )


def test_a_page_nests_and_fetches_nothing():
    page = full_page()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in page.replace("http-equiv", "")


def test_text_from_outside_is_never_markup():
    nasty = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
    page = full_page(nasty)
    assert "<script" not in page
    assert "<img src=x" not in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert nasty in parser.text


def test_equal_content_gives_equal_bytes():
    assert full_page() == full_page()


def test_sound_survives():
    wave = (0.4 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)).astype(np.float32)
    kind, data = encode_audio(wave, 22050)
    decoded, rate_hz = soundfile.read(io.BytesIO(data))
    assert kind in {"audio/mpeg", "audio/wav"}
    assert rate_hz == 22050
    middle = decoded[5000:15000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == round(440 * 10000 / 22050)
    assert abs(np.std(middle) - 0.4 / np.sqrt(2)) < 0.01


def test_figures_are_pictures():
    for png in (
        figures.histogram([], "x"),
        figures.lines({"a": ([0, 1], [1, 2]), "b": ([0], [3])}, "x", "y", log_y=True),
        figures.image(np.eye(5), "x", "y"),
        figures.bars({"a": 0.5}, "share", limit=1.0),
    ):
        assert png.startswith(b"\x89PNG")
        assert base64.b64encode(png)
