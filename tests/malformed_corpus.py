"""Broken and odd inputs that people have, each with what must become of it.

`write_corpus` lays them all into one folder beside two good recordings.
"""

import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from tests import malformed_files as make
from tests.malformed_files import RATE_HZ, encoded, put, put_wave, speech, wav
from tests.recordings import with_noise

READ, SKIPPED, IGNORED = "read", "skipped", "ignored"
GOOD = ("a good one.wav", "another good one.flac")


@dataclass(frozen=True, slots=True)
class Malformed:
    """One input.

    Attributes:
        name: its place below the folder of recordings.
        write: makes it, given its path; folders above exist.
        status: READ or SKIPPED as in sources.jsonl; IGNORED has no row there.
        reasons: codes of which one must come first; empty means that there is none.
        clips: whether clips must come of it.
    """

    name: str
    write: Callable[[Path], object]
    status: str
    reasons: frozenset[str]
    clips: bool = False


def skipped(name, write, *reasons):
    return Malformed(name, write, SKIPPED, frozenset(reasons))


def damaged(name, write, *reasons):
    """Read as far as possible; there is sound enough for clips."""
    return Malformed(name, write, READ, frozenset(reasons), clips=True)


def fine(name, write):
    """Odd, but nothing is wrong with it."""
    return Malformed(name, write, READ, frozenset(), clips=True)


def ignored(name, write):
    return Malformed(name, write, IGNORED, frozenset())


def _zip():
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.wav", encoded(1, "WAV"))
    return buffer.getvalue()


HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>gone</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567\n"

NO_SOUND = [
    skipped("empty.wav", put(b""), "empty_file"),
    skipped("text.wav", put(b"these are my notes\n" * 40), "not_audio"),
    skipped("error page.mp3", put(HTML), "not_audio"),
    skipped("error.ogg", put(b'{"error": "quota exceeded", "code": 403}'), "not_audio"),
    skipped("pointer.flac", put(LFS), "not_audio"),
    skipped("archive.wav", put(_zip), "not_audio"),
    skipped("paper.flac", put(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(900)), "not_audio"),
    skipped("photo.mp3", put(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(900)), "not_audio"),
    skipped("picture.wav", put(make.png), "not_audio"),
    skipped("zeros.wav", put(bytes(6000)), "not_audio"),
    skipped("random.wav", put(make.noise_bytes(6000, 1)), "not_audio"),
    skipped("random.flac", put(b"fLaC" + make.noise_bytes(6000, 2)), "not_audio"),
    skipped("random.ogg", put(b"OggS" + make.noise_bytes(6000, 3)), "not_audio"),
    skipped("list.m3u", put(b"#EXTM3U\n#EXTINF:3,a\na good one.wav\n"), "not_audio"),
    skipped("Thumbs.db", put(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4000)), "not_audio"),
    skipped("voice.m4a", put(make.mp4), "needs_ffmpeg", "not_audio"),
    skipped("film.mp4", put(lambda: make.mp4(b"isom")), "needs_ffmpeg", "not_audio"),
    skipped("film.mkv", put(b"\x1aE\xdf\xa3" + bytes(3000)), "needs_ffmpeg", "not_audio"),
    skipped("memo.amr", put(b"#!AMR\n" + bytes(3000)), "needs_ffmpeg", "not_audio"),
    skipped("talk.wma", put(b"0&\xb2u\x8ef\xcf\x11" + bytes(3000)), "needs_ffmpeg", "not_audio"),
    skipped("voice.aac", put(b"\xff\xf1P\x80" * 400), "needs_ffmpeg", "not_audio"),
]


def _start(container, size, subtype=None):
    return put(lambda: encoded(1, container, subtype)[:size])


BROKEN_OFF_IN_THE_HEADER = [
    skipped("stub.wav", _start("WAV", 12), "not_audio"),
    skipped("stub fmt.wav", _start("WAV", 30), "not_audio"),
    skipped("stub.flac", _start("FLAC", 20), "not_audio"),
    skipped("stub.ogg", _start("OGG", 40), "not_audio"),
    skipped("stub.opus", _start("OGG", 40, "OPUS"), "not_audio"),
    skipped("stub.mp3", _start("MP3", 3), "not_audio"),
    skipped("stub.aiff", _start("AIFF", 12), "not_audio"),
    skipped("stub.au", _start("AU", 8), "not_audio"),
    skipped("stub.caf", _start("CAF", 10), "not_audio"),
    skipped("stub.w64", _start("W64", 20), "not_audio"),
    skipped("stub.rf64", _start("RF64", 20), "not_audio"),
]

ODD_WAV_HEADERS = [
    damaged("size 0.wav", put(lambda: wav(2, data_size=0)), "wrong_length"),
    fine("size of a pipe.wav", put(lambda: wav(3, data_size=0xFFFFFFFF))),
    damaged("size too large.wav", put(lambda: wav(4, data_size=400_000)), "truncated"),
    fine("size of RIFF 0.wav", put(lambda: wav(5, riff_size=0))),
    damaged("odd size.wav", put(lambda: wav(6, data_size=2 * 60_000 + 1)), "wrong_length"),
    skipped("no fmt.wav", put(lambda: wav(7, fmt=False)), "not_audio"),
    skipped("no data.wav", put(lambda: wav(7)[:36]), "not_audio", "no_samples"),
    skipped("no samples.wav", put_wave(np.zeros(0)), "no_samples"),
    skipped("data first.wav", put(lambda: make.wav_with_data_first(7)), "not_audio"),
    skipped("no channels.wav", put(lambda: wav(7, channels=0, align=2)), "not_audio"),
    skipped("many channels.wav", put(lambda: wav(7, channels=60_000)), "not_audio"),
    skipped("0 Hz.wav", put(lambda: wav(7, rate_hz=0)), "not_audio", "implausible_sample_rate"),
    skipped("1 Hz.wav", put(lambda: wav(7, rate_hz=1)), "implausible_sample_rate"),
    skipped("10 MHz.wav", put(lambda: wav(7, rate_hz=10_000_000)), "implausible_sample_rate"),
    skipped("4 GHz.wav", put(lambda: wav(7, rate_hz=4_294_967_295)), "not_audio",
            "implausible_sample_rate"),
    skipped("0 bits.wav", put(lambda: wav(7, bits=0, align=2)), "not_audio"),
    Malformed("3 bits.wav", put(lambda: wav(7, bits=3, align=1)), READ, frozenset({""})),
    skipped("65535 bits.wav", put(lambda: wav(7, bits=65_535, align=8192)), "not_audio"),
    fine("no alignment.wav", put(lambda: wav(7, align=0))),
    skipped("unknown codec.wav", put(lambda: wav(7, codec=0x9999)), "not_audio"),
    skipped("wrong blocks.wav", put(lambda: make.ima_adpcm(7, 3)), "not_audio"),
    fine("junk before.wav", put(lambda: wav(8, before=make.chunk(b"LIST", bytes(999))))),
    fine("junk after.wav", put(lambda: wav(9, after=make.id3_tag()))),
    skipped("junk of 4 GB.wav", put(lambda: wav(7, before=make.chunk(b"JUNK", b"", 0xFFFFFFF0))),
            "not_audio", "no_samples"),
]  # fmt: skip


def _part(container, number, share, subtype=None):
    def data():
        whole = encoded(number, container, subtype)
        return whole[: int(share * len(whole))]

    return put(data)


BROKEN_OFF_IN_THE_SOUND = [
    damaged("cut.wav", _part("WAV", 20, 0.6), "truncated"),
    damaged("cut.flac", _part("FLAC", 21, 0.6), "truncated", "broken_data"),
    damaged("cut.aiff", _part("AIFF", 22, 0.6), "truncated"),
    damaged("cut.mp3", _part("MP3", 23, 0.7), "truncated"),
    damaged("cut.w64", _part("W64", 24, 0.6), "truncated"),
    damaged("cut.caf", _part("CAF", 25, 0.6), "truncated"),
    damaged("cut.au", _part("AU", 26, 0.6), "truncated"),
    Malformed("cut.ogg", put(lambda: make.ogg_without_pages(27, lambda i, n: i < n - 1)),
              READ, frozenset({"", "truncated"}), clips=True),
    damaged("hole.ogg", put(lambda: make.ogg_without_pages(28, lambda i, n: i != n // 2)),
            "truncated"),
    skipped("headers only.ogg", put(lambda: make.ogg_without_pages(28, lambda i, _n: i < 2)),
            "no_samples", "not_audio"),
    damaged("hole.flac", put(lambda: make.flac_with(29, make.break_frames)), "broken_data"),
    damaged("two holes.flac", put(lambda: make.flac_with(30, lambda data: (
        make.break_frames(data, 0.1), make.break_frames(data, 0.9)))), "broken_data"),
    fine("wrong md5.flac", put(lambda: make.flac_with(31, make.break_md5))),
    fine("unknown length.flac", put(lambda: make.flac_of_unknown_length(32))),
    skipped("only a tag.mp3", put(make.id3_tag()), "not_audio"),
    fine("tag in front.mp3", put(lambda: make.id3_tag() + encoded(33, "MP3"))),
    fine("rubbish in front.mp3", put(lambda: bytes(700) + encoded(34, "MP3"))),
    damaged("hole.mp3", put(lambda: _holed_mp3(35)), "", "broken_data", "truncated"),
]  # fmt: skip


def _holed_mp3(number):
    data = bytearray(encoded(number, "MP3"))
    make.break_frames(data, 0.4, 1000)
    return bytes(data)


def _with(number, place, value):
    wave = speech(number).copy()
    wave[place] = value
    return wave


def _quiet(level, seed=1):
    return lambda: level * np.random.default_rng(seed).standard_normal(4 * RATE_HZ)


def _tone(hz):
    return lambda: 0.3 * np.sin(2 * np.pi * hz * np.arange(4 * RATE_HZ) / RATE_HZ)


ODD_SOUND = [
    damaged("nan.wav", put_wave(lambda: _with(40, slice(100, 200), np.nan), subtype="FLOAT"),
            "not_finite"),
    damaged("infinite.wav", put_wave(lambda: _with(41, 5, -np.inf), subtype="DOUBLE"),
            "not_finite"),
    damaged("huge.wav", put_wave(lambda: _with(42, 5, 1e30), subtype="FLOAT"), "not_finite"),
    skipped("all nan.wav", put_wave(np.full(RATE_HZ, np.nan), subtype="FLOAT"), "silent"),
    fine("integers as floats.wav", put_wave(lambda: 32768 * speech(43), subtype="FLOAT")),
    fine("denormal pauses.wav", put_wave(lambda: speech(44) + 1e-40, subtype="FLOAT")),
    fine("offset.wav", put_wave(lambda: speech(45) * 0.5 + 0.3)),
    fine("very quiet.flac", put_wave(lambda: speech(46) * 0.003, "FLAC", "PCM_24")),
    Malformed("clipped.wav", put_wave(lambda: np.clip(6 * speech(47), -1, 1)),
              READ, frozenset({"", "clipped"}), clips=True),
    skipped("silence.wav", put_wave(np.zeros(4 * RATE_HZ)), "silent"),
    skipped("constant.wav", put_wave(np.full(4 * RATE_HZ, 0.25)), "silent"),
    skipped("last bits.wav", put_wave(_quiet(2e-5)), "silent"),
    skipped("noise.wav", put_wave(_quiet(0.05)), "no_speech"),
    skipped("tone.wav", put_wave(_tone(440)), "no_speech"),
    skipped("1 sample.wav", put_wave(np.array([0.5])), "no_speech", "silent", "too_short"),
    skipped("3 samples.flac", put_wave(np.array([0.5, -0.2, 0.1]), "FLAC"),
            "no_speech", "silent", "too_short"),
    Malformed("50 ms.wav", put_wave(lambda: speech(48)[16_000:16_800]), SKIPPED,
              frozenset({"no_speech", "too_short"})),
]  # fmt: skip


def _stereo(number, *gains):
    return lambda: speech(number)[:, None] * np.array(gains, dtype=np.float32)


def _wideband():
    from kamerton.audio.resample import resample

    return resample(speech(60), RATE_HZ, 192_000)


def _telephone():
    return speech(61, 8000)


ODD_FORMATS = [
    fine("24 bits.wav", put(lambda: encoded(50, "WAV", "PCM_24"))),
    fine("32 bits.wav", put(lambda: encoded(51, "WAV", "PCM_32"))),
    fine("doubles.wav", put(lambda: encoded(52, "WAV", "DOUBLE"))),
    fine("mu-law.wav", put(lambda: encoded(53, "WAV", "ULAW"))),
    fine("A-law.au", put(lambda: encoded(54, "AU", "ALAW"))),
    fine("8 bits.wav", put_wave(lambda: with_noise(speech(55), "white", 45), subtype="PCM_U8")),
    fine("adpcm.wav", put(lambda: encoded(56, "WAV", "IMA_ADPCM"))),
    fine("gsm.wav", put_wave(lambda: speech(57, 8000), subtype="GSM610", rate_hz=8000)),
    fine("vox.rf64", put(lambda: encoded(58, "RF64"))),
    fine("extensible.wav", put(lambda: encoded(59, "WAVEX"))),
    fine("192 kHz.flac", put_wave(_wideband, "FLAC", rate_hz=192_000)),
    fine("telephone.wav", put_wave(_telephone, rate_hz=8000)),
    fine("opus.opus", put(lambda: encoded(62, "OGG", "OPUS"))),
    fine("6 channels.flac", put_wave(_stereo(63, 1, 1, 1, 0.1, 0.5, 0.5), "FLAC")),
    fine("64 channels.wav", put_wave(_stereo(64, *np.linspace(0.2, 0.9, 64)))),
    fine("one channel silent.wav", put_wave(_stereo(65, 1, 0))),
    Malformed("turned round.wav", put_wave(_stereo(66, 1, -1)), READ,
              frozenset({"out_of_phase"}), clips=True),
]  # fmt: skip


def _missing_target(path):
    path.symlink_to("nowhere.wav")


def _loop(path):
    path.symlink_to(path.name)


def _copy_of_good(path):
    path.write_bytes((path.parent / GOOD[0]).read_bytes())


def _link_to_good(path):
    path.symlink_to(GOOD[1])


def _name(number):
    return put(lambda: encoded(number, "FLAC"))


_DEEP = "/".join(f"folder {level}" for level in range(40))

ODD_FILES = [
    skipped("pipe.wav", make.put_fifo, "not_a_file"),
    skipped("link to nowhere.wav", _missing_target, "broken_link"),
    skipped("link to itself.wav", _loop, "not_readable"),
    skipped("no permission.wav", make.put_without_permission, "not_readable"),
    skipped("z copy.wav", _copy_of_good, "duplicate"),
    skipped("z link.wav", _link_to_good, "duplicate"),
    fine("a folder.wav/inside.wav", _name(70)),
    ignored(".hidden.wav", _name(71)),
    ignored("._a good one.wav", put(b"\0\5\x16\7" + bytes(4000))),
    ignored("lonely notes.txt", put(b"no recording has this name")),
    fine(f"{_DEEP}/deep.flac", _name(72)),
    fine("two\nlines.flac", _name(73)),
    fine("голос عربي 声 音 हिन्दी 🎙.flac", _name(74)),
    fine("é composed.flac", _name(75)),
    fine("é decomposed.flac", _name(76)),
    fine("n" * 250 + ".flac", _name(77)),
    fine("-rf --help.flac", _name(78)),
    fine("$(touch x) `y` %s {} ;&|<b>'\".flac", _name(79)),
    fine("UPPER.FLAC", _name(80)),
    fine("twice.wav.flac", _name(81)),
    fine("wrong ending.wav", _name(82)),
    fine("no ending", _name(83)),
    fine(" blanks .flac", _name(84)),
    fine(os.fsdecode(b"caf\xe9.flac"), _name(85)),
    fine("CON.flac", _name(86)),
]

ALL: tuple[Malformed, ...] = (
    *NO_SOUND,
    *BROKEN_OFF_IN_THE_HEADER,
    *ODD_WAV_HEADERS,
    *BROKEN_OFF_IN_THE_SOUND,
    *ODD_SOUND,
    *ODD_FORMATS,
    *ODD_FILES,
)


def possible(entry):
    """Whether this user can make the input: root may read everything."""
    return entry.name != "no permission.wav" or os.geteuid() != 0


def write_corpus(folder):
    """Make all inputs and the two good recordings; the inputs that could be made."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(GOOD, start=1):
        (folder / name).write_bytes(encoded(90 + number, name.rpartition(".")[2].upper()))
    made = [entry for entry in ALL if possible(entry)]
    for entry in made:
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        entry.write(path)
    return made


def remove_corpus(folder):
    """Give back the permissions that would keep a test's folder from being cleared."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and not path.stat().st_mode & stat.S_IRUSR:
            path.chmod(0o600)


def name_in_report(entry):
    """The name as sources.jsonl has it: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(entry.name).decode("utf-8", errors="backslashreplace")
