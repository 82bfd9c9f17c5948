"""`say`: the champion, a voice by its folder, and what to do when there is neither."""

import numpy as np
import pytest
import soundfile

from kamerton.cli.main import exit_code
from kamerton.config.schema import AudioParams, TextParams
from kamerton.core.errors import InputMissingError, UsageError
from kamerton.serving.synthesizer import champion_folder, speak
from kamerton.tracking.model_registry import EVALUATION_TAG, MODEL_TAG, ModelRegistry
from tests.evaluations import small_params

AUDIO = AudioParams(
    sample_rate_hz=8000, fft_samples=256, window_samples=256, hop_samples=64, mel_channels=16,
    mel_fmax_hz=4000.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """An exported voice that was never trained: it babbles, but as a voice does."""
    import torch

    from kamerton.model.description import VoiceDescription
    from kamerton.model.export import export_voice
    from kamerton.model.tacotron2.architecture import Architecture
    from kamerton.model.tacotron2.model import Tacotron2
    from kamerton.text.symbols import SymbolTable, alphabet

    symbols = alphabet("en")
    sizes = dict.fromkeys(
        (
            "symbol_embedding", "encoder_embedding_dim", "prenet_dim", "attention_rnn_dim",
            "decoder_rnn_dim", "attention_dim", "postnet_dim",
        ),
        16,
    )  # fmt: skip
    torch.manual_seed(0)
    architecture = Architecture(symbols=len(SymbolTable(symbols)), mels=16, **sizes)
    description = VoiceDescription(
        architecture=architecture, audio=AUDIO, text=TextParams(), symbols=symbols, language="en",
        speaker="nobody", gate_threshold=0.5, frames_per_symbol=4.0, training={},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("voice")
    export_voice(folder, Tacotron2(architecture).state_dict(), description)
    return folder


@pytest.fixture
def params(tmp_path, mlflow_database, request):
    name = f"voice-{abs(hash(request.node.nodeid)) % 10**9}"
    return small_params(
        tmp_path,
        promote={"registered_model": name},
        tracking={"mlflow_uri": mlflow_database},
    )


@pytest.fixture
def crowned(params, voice, tmp_path):
    """The voice, promoted."""
    (tmp_path / "evaluation").mkdir()
    registry = ModelRegistry.of(params.tracking, params.promote)
    tags = {MODEL_TAG: "m", EVALUATION_TAG: "e"}
    version = registry.register(voice, tmp_path / "evaluation", tags=tags, metrics={})
    registry.crown(version, previous=None)
    return registry


@pytest.mark.parametrize(("name", "format_name"), [("a.wav", "WAV"), ("b.flac", "FLAC")])
def test_a_voice_by_its_folder_writes_sound(voice, params, tmp_path, name, format_name):
    out = tmp_path / name
    spoken = speak("Hello there.", out, model=voice, params=params)
    info = soundfile.info(out)
    assert (info.format, info.samplerate, info.channels) == (format_name, 8000, 1)
    assert info.duration == pytest.approx(spoken.seconds)
    assert spoken.as_dict()["path"] == str(out)
    assert spoken.voice == str(voice)


def test_the_champion_speaks_and_is_named(crowned, voice, params, tmp_path):
    spoken = speak("Hello there.", tmp_path / "a.wav", model=None, params=params)
    assert spoken.voice == f"{crowned.name} version 1"
    speak("Hello there.", tmp_path / "b.wav", model=voice, params=params)
    one, two = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert np.array_equal(one, two)


def test_saying_it_again_gives_the_same_bytes_and_replaces_the_file(voice, params, tmp_path):
    out = tmp_path / "a.wav"
    speak("Hello there.", out, model=voice, params=params)
    before = out.read_bytes()
    speak("Something else entirely.", out, model=voice, params=params)
    assert out.read_bytes() != before
    speak("Hello there.", out, model=voice, params=params)
    assert out.read_bytes() == before


def test_before_the_first_promotion_the_way_to_one_is_given(params, tmp_path):
    with pytest.raises(InputMissingError, match="champion") as caught:
        speak("hello", tmp_path / "a.wav", model=None, params=params)
    assert "dvc repro" in caught.value.hint
    assert caught.value.exit_code == 4
    assert not (tmp_path / "a.wav").exists()


def test_without_a_database_none_is_made(tmp_path):
    with pytest.raises(InputMissingError, match="champion"):
        champion_folder(small_params(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(("text", "name"), [("", "a.wav"), ("  ", "a.wav"), ("hi", "a.txt")])
def test_nothing_to_say_and_no_sound_file_are_usage_errors(voice, params, tmp_path, text, name):
    with pytest.raises(UsageError):
        speak(text, tmp_path / name, model=voice, params=params)
    assert not (tmp_path / name).exists()


def test_a_text_without_a_speakable_character_is_reported(voice, params, tmp_path):
    with pytest.raises(UsageError, match="can be spoken"):
        speak("…☂☂", tmp_path / "a.wav", model=voice, params=params)


def test_a_missing_folder_names_the_stage(params, tmp_path):
    with pytest.raises(InputMissingError, match="'train' stage"):
        speak("hi", tmp_path / "a.wav", model=tmp_path / "no", params=params)


def test_a_speaker_whom_the_voice_does_not_have(voice, params, tmp_path):
    with pytest.raises(UsageError, match="'somebody'"):
        speak("Hello.", tmp_path / "a.wav", model=voice, params=params, speaker="somebody")
    assert speak("Hello.", tmp_path / "a.wav", model=voice, params=params, speaker="nobody").seconds


def test_the_command_takes_a_speaker(voice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["say", "Hello.", "--model", str(voice), "-o", "a.wav", "--speaker"]
    assert exit_code([*asked, "somebody"]) == 2
    assert not (tmp_path / "a.wav").exists()
    assert exit_code([*asked, "nobody"]) == 0
    assert (tmp_path / "a.wav").exists()
