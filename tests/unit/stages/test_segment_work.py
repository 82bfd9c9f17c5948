"""The segment stage does only what is new, on all cores, and loses little when it is killed."""

import builtins
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kamerton.config.schema import Params
from kamerton.core.errors import InputCorruptError, InputEmptyError
from kamerton.core.files import sha256_tree
from kamerton.core.workers import Workers
from kamerton.data import processing, work
from kamerton.data.clips_folder import place_tar
from kamerton.stages import segment as stage
from kamerton.stages import segment_report
from kamerton.stages.segment import segment
from tests.recordings import bursts, paced, with_noise, write_sound
from tests.unit.stages import crashing

RATE_HZ = 16_000
PARAMS = Params.model_validate(
    {
        "segment": {"detector": "energy", "target_seconds": 2.0, "max_inner_pause_seconds": 0.3},
        "audio": {"sample_rate_hz": RATE_HZ, "mel_fmax_hz": 7000.0},
    }
)
OLD = 1_600_000_000


def speak(path, seed, lengths=(1.6, 0.4, 1.9)):
    """A recording of a few seconds, written long ago."""
    spans, seconds = paced(list(lengths), [0.5] * (len(lengths) + 1))
    wave = with_noise(bursts(spans, seconds, RATE_HZ, seed=seed), "white", 40, RATE_HZ, seed=seed)
    write_sound(path, wave, RATE_HZ)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for number in range(6):
        speak(folder / f"r{number}.wav", number, (1.6, 0.4, 1.9, 1.2)[: 2 + number % 3])
    shutil.copy(folder / "r4.wav", folder / "r0 again.wav")
    (folder / "bad.wav").write_text("no sound, only words\n" * 50)
    write_sound(folder / "silence.wav", np.zeros(RATE_HZ, dtype=np.float32), RATE_HZ)
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes longer than the work on such short recordings."""
    monkeypatch.setattr(segment_report, "histogram", lambda *_: b"a picture")


@pytest.fixture
def raw(originals, tmp_path):
    shutil.copytree(originals, tmp_path / "raw")
    return tmp_path / "raw"


def run(raw, name="clips", *, params=PARAMS, **options):
    root = raw.parent
    return segment(raw, root / name, root / f"{name}.html", params, **options)


def tree(raw, name="clips"):
    page = (raw.parent / f"{name}.html").read_bytes()
    return sha256_tree(raw.parent / name), page


@pytest.fixture
def later(monkeypatch):
    """Ten seconds have gone by since the files were written."""
    now = time.time_ns
    monkeypatch.setattr(work, "now_ns", lambda: now() + 10_000_000_000)


@pytest.fixture
def opened(raw, monkeypatch):
    """Names of the recordings that are opened: by us, by libsndfile, or by a decoder's process."""
    names = []

    def note(path):
        if str(raw) in str(path):
            names.append(Path(os.fsdecode(path)).name)

    real_open, real_os_open, real_file = builtins.open, os.open, soundfile.SoundFile.__init__

    def watched_open(path, *args, **kwargs):
        note(path)
        return real_open(path, *args, **kwargs)

    def watched_os_open(path, *args, **kwargs):
        note(path)
        return real_os_open(path, *args, **kwargs)

    def watched_file(self, file, *args, **kwargs):
        note(file if isinstance(file, str | bytes) else getattr(file, "name", ""))
        real_file(self, file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched_open)
    monkeypatch.setattr("io.open", watched_open)
    monkeypatch.setattr(os, "open", watched_os_open)
    monkeypatch.setattr(soundfile.SoundFile, "__init__", watched_file)
    return names


def test_a_second_run_opens_nothing_and_gives_the_same(raw, later, opened):
    cache = raw.parent / "cache"
    first = run(raw, cache=cache)
    assert set(opened) == {path.name for path in raw.iterdir()}
    opened.clear()
    assert run(raw, "again", cache=cache) == first
    assert opened == []
    assert tree(raw, "again") == tree(raw)


def test_one_more_recording_is_the_only_one_opened(raw, later, opened):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    speak(raw / "new.wav", 99)
    opened.clear()
    calls = []
    run(raw, force=True, cache=cache, on_progress=lambda *call: calls.append(call))
    assert set(opened) == {"new.wav"}
    seconds = soundfile.info(raw / "new.wav").duration
    assert calls[-1][:2] == pytest.approx((2 * seconds, 2 * seconds))
    run(raw, "fresh")
    assert tree(raw, "fresh") == tree(raw)


def test_a_recording_that_changed_is_cut_again(raw, later, opened):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    speak(raw / "r3.wav", 77)
    opened.clear()
    run(raw, force=True, cache=cache)
    assert set(opened) == {"r3.wav"}
    run(raw, "fresh")
    assert tree(raw, "fresh") == tree(raw)


def test_a_recording_that_moved_is_hashed_and_not_cut(raw, later, monkeypatch):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    (raw / "deep").mkdir()
    (raw / "r3.wav").rename(raw / "deep" / "other name.wav")
    monkeypatch.setattr(processing, "cut", crashing.cut_or_crash)
    (raw / "r5.wav").rename(raw / "crash.wav")  # to cut it would end this test
    run(raw, force=True, cache=cache)
    run(raw.rename(raw.with_name("elsewhere")), "moved", cache=cache)
    assert tree(raw, "moved") == tree(raw)


@pytest.mark.parametrize(
    ("section", "values", "redone"),
    [
        ("segment", {"pad_seconds": 0.05}, True),
        ("segment", {"target_seconds": 3.0}, True),
        ("audio", {"sample_rate_hz": 22_050}, True),
        ("audio", {"mel_channels": 100}, False),
        ("transcribe", {"beam_size": 5}, False),
    ],
)
def test_parameters_that_matter_make_the_work_new(raw, later, section, values, redone):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    before = len(list((cache / "segment").glob("*/*")))
    run(raw, force=True, cache=cache, params=PARAMS.with_overrides({section: values}))
    after = len(list((cache / "segment").glob("*/*")))
    assert (after == 2 * before) if redone else (after == before)


def test_another_version_of_the_code_does_not_use_old_results(raw, later, monkeypatch):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    before = len(list((cache / "segment").glob("*/*")))
    monkeypatch.setattr(work, "code_digest", lambda _parts: "another")
    run(raw, force=True, cache=cache)
    assert len(list((cache / "segment").glob("*/*"))) == 2 * before


def test_what_could_not_be_decoded_is_tried_again_with_other_decoders(raw, later, monkeypatch):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    cut = []

    def note(job, tick):
        cut.append(job.path.name)
        return work.cut(job, tick)

    monkeypatch.setattr(processing, "cut", note)
    monkeypatch.setattr(work, "ffmpeg_version", lambda: "newer")
    run(raw, force=True, cache=cache)
    assert cut == ["bad.wav"]
    cut.clear()
    monkeypatch.setattr(work, "package_versions", lambda _names: {"soxr": "newer"})
    run(raw, force=True, cache=cache)
    assert len(cut) == 8
    origin = json.loads((raw.parent / "clips/segment.json").read_text())
    assert origin["versions"]["soxr"] == origin["versions"]["ffmpeg"] == "newer"
    assert "libsndfile" in origin["versions"]


@pytest.mark.parametrize("damage", ["short", "changed", "gone", "result", "view"])
def test_a_damaged_entry_is_made_again(raw, later, damage):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    before = tree(raw)
    tar = next(iter((cache / "segment").glob("*/*/clips.tar")))
    result = tar.with_name("result.json")
    if damage == "short":
        copy = tar.read_bytes()[:-512]
        tar.unlink()
        tar.write_bytes(copy)
    elif damage == "changed":  # through a link in some clips folder
        tar.chmod(0o644)
        with tar.open("r+b") as file:
            file.write(b"????")
    elif damage == "gone":
        tar.unlink()
    else:
        values = {} if damage == "result" else json.loads(result.read_text()) | {"view": 3}
        result.unlink()
        result.write_text(json.dumps(values))
    run(raw, "again", cache=cache)
    assert tree(raw, "again") == before
    assert tar.exists()


def test_kept_files_are_links_that_nobody_can_write_to(raw, later):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    kept = {path.stat().st_ino for path in (cache / "segment").glob("*/*/clips.tar")}
    placed = list((raw.parent / "clips/audio").iterdir())
    assert {path.stat().st_ino for path in placed} <= kept
    assert all(path.stat().st_mode & 0o222 == 0 for path in placed)
    run(raw, force=True, cache=cache)  # also where they are read-only


def test_a_tar_that_vanishes_before_it_is_linked_is_told(tmp_path):
    with pytest.raises(InputCorruptError, match="vanished") as caught:
        place_tar(tmp_path / "gone.tar", tmp_path, "0" * 64)
    assert "again" in caught.value.hint


def test_where_links_fail_files_are_copied(raw, later, monkeypatch):
    def fail(*_):
        raise OSError("no links here")

    cache = raw.parent / "cache"
    run(raw, cache=cache)
    monkeypatch.setattr(os, "link", fail)
    run(raw, "copied", cache=cache)
    assert tree(raw, "copied") == tree(raw)


def test_a_recording_written_to_while_it_is_read_is_left_for_later(raw, later, monkeypatch):
    real = work.segment_source

    def write_meanwhile(path, *args, **options):
        done = real(path, *args, **options)
        if path.name == "r1.wav":
            path.write_bytes(path.read_bytes() + b"more")
        return done

    cache = raw.parent / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(work, "segment_source", write_meanwhile)
        report = run(raw, cache=cache)
    assert report.sources_skipped["changed_while_reading"] == 1
    report = run(raw, force=True, cache=cache)
    assert "changed_while_reading" not in report.sources_skipped


def test_a_crash_of_the_only_recording_left_does_not_end_the_command(raw, later, monkeypatch):
    cache = raw.parent / "cache"
    run(raw, cache=cache)
    speak(raw / "crash.wav", 50)
    monkeypatch.setattr(processing, "cut", crashing.cut_or_crash)
    report = run(raw, force=True, cache=cache, workers=1)
    assert report.sources_skipped["decoder_crashed"] == 1


def test_a_decoder_that_was_killed_is_no_verdict(raw, later, monkeypatch):
    def killed(path, *args, **options):
        raise work.AudioReadError("decoder_killed", "ffmpeg ended with code 137")

    cache = raw.parent / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(work, "segment_source", killed)
        with pytest.raises(InputEmptyError, match="recordings"):
            run(raw, cache=cache)
    assert run(raw, cache=cache).sources_read == 6


def test_channels_of_opposite_phase_are_no_damage(tmp_path):
    spans, seconds = paced([1.6, 1.9], [0.5] * 3)
    wave = bursts(spans, seconds, RATE_HZ, seed=3)
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw/a.wav", np.stack([wave, -wave], axis=1), RATE_HZ)
    report = run(tmp_path / "raw")
    assert "out_of_phase" in (tmp_path / "clips/sources.jsonl").read_text()
    assert not report.partial


def test_what_a_killed_run_left_in_its_place_is_replaced(raw, tmp_path):
    origin = work.Origin.of(PARAMS)
    file = work.look_at(raw / "r1.wav", lambda _: None)
    job = work.Job(raw / "r1.wav", file, False, origin, None, tmp_path / "scratch")
    job.place.mkdir(parents=True)
    (job.place / "clips.tar").write_text("half")
    assert work.cut(job, lambda _: None) is None
    assert work.find_result(job).clips


@pytest.mark.parametrize("cached", [True, False])
def test_any_number_of_workers_gives_the_same_bytes(raw, cached):
    calls = []
    run(raw, workers=1)
    cache = raw.parent / "cache" if cached else None
    told = {"on_progress": lambda *call: calls.append(call)}
    report = run(raw, "many", workers=2, cache=cache, **told)
    assert report.sources_skipped == {"duplicate": 1, "not_audio": 1, "silent": 1}
    assert tree(raw, "many") == tree(raw)
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(calls[-1][1])


@pytest.mark.parametrize("step", ["cut", pytest.param("look_at", marks=pytest.mark.slow)])
def test_a_decoder_that_crashes_costs_its_recording_alone(raw, later, monkeypatch, step):
    (raw / "r2.wav").rename(raw / "crash.wav")
    replacement = {"cut": crashing.cut_or_crash, "look_at": crashing.look_or_crash}[step]
    monkeypatch.setattr(processing, step, replacement)
    report = run(raw, workers=2, cache=raw.parent / "cache")
    assert report.partial
    assert report.sources_skipped["decoder_crashed"] == 1
    assert report.sources_read == 5
    sources = (raw.parent / "clips/sources.jsonl").read_text()
    assert "decoder_crashed: killed by SIG" in sources
    monkeypatch.undo()
    assert run(raw, force=True, cache=raw.parent / "cache").sources_read == 6


SCRIPT = """
import sys
from pathlib import Path
from kamerton.data import processing, work
from tests.unit.stages import crashing
from tests.unit.stages.test_segment_work import run
processing.cut = crashing.cut_slowly
work.code_digest = lambda _parts: "as it is"
run(Path(sys.argv[1]), workers=2, cache=Path(sys.argv[1]).parent / "cache")
"""


def test_a_kill_loses_only_what_was_under_way(raw, monkeypatch):
    (raw / "r1.wav").rename(raw / "slow.wav")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(raw)], cwd=Path(__file__).resolve().parents[3]
    )
    try:
        # All but the slow one: five recordings, the text and the silence.
        limit = time.monotonic() + 90
        while len(list((raw.parent / "cache/segment").glob("*/[0-9a-f]*"))) < 7:
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.05)
        begun = raw / "slow.wav.begun"
        assert begun.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun.unlink()
    assert not (raw.parent / "clips").exists()
    cut = []

    def note(job, tick):
        cut.append(job.path.name)
        return work.cut(job, tick)

    monkeypatch.setattr(processing, "cut", note)
    monkeypatch.setattr(work, "code_digest", lambda _parts: "as it is")
    run(raw, cache=raw.parent / "cache")
    assert cut == ["slow.wav"]
    assert [path.name for path in raw.parent.glob(".clips.partial*")] == []


def test_everything_that_makes_a_result_is_in_its_key():
    """Modules that the work imports, directly or not, except what cannot change samples."""
    script = (
        "import sys, kamerton.data.work; print(*(n for n in sys.modules if n[:8] == 'kamerton'))"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    modules = listed.stdout.decode().split()
    root = Path(work.__file__).parents[1]
    covered = [part.removesuffix(".py").replace("/", ".") for part in work.CODE]
    harmless = ("core", "config", "data.file_index", "data")
    loose = [
        name
        for name in (module.removeprefix("kamerton.") for module in modules if "." in module)
        if not any(name == part or name.startswith(f"{part}.") for part in covered)
        and name not in harmless
        and not name.startswith(("core.", "config."))
    ]
    assert loose == []
    assert all((root / part).exists() for part in work.CODE)


def test_of_the_audio_parameters_only_the_rate_reaches_the_samples():
    root = Path(work.__file__).parents[1]
    for part in work.CODE:
        if part != "audio":
            used = set(re.findall(r"\baudio\.([a-z_]+)", (root / part).read_text()))
            assert not used & (type(PARAMS.audio).model_fields.keys() - {"sample_rate_hz"}), part


def test_workers_are_all_cores_when_none_are_named(raw, monkeypatch):
    counts = []

    class Noted(Workers):
        def __init__(self, count):
            counts.append(count)
            super().__init__(0)

    monkeypatch.setattr(stage, "Workers", Noted)
    monkeypatch.setattr(stage, "usable_cores", lambda: 7)
    run(raw, workers=0)
    assert counts == [7]
