import os
import stat
import struct
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.decode import AudioReadError, open_audio, probe
from kamerton.audio.ffmpeg import ffmpeg_command
from tests.recordings import write_sound
from tests.speechlike import speechlike

RATE_HZ = 22_050


def decode(path):
    with open_audio(path) as stream:
        blocks = list(stream.blocks())
    wave = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    return wave, stream


@pytest.fixture(scope="module")
def wave():
    return speechlike(3.2, RATE_HZ)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 1 / 32000),
        ("a.wav", {"subtype": "PCM_24"}, 1e-6),
        ("a.wav", {"subtype": "FLOAT"}, 0.0),
        ("a.wav", {"subtype": "PCM_U8"}, 1 / 100),
        ("a.aiff", {"subtype": "PCM_16"}, 1 / 32000),
        ("a.flac", {"subtype": "PCM_24"}, 1e-6),
    ],
)
def test_lossless_formats_give_the_samples_back(tmp_path, wave, name, options, tolerance):
    decoded, stream = decode(write_sound(tmp_path / name, wave, RATE_HZ, **options))
    assert len(decoded) == len(wave)
    assert np.abs(decoded - wave).max() <= tolerance
    assert (stream.format.rate_hz, stream.format.channels) == (RATE_HZ, 1)
    assert (stream.frames, stream.repaired, stream.damage) == (len(wave), 0, None)


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_lossy_formats_give_the_same_sound_in_the_same_place(tmp_path, wave, name):
    decoded, stream = decode(write_sound(tmp_path / name, wave, RATE_HZ))
    size = min(len(decoded), len(wave))
    assert abs(len(decoded) - len(wave)) < 0.1 * RATE_HZ
    assert np.corrcoef(decoded[:size], wave[:size])[0, 1] > 0.97
    assert stream.damage is None


def test_decoder_remarks_do_not_reach_the_terminal(tmp_path, wave, capfd):
    path = write_sound(tmp_path / "a.mp3", wave, RATE_HZ)
    path.write_bytes(path.read_bytes()[:-100])
    decode(path)
    with pytest.raises(AudioReadError):
        decode_bytes(tmp_path, b"\xff\xfb\x90\x00" * 10)
    assert capfd.readouterr().err == ""


def test_stereo_is_averaged(tmp_path, wave):
    both = np.stack([wave, 0.5 * wave], axis=1)
    decoded, stream = decode(write_sound(tmp_path / "a.flac", both, 48_000, subtype="PCM_24"))
    assert stream.format.channels == 2
    np.testing.assert_allclose(decoded, 0.75 * wave, atol=1e-6)


def test_memory_does_not_hold_the_file(tmp_path, wave):
    path = write_sound(tmp_path / "a.wav", np.tile(wave, 10), RATE_HZ)
    with open_audio(path) as stream:
        lengths = [len(block) for block in stream.blocks()]
    assert max(lengths) <= 1 << 15
    assert sum(lengths) == 10 * len(wave)


def test_probe_reads_the_header_only(tmp_path, wave):
    header = probe(write_sound(tmp_path / "a.flac", wave, 44_100))
    assert (header.rate_hz, header.channels, header.declared_frames) == (44_100, 1, len(wave))
    assert header.container == "FLAC"


def test_what_is_no_sound_becomes_silence_and_is_counted(tmp_path, wave):
    broken = wave.copy()
    broken[[5, 700, 800]] = [np.nan, np.inf, -1e30]
    decoded, stream = decode(write_sound(tmp_path / "a.wav", broken, RATE_HZ, subtype="FLOAT"))
    assert stream.repaired == 3
    assert (decoded[[5, 700, 800]] == 0.0).all()
    assert decoded[6] == wave[6]


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_a_truncated_file_gives_what_is_there_and_says_so(tmp_path, wave, name, share):
    path = write_sound(tmp_path / name, np.tile(wave, 4), RATE_HZ)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    decoded, stream = decode(path)
    # FLAC loses the block that it breaks off in.
    assert 0.5 * share < len(decoded) / (4 * len(wave)) < share + 0.05
    assert stream.damage is not None
    np.testing.assert_allclose(decoded[:20_000], np.tile(wave, 4)[:20_000], atol=0.1)


def test_a_wav_of_unknown_length_is_not_called_truncated(tmp_path, wave):
    path = write_sound(tmp_path / "a.wav", wave, RATE_HZ, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)  # as programs write to a pipe
    path.write_bytes(bytes(data))
    decoded, stream = decode(path)
    assert len(decoded) == len(wave)
    assert stream.damage is None


def decode_bytes(folder, data):
    path = folder / "odd.wav"
    path.write_bytes(data)
    return decode(path)


@pytest.mark.parametrize(
    "data",
    [b"RIFF", b"hello" * 1000, bytes(5000), b"ID3" + bytes(4000), b"fLaC" + bytes(100)],
    ids=["stub", "text", "zeros", "id3", "flac"],
)
def test_what_is_not_audio_has_a_reason_without_a_path(tmp_path, data):
    with pytest.raises(AudioReadError, match=r"^not_audio") as caught:
        decode_bytes(tmp_path, data)
    assert str(tmp_path) not in str(caught.value)


@given(data=st.data())
def test_no_header_crashes_the_decoder(tmp_path_factory, data):
    """Real headers with bytes changed, cut or inserted: a reason or some samples, never more."""
    folder = tmp_path_factory.mktemp("fuzz")
    kind = data.draw(st.sampled_from(["wav", "flac", "aiff", "au"]))
    path = write_sound(folder / f"a.{kind}", np.zeros(300, dtype=np.float32), 16_000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(80, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path.write_bytes(bytes(content))
    try:
        decoded, stream = decode(path)
    except AudioReadError:
        return
    assert np.isfinite(decoded).all()
    assert len(decoded) == stream.frames


def test_missing_empty_and_unreadable_files_have_reasons(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait for ever
    cases = {
        "absent.wav": "not_found",
        "empty.wav": "empty_file",
        "link.wav": "broken_link",
        "loop.wav": "not_readable",
        "pipe.wav": "not_a_file",
        ".": "not_a_file",
    }
    for name, reason in cases.items():
        with pytest.raises(AudioReadError) as caught:
            probe(tmp_path / name)
        assert caught.value.reason == reason


def test_a_rate_that_no_recorder_has_is_refused(tmp_path):
    path = write_sound(tmp_path / "a.wav", np.zeros(100, dtype=np.float32), 100)
    with pytest.raises(AudioReadError, match="implausible_sample_rate: 100 Hz"):
        probe(path)


@pytest.mark.parametrize("name", ["голос.wav", "声 音.flac", "-v.wav", "a%s{}.wav"])
def test_names_of_any_kind(tmp_path, wave, name):
    assert len(decode(write_sound(tmp_path / name, wave, RATE_HZ))[0]) == len(wave)


FAKE_FFMPEG = """#!{python}
import struct, sys
import numpy as np
path = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:")
data = open(path, "rb").read()
if not data.startswith(b"FAKE"):
    sys.exit(1)
samples = np.frombuffer(data[4:], dtype="<f4").astype(">f4")
sys.stdout.buffer.write(struct.pack(">4s5I", b".snd", 32, 0xFFFFFFFF, 6, 44100, 2) + bytes(8))
sys.stdout.buffer.write(samples.tobytes())
if path.endswith("hole.m4a"):
    print("[aac @ 0x55] [dec:aac @ 0x66] Error in", path + ": no data\\nmore", file=sys.stderr)
sys.exit(3 if path.endswith("broken.m4a") else 0)
"""


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """A program named ffmpeg that reads a format of its own, in place of the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FAKE_FFMPEG.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_ffmpeg_reads_what_libsndfile_cannot(tmp_path, wave, fake_ffmpeg):
    both = np.stack([wave, -0.5 * wave], axis=1).astype("<f4")
    path = tmp_path / "a b.m4a"
    path.write_bytes(b"FAKE" + both.tobytes())
    decoded, stream = decode(path)
    assert (stream.format.rate_hz, stream.format.channels) == (44_100, 2)
    np.testing.assert_allclose(decoded, 0.25 * wave, atol=1e-6)
    assert stream.damage is None


def test_ffmpeg_failing_halfway_is_damage(tmp_path, wave, fake_ffmpeg):
    path = tmp_path / "broken.m4a"
    path.write_bytes(b"FAKE" + np.stack([wave, wave], axis=1).astype("<f4").tobytes())
    decoded, stream = decode(path)
    assert len(decoded) == len(wave)
    assert stream.damage == "broken_data: ffmpeg ended with code 3; 1.60 s could be read"


def test_what_ffmpeg_complains_of_is_damage_though_it_goes_on(tmp_path, wave, fake_ffmpeg):
    path = tmp_path / "hole.m4a"
    path.write_bytes(b"FAKE" + np.stack([wave, wave], axis=1).astype("<f4").tobytes())
    decoded, stream = decode(path)
    assert len(decoded) == len(wave)
    assert stream.damage == "broken_data: Error in hole.m4a: no data"


def test_ffmpeg_refusing_too_is_not_audio(tmp_path, fake_ffmpeg):
    with pytest.raises(AudioReadError, match="not_audio: neither libsndfile nor ffmpeg"):
        decode_bytes(tmp_path, b"\x01\x02something else" * 9)


def test_ffmpeg_is_given_a_local_file_and_no_shell(tmp_path):
    command = ffmpeg_command(tmp_path / "a; rm -rf.m4a")
    assert f"file:{tmp_path}/a; rm -rf.m4a" in command
    assert command[command.index("-protocol_whitelist") + 1] == "file,pipe"


def test_test_files_are_what_they_are_called(tmp_path, wave):
    """The formats above are really different ones."""
    path = write_sound(tmp_path / "a.mp3", wave, RATE_HZ)
    assert soundfile.info(path).format in ("MP3", "MPEG")


def test_a_file_that_vanishes_while_it_is_read_is_told(tmp_path, wave):
    path = tmp_path / "a.wav"
    write_sound(path, wave, RATE_HZ)
    with open_audio(path) as stream:
        blocks = stream.blocks()
        next(blocks)
        path.unlink()
        with pytest.raises(AudioReadError) as caught:
            list(blocks)
    assert caught.value.reason == "changed_while_reading"


@pytest.mark.parametrize("when", ["open", "read"])
def test_a_system_that_fails_says_nothing_of_the_file(tmp_path, wave, monkeypatch, when):
    path = tmp_path / "a.wav"
    write_sound(path, wave, RATE_HZ)

    def fail(*_args, **_options):
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(soundfile.SoundFile, "__init__" if when == "open" else "read", fail)
    monkeypatch.setattr(soundfile.SoundFile, "__del__", lambda _self: None)
    with pytest.raises(AudioReadError) as caught:
        decode(path)
    assert caught.value.reason == "not_readable"


@pytest.mark.parametrize("script", ["kill -9 $$", "exit 137"])
def test_ffmpeg_that_is_killed_says_nothing_of_the_file(tmp_path, monkeypatch, script):
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + b"x" * 500)
    with pytest.raises(AudioReadError) as caught:
        decode(tmp_path / "a.m4a")
    assert caught.value.reason == "decoder_killed"
