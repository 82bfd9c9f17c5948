"""`kamerton corrections`: from doubtful transcripts to a corrections.csv and back."""

import csv
import json
import shutil
import subprocess
from dataclasses import fields
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kamerton.cli.main import exit_code
from kamerton.data.given_texts import match_given, read_given_texts
from kamerton.data.given_texts.corrections import parse_corrections
from kamerton.data.given_texts.sheet import SHEET_COLUMNS, choose_rows, render_sheet
from kamerton.data.recordings import find_recordings
from kamerton.data.tables import Clip, read_clips
from tests.clip_folder import ClipFolder

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two recordings, six clips: two sure, one unsure, one refused, one disputed, one corrected."""
    monkeypatch.chdir(tmp_path)
    made = ClipFolder(tmp_path / "data")
    low = {"avg_logprob": -1.4, "status": "rejected", "reasons": ["low_logprob"]}
    made.add("sure one")
    made.add("unsure", answer={"avg_logprob": -0.9})
    made.add('=refused, "quoted" <b>', answer=low)
    made.add("sure two", source="b.wav")
    made.add("disputed", source="b.wav", answer={"note": "text_disagrees", "avg_logprob": -0.1})
    made.add("by hand", source="b.wav", answer={"origin": "corrected", "avg_logprob": None})
    made.save()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "data/raw").mkdir(exist_ok=True)
        (tmp_path / "data/raw" / name).touch()
    return tmp_path


def sheet(path="reports/corrections.csv"):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_worst_come_first_and_earlier_corrections_last(project, capsys):
    assert exit_code(["corrections"]) == 0
    assert [row["text"] for row in sheet()] == [
        '\'=refused, "quoted" <b>',
        "unsure",
        "disputed",
        "by hand",
    ]
    assert [row["accept"] for row in sheet()] == ["", "", "", "yes"]
    assert [row["recognised"] for row in sheet()] == [row["text"] for row in sheet()]
    assert sheet()[2]["reasons"] == "text_disagrees"
    shown = capsys.readouterr()
    assert "to correct         3" in shown.out
    assert "next: " in shown.err


def test_all_clips_or_a_few(project):
    assert exit_code(["corrections", "--only", "all", "-o", "all.csv"]) == 0
    assert len(sheet("all.csv")) == 6
    assert exit_code(["corrections", "--limit", "1", "-o", "one.csv"]) == 0
    assert [row["accept"] for row in sheet("one.csv")] == ["", "yes"]
    assert exit_code(["corrections", "--below", "-2", "-o", "less.csv"]) == 0
    assert "unsure" not in [row["text"] for row in sheet("less.csv")]


def test_nothing_is_overwritten_without_force(project, capsys):
    assert exit_code(["corrections", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to_correct"] == 3
    before = (project / "reports/corrections.csv").read_bytes()
    (project / "reports/corrections.csv").write_bytes(b"mine")
    assert exit_code(["corrections"]) == 2
    assert (project / "reports/corrections.csv").read_bytes() == b"mine"
    assert exit_code(["corrections", "--html", "p.html", "-o", "c.csv"]) == 0
    assert exit_code(["corrections", "--html", "p.html", "-o", "d.csv"]) == 2
    assert exit_code(["corrections", "--force"]) == 0
    assert (project / "reports/corrections.csv").read_bytes() == before


def test_a_damaged_table_is_named(project, capsys):
    path = project / "data/transcripts.jsonl"
    path.write_text(path.read_text() + "{}\n")
    assert exit_code(["corrections"]) == 1
    assert "transcripts.jsonl:7" in capsys.readouterr().err


def given_back(project):
    """What the pipeline makes of data/raw: text by id of the clip."""
    raw = project / "data/raw"
    texts, problems = read_given_texts(raw, find_recordings(raw))
    matched = match_given(texts, read_clips(project / "data/clips"))
    assert not problems
    assert not matched.problems
    return {key: text.text for key, text in matched.by_clip.items()}


def test_a_sheet_saved_untouched_changes_nothing(project):
    assert exit_code(["corrections", "--only", "all", "-o", "data/raw/corrections.csv"]) == 0
    assert given_back(project) == {f"{5:016x}": "by hand"}


def test_what_a_person_changed_comes_back(project):
    assert exit_code(["corrections"]) == 0
    rows = sheet()
    rows[0]["text"] = "refuse, “quote”"
    rows[1]["accept"] = "Yes"
    rows[2]["text"] = ""
    with open("data/raw/corrections.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SHEET_COLUMNS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert given_back(project) == {
        f"{2:016x}": "refuse, “quote”",
        f"{1:016x}": "unsure",
        f"{4:016x}": "",
        f"{5:016x}": "by hand",
    }


def some_clip(name, start, length):
    known = {
        "id": name,
        "source": "-a, b.wav",
        "start_sample": start,
        "end_sample": start + length,
        "sample_rate_hz": 48000,
        "status": "kept",
        "reasons": (),
    }
    return Clip(**{field.name: None for field in fields(Clip)} | known)


@example(text=" '=a", start=0, length=4800)
@given(
    st.text("ab'=+-@,;\"\t é", min_size=1).filter(lambda text: any(c.isalnum() for c in text)),
    st.integers(0, 10**9),
    st.integers(4800, 10**6),
)
def test_an_accepted_row_survives_the_sheet(text, start, length):
    clip = some_clip("0123", start, length)
    row = {"text": text, "status": "kept", "reasons": [], "origin": "corrected"}
    written = render_sheet(choose_rows([clip], {"0123": row}, only="all", below=0.0, limit=None))
    (back,), problems = parse_corrections(written.encode(), "c.csv")
    assert not problems
    assert back.text == " ".join(text.split())
    assert (back.id, back.source) == ("0123", "-a, b.wav")
    assert back.start_seconds == pytest.approx(start / 48000, abs=1e-3)
    assert back.end_seconds == pytest.approx((start + length) / 48000, abs=1e-3)


class Elements(HTMLParser):
    """Players, fields and what is told of them."""

    def __init__(self, text):
        super().__init__()
        self.players, self.fields, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "audio":
            self.players.append(dict(attributes)["src"])
        self._inside = tag == "textarea"
        if self._inside:
            self.fields.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.fields[-1] += data


def test_the_page_has_sound_and_text_of_every_clip(project):
    assert exit_code(["corrections", "--html", "reports/c.html", "-q"]) == 0
    page = (project / "reports/c.html").read_text("utf-8")
    found = Elements(page)
    assert found.fields == ['=refused, "quoted" <b>', "unsure", "disputed", "by hand"]
    assert all(player.startswith("data:audio/") for player in found.players)
    assert len(set(found.players)) == 4
    assert "the given text and what was heard differ too much" in page
    assert "http" not in page.split("<script")[0]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_saves_the_sheet_that_python_writes(project):
    """The script's CSV of an untouched page is the command's own."""
    assert exit_code(["corrections", "--html", "c.html", "-o", "c.csv"]) == 0
    page = (project / "c.html").read_text("utf-8")
    tell = "<script>document.title='CSV'+encodeURIComponent(csv())</script></body>"
    (project / "told.html").write_text(page.replace("</body>", tell), "utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --dump-dom"
    quiet = "--disable-background-networking --disable-component-update --disable-sync"
    done = subprocess.run(
        [CHROMIUM, *flags.split(), *quiet.split(), f"--user-data-dir={project / 'user'}",
         (project / "told.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    from urllib.parse import unquote

    told = unquote(done.stdout.split("<title>CSV")[1].split("</title>")[0])
    assert told == (project / "c.csv").read_bytes().decode("utf-8")
