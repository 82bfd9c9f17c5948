"""Files that crashed recorders, bad disks and broken downloads leave: all that is there is read."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.decode import AudioReadError, open_audio
from kamerton.audio.headers import length_repair
from kamerton.audio.signatures import sniff
from tests import malformed_files as make
from tests.malformed_files import RATE_HZ, encoded, speech, wav


def decode(path):
    with open_audio(path) as stream:
        blocks = list(stream.blocks())
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks]), stream


def decode_bytes(folder, data, name="a.bin"):
    (folder / name).write_bytes(data)
    return decode(folder / name)


@pytest.mark.parametrize("data_size", [0, 36, 4242, 120_001])
def test_a_wav_whose_length_was_never_written_is_read_whole(tmp_path, data_size):
    decoded, stream = decode_bytes(tmp_path, wav(1, data_size=data_size))
    np.testing.assert_allclose(decoded, speech(1), atol=1e-4)
    assert stream.problems == [
        f"wrong_length: the header tells of {data_size} bytes of sound, 160000 are there and "
        "were read"
    ]
    assert stream.gaps == []


@pytest.mark.parametrize(
    "after",
    [
        make.chunk(b"LIST", bytes(5000)),
        make.chunk(b"bext", bytes(602)) + make.chunk(b"iXML", b"<a>" * 999),
        make.id3_tag(5000),
        b"TAG" + bytes(3000),
        bytes(3000),
    ],
    ids=["list", "two", "id3", "tag", "padding"],
)
def test_notes_behind_the_sound_are_no_sound(tmp_path, after):
    decoded, stream = decode_bytes(tmp_path, wav(2, after=after))
    assert len(decoded) == len(speech(2))
    assert stream.problems == []


def test_an_empty_wav_with_notes_is_empty(tmp_path):
    data = wav(2, data_size=0)[:44] + make.chunk(b"LIST", bytes(5000))
    decoded, stream = decode_bytes(tmp_path, data)
    assert len(decoded) == 0
    assert stream.problems == []


def test_a_wav_of_more_than_four_gigabytes_is_read_to_its_end(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav(1, data_size=5000)[:44])
    size = 2**32 + 5000  # what is left of it in 32 bits is 5000
    os.truncate(path, 44 + size)
    with open_audio(path) as stream:
        assert stream.format.declared_frames == pytest.approx(2**31, rel=0.01)


@given(st.binary(max_size=300), st.integers(0, 60))
def test_no_header_confuses_the_repair(tmp_path_factory, noise, place):
    data = bytearray(wav(1)[:400] + bytes(range(256)) * 8)
    data[place : place + len(noise)] = noise
    path = tmp_path_factory.mktemp("header") / "a.wav"
    path.write_bytes(bytes(data))
    repair = length_repair(path)
    if repair is not None:
        assert 0 < repair.share <= 1
        assert 0 <= repair.place < len(data)


@pytest.mark.parametrize("container", ["AIFF", "AU", "W64", "CAF", "WAV", "RF64"])
def test_a_cut_file_tells_how_much_of_it_is_there(tmp_path, container):
    whole = encoded(3, container)
    decoded, stream = decode_bytes(tmp_path, whole[: int(0.6 * len(whole))])
    assert 2.9 < len(decoded) / RATE_HZ < 3.1
    np.testing.assert_allclose(decoded, speech(3)[: len(decoded)], atol=1e-4)
    read, _, rest = stream.problems[0].removeprefix("truncated: ").partition(" s of ")
    assert float(read) == pytest.approx(len(decoded) / RATE_HZ, abs=0.01)
    assert rest == "5.00 s are there" or container == "W64"
    assert stream.gaps == [(len(decoded), len(decoded))]


@pytest.mark.parametrize(
    ("holes", "at_most_lost"), [((0.3,), 0.6), ((0.1, 0.5, 0.9), 1.8)], ids=["one", "three"]
)
def test_flac_behind_a_broken_place_is_read_in_time(tmp_path, holes, at_most_lost):
    wave = np.concatenate([speech(4), speech(5), speech(6)])
    data = bytearray(make.encode(wave, "FLAC"))
    for share in holes:
        make.break_frames(data, share)
    decoded, stream = decode_bytes(tmp_path, bytes(data))
    assert len(decoded) == len(wave)
    sound = np.ones(len(wave), dtype=bool)
    for start, end in stream.gaps:
        sound[start:end] = False
        assert not decoded[start:end].any()
    np.testing.assert_allclose(decoded[sound], wave[sound], atol=1e-4)
    assert len(stream.gaps) == len(holes)
    assert (~sound).sum() < at_most_lost * RATE_HZ
    assert stream.problems[0].startswith(f"broken_data: {(~sound).sum() / RATE_HZ:.2f} s in ")


def test_a_broken_last_frame_is_the_end(tmp_path):
    whole = encoded(7, "FLAC")
    decoded, stream = decode_bytes(tmp_path, whole[: int(0.6 * len(whole))])
    np.testing.assert_allclose(decoded, speech(7)[: len(decoded)], atol=1e-4)
    assert 2.5 < len(decoded) / RATE_HZ < 3.5
    assert "could be read" in stream.problems[0]
    assert stream.gaps == [(len(decoded), len(decoded))]


def test_a_flac_stream_of_unknown_length_is_read_whole(tmp_path):
    decoded, stream = decode_bytes(tmp_path, make.flac_of_unknown_length(8))
    assert len(decoded) >= len(speech(8)) - 1  # libsndfile trips over the very last sample
    np.testing.assert_allclose(decoded, speech(8)[: len(decoded)], atol=1e-4)
    assert (stream.problems, stream.gaps) == ([], [])
    assert stream.format.declared_frames is None


def test_an_ogg_stream_without_its_last_page_says_so(tmp_path):
    data = make.ogg_without_pages(9, lambda index, count: index < count - 1)
    decoded, stream = decode_bytes(tmp_path, data)
    assert 15.0 < len(decoded) / RATE_HZ < 20.0
    assert stream.problems == ["truncated: the stream has no end mark"]


@pytest.mark.parametrize("more", [True, False])
def test_a_file_that_is_written_to_while_it_is_read_is_no_recording_yet(tmp_path, more):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(1))
    with open_audio(path) as stream:
        blocks = stream.blocks()
        next(blocks)
        os.truncate(path, 400_000 if more else 90_000)
        with pytest.raises(AudioReadError, match=r"^changed_while_reading"):
            list(blocks)


def test_a_file_that_only_its_name_makes_sound_is_refused(tmp_path):
    for name in ("a.au", "a.gsm", "a.vox"):
        with pytest.raises(AudioReadError, match="not_audio"):
            decode_bytes(tmp_path, bytes(range(256)) * 4, name)


@pytest.mark.parametrize(
    ("head", "name", "for_ffmpeg"),
    [
        (make.mp4(), "an MP4 file", True),
        (b"\x1aE\xdf\xa3" + bytes(99), "a Matroska", True),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive", False),
        (b"\n <HTML><body>" + b" " * 99, "a web page", False),
        (b'{"error": "gone"}', "text", False),
        ("привет, мир".encode() * 9, "text", False),
        ("привет, мир".encode()[:-1], "text", False),
        (bytes(99), "nothing but zero bytes", False),
        (b"RIFF\x01", "cut off after 5 bytes", False),
    ],
)
def test_what_people_take_for_sound_is_named(head, name, for_ffmpeg):
    kind = sniff(head)
    assert kind.name.startswith(name)
    assert kind.for_ffmpeg is for_ffmpeg


@pytest.mark.parametrize(
    "head",
    [wav(1)[:100], make.noise_bytes(100, 1), encoded(1, "MP3")[:100], struct.pack("9I", *range(9))],
)
def test_what_is_not_known_is_not_named(head):
    assert sniff(head) is None


def test_ffmpeg_is_asked_for_by_name_where_it_could_help(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioReadError) as caught:
        decode_bytes(tmp_path, make.mp4(), "voice.m4a")
    assert caught.value.reason == "needs_ffmpeg"
    assert "install ffmpeg" in caught.value.detail
    with pytest.raises(AudioReadError, match="it is a playlist"):
        decode_bytes(tmp_path, b"#EXTM3U\n/etc/passwd\n")
