import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.flac import FlacHeader


def flac(samples, rate_hz, channels=1, subtype="PCM_16"):
    buffer = io.BytesIO()
    shape = (samples, channels) if channels > 1 else samples
    soundfile.write(buffer, np.zeros(shape), rate_hz, format="FLAC", subtype=subtype)
    return buffer.getvalue()


@given(
    st.integers(1, 200_000),
    st.sampled_from([8000, 16000, 22050, 44100, 48000, 96000]),
    st.integers(1, 8),
    st.sampled_from(["PCM_16", "PCM_24"]),
)
def test_the_header_agrees_with_libsndfile(samples, rate_hz, channels, subtype):
    payload = flac(samples, rate_hz, channels, subtype)
    known = soundfile.info(io.BytesIO(payload))
    header = FlacHeader.parse(payload[:42])
    assert (header.rate_hz, header.channels, header.samples) == (
        known.samplerate,
        known.channels,
        known.frames,
    )
    assert header.seconds == pytest.approx(known.duration)


@pytest.mark.parametrize(
    "payload", [b"", b"fLaC", b"RIFF" + bytes(60), b"fLaC\x04" + bytes(60), b"fLaC" + bytes(60)]
)
def test_anything_else_is_refused(payload):
    with pytest.raises(ValueError, match=r"FLAC file|no length"):
        FlacHeader.parse(payload)


@given(st.binary(max_size=60))
def test_any_bytes_end_in_an_answer_or_a_refusal(payload):
    try:
        header = FlacHeader.parse(b"fLaC\0\0\0\x22" + payload)
    except ValueError:
        return
    assert header.rate_hz > 0
    assert header.samples > 0
