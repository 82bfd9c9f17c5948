import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time

import numpy as np
import pytest
import soundfile

from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    UsageError,
)
from kamerton.core.files import sha256_file, sha256_tree
from kamerton.data.clips_folder import ClipsFolder, duplicate_row
from kamerton.data.source_view import SourceView
from kamerton.data.tables import read_clip_file, read_clips
from kamerton.stages.segment import SegmentReport, segment
from kamerton.stages.segment_report import render_report
from tests.recordings import bursts, paced, with_noise, write_sound

SPANS, SECONDS = paced([2.2, 2.6, 0.5, 2.4], [0.6, 0.5, 0.9, 0.7, 0.6])
PARAMS = Params.model_validate(
    {
        "segment": {
            "detector": "energy",  # the network does not take the test signal for a voice
            "target_seconds": 2.5,
            "max_inner_pause_seconds": 0.3,
            "min_seconds": 1.0,
        }
    }
)


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "raw"
    wave = bursts(SPANS, SECONDS, 22_050)
    write_sound(folder / "a.wav", with_noise(wave, "white", 40, 22_050), 22_050)
    write_sound(folder / "тише" / "b c.flac", np.stack([wave * 0.1] * 2, axis=1), 22_050)
    write_sound(folder / "c.ogg", wave * 0.5, 22_050)
    (folder / "notes.txt").write_text("not a recording")
    return folder


def run(recordings, *, params=PARAMS, name="clips", **options):
    root = recordings.parent
    return segment(recordings, root / name, root / f"{name}.html", params, **options)


def rows(recordings, file="clips.jsonl", name="clips"):
    text = (recordings.parent / name / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_clips_of_every_source_with_their_provenance(recordings):
    report = run(recordings)
    clips, sources = rows(recordings), rows(recordings, "sources.jsonl")
    assert [row["source"] for row in sources] == ["a.wav", "c.ogg", "тише/b c.flac"]
    assert len(clips) == 12
    for source in sources:
        own = [row for row in clips if row["source"] == source["source"]]
        assert source["source_sha256"] == sha256_file(recordings / source["source"])
        assert source["status"] == "read"
        assert source["duration_seconds"] == pytest.approx(SECONDS, abs=0.05)
        assert [row["status"] for row in own] == ["kept", "kept", "rejected", "kept"]
        for row, (start, end) in zip(own, SPANS, strict=True):
            assert row["source_sha256"] == source["source_sha256"]
            assert row["start_sample"] / row["sample_rate_hz"] == pytest.approx(start, abs=0.16)
            assert row["end_sample"] / row["sample_rate_hz"] == pytest.approx(end, abs=0.16)
    assert report.sources_read == 3
    assert (report.clips, report.rejected_clips) == (9, 3)
    assert not report.partial


def test_rows_and_files_agree(recordings):
    run(recordings)
    clips = rows(recordings)
    folder = recordings.parent / "clips"
    assert list(clips[0]) == [
        *("id", "file", "offset_bytes", "size_bytes", "audio_sha256", "pcm_sha256", "source"),
        *("source_sha256", "start_sample", "end_sample", "sample_rate_hz", "duration_seconds"),
        *("speech_seconds", "snr_db", "clipped_share", "forced_cut", "status", "reasons"),
    ]
    for row in clips:
        if row["status"] == "rejected":
            assert [row[key] for key in list(row)[1:6]] == [None] * 5
            assert row["reasons"] == ["too_short"]
        else:
            assert row["file"] == f"audio/{row['source_sha256'][:16]}.tar"
            data = (folder / row["file"]).read_bytes()[row["offset_bytes"] :][: row["size_bytes"]]
            wave, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
            assert rate_hz == 22_050
            assert len(wave) / rate_hz == pytest.approx(row["duration_seconds"], abs=1e-5)
            assert row["audio_sha256"] == hashlib.sha256(data).hexdigest()
            assert row["pcm_sha256"] == hashlib.sha256(wave.astype("<i4").tobytes()).hexdigest()
    members = set()
    for path in (folder / "audio").iterdir():
        with tarfile.open(path) as tar:
            members |= set(tar.getnames())
    assert members == {f"{row['id']}.flac" for row in clips if row["file"]}
    assert {path.name for path in folder.iterdir()} == {
        *("audio", "clips.jsonl", "segment.json", "sources.jsonl", "texts.jsonl")
    }


def test_other_stages_read_the_clips(recordings):
    run(recordings)
    folder = recordings.parent / "clips"
    clips = read_clips(folder)
    assert [clip.id for clip in clips] == [row["id"] for row in rows(recordings)]
    for clip in clips:
        if clip.status == "kept":
            assert read_clip_file(folder, clip).startswith(b"fLaC")


def test_sums_add_up(recordings):
    report = run(recordings)
    metrics = report.metrics()
    kept = sum(row["duration_seconds"] for row in rows(recordings) if row["status"] == "kept")
    assert metrics["kept_seconds"] == pytest.approx(kept, abs=0.01)
    assert metrics["speech_seconds"] == pytest.approx(
        metrics["kept_speech_seconds"] + metrics["dropped_seconds"], abs=0.02
    )
    assert metrics["dropped_seconds_too_short"] == metrics["dropped_seconds"]
    assert metrics["dropped_seconds"] == pytest.approx(3 * 0.5, abs=0.25)
    assert all(isinstance(value, float) for value in metrics.values())
    assert dict(report.summary())["speech dropped"].endswith("s too_short")


def test_two_runs_give_the_same_bytes(recordings):
    run(recordings)
    moved = recordings.parent / "elsewhere" / "in"
    shutil.copytree(recordings, moved)
    run(moved)
    one, two = recordings.parent, moved.parent
    assert sha256_tree(one / "clips") == sha256_tree(two / "clips")
    assert (one / "clips.html").read_bytes() == (two / "clips.html").read_bytes()


def test_bad_sources_are_listed_and_the_rest_is_done(recordings):
    (recordings / "text.wav").write_text("hello " * 100)
    (recordings / "empty.mp3").touch()
    (recordings / "gone.wav").symlink_to("nowhere")
    os.mkfifo(recordings / "pipe.wav")
    shutil.copy(recordings / "a.wav", recordings / "z copy.wav")
    write_sound(recordings / "silence.wav", np.zeros(44_100, dtype=np.float32), 44_100)
    cut = write_sound(recordings / "cut.wav", bursts(SPANS, SECONDS, 22_050, seed=9), 22_050)
    cut.write_bytes(cut.read_bytes()[:200_000])
    report = run(recordings)
    assert report.partial
    sources = {row["source"]: row for row in rows(recordings, "sources.jsonl")}
    reasons = {
        name: row["reasons"][0].partition(":")[0]
        for name, row in sources.items()
        if row["status"] == "skipped"
    }
    assert reasons == {
        "text.wav": "not_audio",
        "empty.mp3": "empty_file",
        "gone.wav": "broken_link",
        "pipe.wav": "not_a_file",
        "z copy.wav": "duplicate",
        "silence.wav": "silent",
    }
    assert sources["cut.wav"]["status"] == "read"
    assert sources["cut.wav"]["reasons"][0].startswith("truncated")
    assert sources["silence.wav"]["gain_db"] is None
    assert (report.sources_read, report.sources_damaged) == (4, 1)
    assert report.sources_skipped == dict.fromkeys(sorted(reasons.values()), 1)
    page = (recordings.parent / "clips.html").read_text(encoding="utf-8")
    assert "z copy.wav" in page
    assert "same bytes as a.wav" in page
    assert str(recordings) not in page + json.dumps(sources)


def test_missing_and_empty_inputs_have_messages_and_no_output(tmp_path):
    folder = tmp_path / "raw"
    with pytest.raises(InputMissingError, match="raw does not exist"):
        run(folder)
    folder.mkdir()
    (folder / "readme.md").write_text("nothing here")
    with pytest.raises(InputEmptyError, match="holds no recordings") as caught:
        run(folder)
    assert "wav, flac, mp3" in caught.value.hint
    (folder / "a.wav").write_text("text")
    with pytest.raises(InputEmptyError, match="no readable recordings") as caught:
        run(folder)
    assert "a.wav: not_audio" in caught.value.hint
    with pytest.raises(InputCorruptError, match="is a file, not a folder"):
        run(folder / "a.wav", name="other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_outputs_are_replaced_only_when_asked(recordings):
    run(recordings)
    before = sha256_tree(recordings.parent / "clips")
    with pytest.raises(UsageError, match="exists already"):
        run(recordings)
    (recordings / "c.ogg").unlink()
    report = run(recordings, force=True)
    assert report.sources_read == 2
    assert sha256_tree(recordings.parent / "clips") != before


def test_progress_is_in_seconds_of_sound_and_arrives(recordings):
    (recordings / "bad.wav").write_text("text")
    calls = []
    run(recordings, on_progress=lambda done, total, note="": calls.append((done, total, note)))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1][0] == pytest.approx(calls[-1][1])
    assert calls[-1][1] == pytest.approx(2 * 3 * SECONDS, abs=0.5)
    names = {"a.wav", "bad.wav", "c.ogg", "тише/b c.flac"}
    assert {call[2] for call in calls} == names | {f"reading {name}" for name in names}


def test_all_clips_rejected_is_a_result(recordings):
    params = Params.model_validate(
        {
            "segment": {
                "detector": "energy",
                "min_seconds": 10.0,
                "target_seconds": 11.0,
                "max_seconds": 12.0,
            }
        }
    )
    report = run(recordings, params=params)
    assert report.clips == 0
    assert rows(recordings)
    assert "No clip could be kept" in (recordings.parent / "clips.html").read_text("utf-8")


def test_the_page_shows_lengths_and_each_source(recordings):
    run(recordings)
    page = (recordings.parent / "clips.html").read_text(encoding="utf-8")
    assert len(re.findall("<img", page)) == 1
    assert len(re.findall("<svg", page)) == 3
    assert re.search(r"Kept 2\d\.\d s of speech", page)
    for name in ("a.wav", "c.ogg", "тише/b c.flac"):
        assert name in page
    assert "http" not in re.sub(r'src="data:[^"]+"', "", page)


def test_texts_beside_recordings_come_along(recordings):
    (recordings / "a.txt").write_text("all of it")
    (recordings / "corrections.csv").write_text(
        "id,source,start_seconds,end_seconds,text\n"
        ",c.ogg,0.5,2.8,by hand\n"
        ",none.ogg,0.5,2.8,of nothing\n"
        "00112233445566aa,,,,of a clip\n"
    )
    report = run(recordings)
    texts = rows(recordings, "texts.jsonl")
    assert [(row["kind"], row["source"], row["text"]) for row in texts] == [
        ("text", "a.wav", "all of it"),
        ("correction", "c.ogg", "by hand"),
        ("correction", None, "of a clip"),
    ]
    assert report.partial
    assert (report.texts, report.text_problems) == (3, 1)
    assert dict(report.summary())["texts not used"].startswith("1")
    values = json.loads((recordings.parent / "clips/segment.json").read_text("utf-8"))
    (problem,) = values["text_problems"]
    assert problem.startswith("corrections.csv:3: no_recording")
    page = (recordings.parent / "clips.html").read_text("utf-8")
    assert "Texts given: 3. Not usable: 1." in page
    assert "corrections.csv:3" in page
    assert "there is no recording of that name" in page


def test_a_short_recording_with_a_text_stays_whole(recordings):
    (recordings / "a.txt").write_text("all of it")
    params = PARAMS.with_overrides({"segment": {"max_seconds": 12.0}})
    run(recordings, params=params, cache=recordings.parent / "cache")
    by_source = [row["source"] for row in rows(recordings)]
    assert by_source.count("a.wav") == 1
    assert by_source.count("c.ogg") == 4
    (whole,) = (row for row in rows(recordings) if row["source"] == "a.wav")
    assert whole["duration_seconds"] == pytest.approx(SPANS[-1][1] - SPANS[0][0], abs=0.3)
    (recordings / "a.txt").unlink()
    run(recordings, params=params, cache=recordings.parent / "cache", force=True)
    assert [row["source"] for row in rows(recordings)].count("a.wav") == 4


def test_a_long_recording_with_a_text_is_cut(recordings):
    (recordings / "a.txt").write_text("all of it")
    run(recordings, params=PARAMS.with_overrides({"segment": {"max_seconds": 5.0}}))
    assert [row["source"] for row in rows(recordings)].count("a.wav") == 4


def test_the_page_says_why_recordings_were_skipped(recordings):
    (recordings / "text.wav").write_text("hello " * 100)
    shutil.copy(recordings / "a.wav", recordings / "z copy.wav")
    run(recordings)
    page = (recordings.parent / "clips.html").read_text(encoding="utf-8")
    assert "Recordings that were skipped" in page
    assert "the same bytes under another name" in page
    assert "2 of 5 recordings were skipped" in page
    assert "energy" in page


def test_a_page_of_very_many_recordings_stays_small(recordings):
    view = SourceView(60.0, np.full(400, -12.3, np.float32), np.ones(400, np.float32))
    names = [f"tape {number:04}.wav" for number in range(1500)]
    sources = [
        duplicate_row(name, "ab", "first.wav")
        | {"status": "read", "reasons": [], "duration_seconds": 60.0, "speech_seconds": 50.0}
        for name in names
    ]
    clip = {"start_sample": 0, "end_sample": 9, "sample_rate_hz": 1, "duration_seconds": 9.0}
    clips = [
        {**clip, "source": name, "speech_seconds": 9.0, "status": "kept", "reasons": []}
        for name in names
    ]
    clips[777] |= {"status": "rejected", "reasons": ["low_snr"]}
    origin = {
        "text_problems": [f"corrections.csv:{n}: bad_line" for n in range(2000)],
        "detector": "energy",
        "parameters": PARAMS.segment.model_dump(),
    }
    tables = ClipsFolder(sources, clips, [], origin)
    started = time.process_time()
    page = render_report(SegmentReport.of(tables), tables, dict.fromkeys(names, view))
    assert time.process_time() - started < 3.0
    assert len(page) < 600_000
    assert len(re.findall("<svg", page)) == 40
    assert page.count("tape 0777.wav") == 2
    assert "1460 are not" in page
    assert "1800 more are not shown" in page
