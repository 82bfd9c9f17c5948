import numpy as np
import pytest

from kamerton.audio.files import encode_flac, read_audio, to_int16, write_flac, write_wav
from kamerton.core.errors import InputCorruptError, InputMissingError
from tests.speechlike import speechlike


@pytest.mark.parametrize(("write", "suffix"), [(write_flac, "flac"), (write_wav, "wav")])
def test_what_is_written_is_read_back(tmp_path, write, suffix):
    wave = speechlike(0.5, 16_000)
    path = tmp_path / f"a.{suffix}"
    write(path, wave, 16_000)
    again, rate_hz = read_audio(path)
    assert rate_hz == 16_000
    assert np.abs(again - wave).max() <= 0.5 / 32768
    write(path, again, 16_000)  # rounded once, it stays
    np.testing.assert_array_equal(read_audio(path)[0], again)


def test_equal_samples_give_equal_bytes():
    wave = speechlike(0.3)
    assert encode_flac(wave, 16_000) == encode_flac(wave.copy(), 16_000)


def test_rounding_and_limits():
    wave = np.array([0.0, 1.0, -1.0, 7.0, -7.0, 1.4 / 32768, 1.6 / 32768])
    assert to_int16(wave).tolist() == [0, 32767, -32768, 32767, -32768, 1, 2]


def test_a_wave_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        to_int16(np.array([0.0, np.nan]))


def test_errors_name_the_file(tmp_path):
    with pytest.raises(InputMissingError, match=r"absent\.wav"):
        read_audio(tmp_path / "absent.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputCorruptError, match=r"text\.wav.*not_audio"):
        read_audio(tmp_path / "text.wav")
    write_wav(tmp_path / "cut.wav", speechlike(1.0), 16_000)
    data = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputCorruptError, match=r"cut\.wav.*truncated"):
        read_audio(tmp_path / "cut.wav")
