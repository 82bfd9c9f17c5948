"""The files beside recordings: corrections, subtitles, transcripts, and what can be wrong."""

import csv
import io
import json
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError
from kamerton.data.given_texts import (
    PROBLEMS,
    GivenText,
    read_given_texts,
    read_texts,
    whole_text_sources,
    write_texts,
)
from kamerton.data.given_texts.corrections import escape_cell, parse_corrections, unescape_cell
from kamerton.data.given_texts.decoding import decode_text
from kamerton.data.given_texts.metadata import parse_metadata
from kamerton.data.given_texts.subtitles import parse_subtitles
from kamerton.data.recordings import find_recordings
from tests.recordings import bursts, write_sound

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Co", "Zl", "Zp")))
SENTENCES = st.lists(
    st.text("abc déжя,.'\"|;=-", min_size=1, max_size=20).filter(
        lambda text: any(char.isalnum() for char in text)
    ),
    min_size=1,
    max_size=6,
)


def tidied(text):
    return " ".join(text.split())


def reasons(problems):
    assert all(problem.reason in PROBLEMS for problem in problems)
    return [(problem.where, problem.reason) for problem in problems]


def corrections(text, encoding="utf-8"):
    return parse_corrections(text.encode(encoding), "c.csv")


# --- bytes to text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_unicode_editor_may_have_written_a_text(encoding, end):
    data = end.join(["Привет, мир.", "Second line"]).encode(encoding)
    if encoding == "utf-16-be":
        data = end.join(["Hello world.", "Second line"]).encode(encoding)
        assert decode_text(data) == "Hello world.\nSecond line"
    else:
        assert decode_text(data) == "Привет, мир.\nSecond line"


def test_other_encodings_are_refused_and_not_guessed():
    rows, problems = corrections("id,text\n1,naïve\n", "cp1252")
    assert not rows
    assert reasons(problems) == [("c.csv", "not_text")]
    assert "UTF-8" in problems[0].detail


# --- corrections.csv


def test_a_correction_names_its_clip_by_id_or_by_time():
    rows, problems = corrections(
        'text,ID,source,end_seconds,start_seconds,who\n"Hi, you",ab,,,,me\nBye,,x.wav,2.5,1,\n'
    )
    assert not problems
    assert [(r.line, r.id, r.source, r.start_seconds, r.end_seconds, r.text) for r in rows] == [
        (2, "ab", None, None, None, "Hi, you"),
        (3, None, "x.wav", 1.0, 2.5, "Bye"),
    ]


@pytest.mark.parametrize(("separator", "mark"), [(";", ""), ("\t", ""), (";", "sep=;\r\n")])
def test_spreadsheets_of_other_countries(separator, mark):
    lines = [["source", "start_seconds", "end_seconds", "text"], ["a.wav", "1,5", "2,25", "a, b"]]
    text = mark + "".join(separator.join(line) + "\r\n" for line in lines)
    rows, problems = corrections(text, "utf-8-sig")
    assert not problems
    assert (rows[0].start_seconds, rows[0].end_seconds, rows[0].text) == (1.5, 2.25, "a, b")
    assert rows[0].line == (3 if mark else 2)


def test_a_quoted_line_end_is_a_space_and_later_lines_keep_their_number():
    rows, problems = corrections('id,text\n1,"one\ntwo"\n\n2,three\n')
    assert not problems
    assert [(row.line, row.text) for row in rows] == [(2, "one two"), (5, "three")]


def test_a_line_that_cannot_be_read_costs_that_line_only():
    rows, problems = corrections(
        'id,text\n1,good\n2,"bad" quote\n3,too, many\n4\n5,"never closed\n6,good too\n'
    )
    assert [row.id for row in rows] == ["1", "6"]
    assert reasons(problems) == [(f"c.csv:{line}", "bad_line") for line in (3, 4, 5, 6)]


def test_what_a_line_must_say():
    rows, problems = corrections(
        "id,source,start_seconds,end_seconds,text,accept\n"
        ",,,,lost,\n,a.wav,2,1,backwards,\n,a.wav,nan,2,no time,\n,a.wav,x,2,no time,\n"
        "7,a.wav,x,2,the id is enough,\n8,,,,sure?,maybe\n"
    )
    assert [row.id for row in rows] == ["7"]
    found = [reason for _, reason in reasons(problems)]
    assert found == ["no_clip_named", "bad_time", "bad_time", "bad_time", "bad_accept"]


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n1,2\n", "source,text\na,b\n", "text,id,id\n"])
def test_a_file_without_a_header_says_nothing(text):
    rows, problems = corrections(text)
    assert not rows
    assert problems[0].reason in ("no_text", "no_header")


def test_lines_of_a_sheet_that_nobody_touched_do_not_count():
    rows, _ = corrections(
        "id,text,accept,recognised\n"
        "1,same  text,,same text\n"
        "2,same,yes,same\n"
        "3,other,,same\n"
        "4,,,same\n"
        "5,,,\n"
        "6,,x,\n"
    )
    assert [(row.id, row.text) for row in rows] == [
        ("2", "same"),
        ("3", "other"),
        ("4", ""),
        ("6", ""),
    ]


def test_a_file_full_of_problems_is_left_at_some_point():
    rows, problems = corrections("id,text\n" + ",x\n" * 5000 + "1,good\n")
    assert not rows
    assert problems[-1].reason == "more_problems"
    assert len(problems) < 200


@given(st.text())
def test_cells_survive_the_guard_against_formulas(text):
    assert unescape_cell(escape_cell(text)) == text
    assert not escape_cell(text).startswith(("=", "+", "-", "@"))


@given(SENTENCES, st.sampled_from(",;\t"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_the_csv_module_writes_is_read_back(texts, separator, encoding):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    writer.writerow(["id", "text"])
    writer.writerows([str(number), escape_cell(text)] for number, text in enumerate(texts))
    rows, problems = corrections(buffer.getvalue(), encoding)
    assert not problems
    assert [row.text for row in rows] == [tidied(text) for text in texts]


# --- subtitles


def cues(text, encoding="utf-8"):
    found, problems = parse_subtitles(text.encode(encoding), "s.srt")
    return [(cue.start_seconds, cue.end_seconds, cue.text) for cue in found], problems


def test_a_plain_srt():
    found, problems = cues(
        "1\r\n00:00:01,000 --> 00:00:02,500\r\nHello\r\nthere.\r\n\r\n"
        "2\r\n00:01:00,000 --> 00:01:01,000\r\nBye.\r\n"
    )
    assert not problems
    assert found == [(1.0, 2.5, "Hello there."), (60.0, 61.0, "Bye.")]


def test_a_webvtt_with_all_its_ornaments():
    found, problems = cues(
        "WEBVTT - title\n\nSTYLE\n::cue { color: red }\n\nNOTE a --> b\n\n"
        "intro\n00:01.000 --> 00:02.000 position:10% align:left\n"
        "<v Anna><b>Fish &amp; chips</b>\n\n"
        "00:03.000 --> 00:04.000\n- [door] Come in. ♪\n"
    )
    assert not problems
    assert found == [(1.0, 2.0, "Fish & chips"), (3.0, 4.0, "Come in.")]


def test_a_careless_srt():
    found, problems = cues(
        "\ufeff00:00:01.5-->00:00:02,50 X1:1 X2:2\n{\\an8}<i>No number</i>\n"
        "2\n0:0:3,000 --> 0:0:4,000\nno empty line before\n3\n123:00:00,000 --> 123:00:01,000\n"
        "late\n\n4\n00:00:09,000 --> 00:00:10,000\n\n5\n00:00:03,500 --> 00:00:05,000\noverlaps\n"
    )
    assert not problems
    assert found == [
        (1.5, 2.5, "No number"),
        (3.0, 4.0, "no empty line before"),
        (3.5, 5.0, "overlaps"),
        (442800.0, 442801.0, "late"),
    ]


def test_times_that_no_cue_can_have_cost_one_cue():
    found, problems = cues(
        "1\n00:00:02,000 --> 00:00:01,000\nbackwards\n\n00:00:xx --> 00:00:05,000\nwhat\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\ngood\n"
    )
    assert [text for _, _, text in found] == ["good"]
    assert reasons(problems) == [("s.srt:2", "bad_time"), ("s.srt:5", "bad_time")]


def test_numbers_that_are_said_stay():
    found, _ = cues(
        "1\n00:00:01,000 --> 00:00:02,000\nHow many?\n2000\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n42\n"
    )
    assert [text for _, _, text in found] == ["How many? 2000", "42"]


def test_rolling_captions_are_told_once():
    found, _ = cues(
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nhello<00:00:01.000><c> world</c>\n\n"
        "00:00:02.000 --> 00:00:02.010\nhello world\n\n"
        "00:00:02.010 --> 00:00:04.000\nhello world\nnext<00:00:03.000><c> line</c>\n"
    )
    assert [text for _, _, text in found] == ["hello world", "next line"]


def test_no_subtitle_at_all():
    assert reasons(cues("just a text\n")[1]) == [("s.srt", "no_text")]


SPANS = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**6)).map(lambda t: (t[0], sum(t))),
    min_size=1,
    max_size=6,
)


def clock(milliseconds, point):
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


@given(SPANS, st.sampled_from(",."), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_times_come_back_to_the_millisecond(spans, point, numbered, end):
    blocks = []
    for number, (start, stop) in enumerate(spans, start=1):
        times = f"{clock(start, point)} --> {clock(stop, point)}"
        blocks.append(end.join([str(number)] * numbered + [times, f"word {number}", "", ""]))
    found, problems = cues("".join(blocks), "utf-8-sig")
    assert not problems
    wanted = sorted((a / 1000, b / 1000, f"word {n}") for n, (a, b) in enumerate(spans, start=1))
    assert len(found) == len(wanted)
    for (start, stop, text), (begin, finish, word) in zip(sorted(found), wanted, strict=True):
        assert math.isclose(start, begin, abs_tol=1e-6)
        assert math.isclose(stop, finish, abs_tol=1e-6)
        assert text == word


# --- metadata.csv


def metadata(text):
    rows, problems = parse_metadata(text.encode(), "m.csv")
    return [(row.line, row.id, row.text) for row in rows], reasons(problems)


def test_the_spoken_form_is_taken_where_there_is_one():
    rows, problems = metadata('a|It cost $5.|It cost five dollars.\nb|He said "no".\nc|Only.|\n')
    assert not problems
    assert rows == [
        (1, "a", "It cost five dollars."),
        (2, "b", 'He said "no".'),
        (3, "c", "Only."),
    ]


def test_a_header_is_no_recording():
    assert metadata("audio_file|text|speaker_name\nx.wav|Hello.|anna\n") == (
        [(2, "x.wav", "Hello.")],
        [],
    )


def test_lines_of_metadata_that_say_nothing():
    rows, problems = metadata("a|good\nno bar\n|text\nb|...\nc|a|b|d\n")
    assert [row[1] for row in rows] == ["a"]
    assert problems == [
        ("m.csv:2", "bad_line"),
        ("m.csv:3", "bad_line"),
        ("m.csv:4", "no_text"),
        ("m.csv:5", "bad_line"),
    ]


# --- the folder


@pytest.fixture
def folder(tmp_path):
    """Write files by name; names that end in .wav are recordings."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_given_texts(tmp_path, find_recordings(tmp_path))

    return write


SRT = "1\n00:00:01,000 --> 00:00:02,000\nHi.\n"


def test_every_kind_of_file_finds_its_recording(folder):
    texts, problems = folder(
        {
            "one.wav": "",
            "one.txt": "All\nof it.",
            "sub/two.wav": "",
            "sub/two.en.srt": SRT,
            "sub/three.mp3": "",
            "sub/three.mp3.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nHi.\n",
            "sub/corrections.csv": "source,start_seconds,end_seconds,text\ntwo.wav,1,2,A\n"
            "sub\\three.mp3,1,2,B\n",
            "lj/metadata.csv": "four|Four.\nfive|Five.\n",
            "lj/wavs/four.wav": "",
            "lj/five.flac": "",
            "README.txt": "read me",
            "licence-2.TXT": "free",
        }
    )
    assert not problems
    assert [(text.kind, text.source, text.text, text.where) for text in texts] == [
        ("metadata", "lj/wavs/four.wav", "Four.", "lj/metadata.csv:1"),
        ("metadata", "lj/five.flac", "Five.", "lj/metadata.csv:2"),
        ("text", "one.wav", "All of it.", "one.txt"),
        ("correction", "sub/two.wav", "A", "sub/corrections.csv:2"),
        ("correction", "sub/three.mp3", "B", "sub/corrections.csv:3"),
        ("subtitle", "sub/three.mp3", "Hi.", "sub/three.mp3.vtt:3"),
        ("subtitle", "sub/two.wav", "Hi.", "sub/two.en.srt:2"),
    ]


def test_what_has_no_recording_is_told_and_the_rest_is_read(folder):
    texts, problems = folder(
        {
            "a.wav": "",
            "b.txt": "lost",
            "c.srt": SRT,
            "corrections.csv": "source,start_seconds,end_seconds,text,id\n"
            "d.wav,1,2,x,\na.wav,1,2,y,\n"
            "d.wav,1,2,z,ff\n",
            "sub/corrections.csv": "source,start_seconds,end_seconds,text\na.wav,1,2,not below\n",
            "metadata.csv": "a|A.\ne|E.\nf|F.\n",
        }
    )
    assert [(text.text, text.source) for text in texts] == [
        ("y", "a.wav"),
        ("z", None),
        ("A.", "a.wav"),
    ]
    assert reasons(problems) == [
        ("b.txt", "no_recording"),
        ("c.srt", "no_recording"),
        ("corrections.csv:2", "no_recording"),
        ("metadata.csv", "no_recording"),
        ("sub/corrections.csv:2", "no_recording"),
    ]
    assert "2 lines" in problems[3].detail


def test_a_name_in_two_folders_is_no_name(folder):
    texts, problems = folder({"x/a.wav": "", "y/a.wav": "", "metadata.csv": "a|A.\nx/a|B.\n"})
    assert [(text.source, text.text) for text in texts] == [("x/a.wav", "B.")]
    assert reasons(problems) == [("metadata.csv:1", "several_recordings")]


def test_letters_are_the_same_however_they_are_composed(folder):
    texts, problems = folder(
        {"cafe\u0301.wav": "", "caf\u00e9.txt": "Yes.", "й.wav": "", "и\u0306.srt": SRT}
    )
    assert not problems
    assert {text.source for text in texts} == {"cafe\u0301.wav", "й.wav"}


def test_unreadable_sidecars_are_told(folder, tmp_path):
    (tmp_path / "corrections.csv").mkdir()
    os.mkfifo(tmp_path / "p.txt")
    (tmp_path / "l.txt").symlink_to("nowhere")
    _, problems = folder(
        {
            "p.wav": "",
            "l.wav": "",
            "n.wav": "",
            "n.txt": b"\xff\xfe\x00",
            "e.wav": "",
            "e.txt": " . \n",
        }
    )
    assert reasons(problems) == [
        ("e.txt", "no_text"),
        ("l.txt", "not_readable"),
        ("n.txt", "not_text"),
        ("p.txt", "not_readable"),
    ]


def test_one_recording_in_two_formats_has_one_text(folder):
    texts, problems = folder({"a.wav": "", "a.flac": "", "a.txt": "Same."})
    assert not problems
    assert [text.source for text in texts] == ["a.flac", "a.wav"]


def test_recordings_with_a_text_as_a_whole(folder):
    texts, _ = folder(
        {"a.wav": "", "a.txt": "A", "b.wav": "", "b.txt": "B", "b.srt": SRT, "c.wav": ""}
    )
    assert whole_text_sources(texts) == {"a.wav"}


# --- the table

TIMES = st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e3)).map(lambda t: (t[0], t[0] + t[1]))
NOWHERE = (None, None)


def texts_of(kind, source, clip, times, text):
    return st.builds(
        lambda s, i, t, w: GivenText(kind, s, i, *t[0], t[1], w),
        source,
        clip,
        st.tuples(times, text),
        PRINTABLE,
    )


SOME = PRINTABLE.map(lambda text: text or "x")
GIVEN = st.one_of(
    texts_of("text", PRINTABLE, st.none(), st.just(NOWHERE), SOME),
    texts_of("metadata", PRINTABLE, st.none(), st.just(NOWHERE), SOME),
    texts_of("subtitle", PRINTABLE, st.none(), TIMES, SOME),
    texts_of("correction", st.none() | PRINTABLE, PRINTABLE, st.just(NOWHERE) | TIMES, PRINTABLE),
    texts_of("correction", PRINTABLE, st.none(), TIMES, PRINTABLE),
)


@given(st.lists(GIVEN, max_size=5))
def test_the_table_gives_back_what_was_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    write_texts(path, texts)
    assert read_texts(path) == texts


def test_no_table_means_no_texts(tmp_path):
    assert read_texts(tmp_path / "texts.jsonl") == []


ROW = {
    "kind": "subtitle",
    "source": "a.wav",
    "id": None,
    "start_seconds": 1.0,
    "end_seconds": 2.0,
    "text": "Hi.",
    "where": "a.srt:2",
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rumour"},
        {"source": None},
        {"source": 3},
        {"text": ""},
        {"text": "\ud800"},
        {"start_seconds": None},
        {"start_seconds": -1.0},
        {"start_seconds": 3.0},
        {"end_seconds": float("nan")},
        {"end_seconds": 10**400},
        {"end_seconds": True},
        {"start_seconds": None, "end_seconds": None},
        {"kind": "text"},
        {"kind": "correction", "source": None},
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path, change):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | change) + "\n")
    with pytest.raises(InputCorruptError, match=r"texts\.jsonl:2"):
        read_texts(path)


@pytest.mark.parametrize("name", list(ROW))
def test_a_row_lacks_nothing(tmp_path, name):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({key: value for key, value in ROW.items() if key != name}))
    with pytest.raises(InputCorruptError, match=name):
        read_texts(path)


@pytest.mark.parametrize("piece", [" ", "-", "<", "[", "{\\", "1", ":", '"', ",", "|", "&#", "é"])
def test_a_line_without_end_is_read_in_no_time(piece):
    data = ("id,text\n1:00 --> 1:01\n" + piece * 60_000 + "x").encode()
    started = time.process_time()
    for parse in (parse_subtitles, parse_corrections, parse_metadata):
        parse(data, "x")
    assert time.process_time() - started < 2.0


def test_a_character_of_five_thousand_digits_is_no_character():
    found, _ = cues(f"00:01,0 --> 00:02,0\na &#{'9' * 5000};\n")
    assert found[0][2].startswith("a &#999")


def test_deep_nesting_is_no_json(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(InputCorruptError, match="not JSON"):
        read_texts(path)


# --- what real files hold


def test_what_follows_an_empty_line_in_a_cue_is_not_lost():
    found, problems = cues(
        "1\n00:00:00,000 --> 00:00:02,000\nfirst\n\nsecond 2\n\n"
        "2\n00:00:02,000 --> 00:00:04,000\n42\n\n"
        "00:00:04,000 --> 00:00:05,000\nlast\n\nwords\n"
    )
    assert not problems
    assert [text for _, _, text in found] == ["first second 2", "42", "last words"]


def test_a_note_in_webvtt_is_no_speech():
    data = b"WEBVTT\n\n00:00.000 --> 00:02.000\nfirst\n\nNOTE by me\n\n00:02.000 --> 00:03.000\nb\n"
    for where in ("s.vtt", "s.srt"):
        assert [cue.text for cue in parse_subtitles(data, where)[0]] == ["first", "b"]


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["Hello there.|Anna", "Good night.|Anna"], ["Hello there.", "Good night."]),
        (["Hi all.|Anna", "Bye.|Ben", "Yes.|Ben", "No.|Ben", "So.|Anna"], None),
        (["A long story about 3 dogs.|Anna"], ["A long story about 3 dogs."]),
        (["3.|three", "It was 1984.|It was nineteen eighty-four."], ["three", "It was nineteen"]),
    ],
)
def test_a_third_column_that_is_no_text_is_not_taken(lines, texts):
    rows, problems = metadata("".join(f"{at}|{line}\n" for at, line in enumerate(lines)))
    assert not problems
    wanted = texts or [line.partition("|")[0] for line in lines]
    assert all(row[2].startswith(text) for row, text in zip(rows, wanted, strict=True))


def test_a_text_of_a_recording_that_is_called_like_a_note(tmp_path):
    for name in ("note_01.txt", "notes.txt", "README.txt"):
        (tmp_path / name).write_text(f"words of {name}")
    write_sound(tmp_path / "note_01.wav", bursts([(0.1, 0.4)], 0.5, 16_000, 0), 16_000)
    texts, problems = read_given_texts(tmp_path, find_recordings(tmp_path))
    assert [(text.source, text.where) for text in texts] == [("note_01.wav", "note_01.txt")]
    assert not problems
