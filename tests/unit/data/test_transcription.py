import hashlib
import itertools
import sys
from urllib.error import URLError

import numpy as np
import pytest

from kamerton.audio.resample import resample
from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    ParamsError,
    ToolMissingError,
)
from kamerton.data.filters import judge_recognition
from kamerton.data.listening import Listener, Sound, listen
from kamerton.data.recognisers.faster_whisper import _logprob
from kamerton.data.recognisers.openai_whisper import summarise
from kamerton.data.transcription import ModelFile, find_model, listening_identity, load_recogniser
from kamerton.demo.espeak import SAMPLE_RATE_HZ, Utterance, speak_all
from kamerton.demo.vocabulary import sentences
from kamerton.metrics.intelligibility import word_errors
from kamerton.text.normalise import normalise
from tests.clip_folder import hum

WAVE = hum(1.0)


def params(model, **changed):
    return TranscribeParams(model=str(model), **changed)


@pytest.fixture(scope="session")
def random_whisper(tmp_path_factory):
    """Whisper checkpoints of random weights: path by whether they know several languages."""
    torch = pytest.importorskip("torch")
    model = pytest.importorskip("whisper.model")
    folder = tmp_path_factory.mktemp("whisper")
    paths = {}
    for multilingual, n_vocab in ((False, 51864), (True, 51865)):
        torch.manual_seed(7)
        sizes = {"n_audio_state": 8, "n_audio_head": 1, "n_audio_layer": 1}
        sizes |= {"n_text_state": 8, "n_text_head": 1, "n_text_layer": 1}
        # The fewest text positions that leave room for a prompt keep random babble short.
        dims = model.ModelDimensions(
            n_mels=80, n_audio_ctx=1500, n_vocab=n_vocab, n_text_ctx=16, **sizes
        )
        paths[multilingual] = folder / f"{n_vocab}.pt"
        made = model.Whisper(dims)
        # Whisper leaves its positions uninitialised for the checkpoint to fill.
        torch.nn.init.normal_(made.decoder.positional_embedding, std=0.01)
        contents = {"dims": vars(dims), "model_state_dict": made.state_dict()}
        torch.save(contents, paths[multilingual])
    return paths


def test_a_published_name_is_taken_as_it_is():
    found = find_model(params("large-v3"))
    assert (found.path, found.load_name, found.identity) == (None, "large-v3", "large-v3")


def test_a_file_is_known_by_its_hash(tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    found = find_model(params(path))
    assert found.path == path
    assert found.identity == hashlib.sha256(b"weights").hexdigest()[:12]


def test_a_relative_path_is_seen_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "model.pt").write_bytes(b"w")
    monkeypatch.chdir(tmp_path)
    assert find_model(params("toy")).load_name == "toy/model.pt"


def test_one_folder_serves_both_backends(tmp_path):
    (tmp_path / "toy.pt").write_bytes(b"torch")
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "model.bin").write_bytes(b"ctranslate")
    reference = find_model(params(tmp_path))
    fast = find_model(params(tmp_path, backend="faster-whisper"))
    assert reference.path == tmp_path / "toy.pt"
    assert fast.path == tmp_path / "ct2"
    assert fast.identity == hashlib.sha256(b"ctranslate").hexdigest()[:12]
    assert find_model(params(tmp_path / "ct2", backend="faster-whisper")).path == tmp_path / "ct2"


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_a_path_that_leads_nowhere_says_what_to_write(tmp_path, backend):
    with pytest.raises(InputMissingError, match=r"none\.pt does not exist") as caught:
        find_model(params(tmp_path / "none.pt", backend=backend))
    assert "large-v3" in caught.value.hint


def test_owner_and_model_may_be_on_the_hub_for_faster_whisper_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(params("Systran/some-model", backend="faster-whisper")).path is None
    with pytest.raises(InputMissingError):
        find_model(params("Systran/some-model"))
    (tmp_path / "assets").mkdir()
    with pytest.raises(InputMissingError):
        find_model(params("assets/toy", backend="faster-whisper"))


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path):
    with pytest.raises(InputEmptyError, match=r"no file \*\.pt"):
        find_model(params(tmp_path))
    (tmp_path / "one.pt").touch()
    (tmp_path / "two.pt").touch()
    with pytest.raises(InputEmptyError, match="but 2"):
        find_model(params(tmp_path))
    with pytest.raises(InputEmptyError, match="CTranslate2"):
        find_model(params(tmp_path / "one.pt", backend="faster-whisper"))


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_the_identity_names_what_makes_an_answer(tmp_path, backend):
    package = "whisper" if backend == "whisper" else "ctranslate2"
    pytest.importorskip(package)
    given = params(tmp_path / "x.pt", backend=backend, beam_size=3, temperatures=(0.0, 0.5))
    identity = listening_identity(given, ModelFile("large-v3", None))
    assert (identity.backend, identity.model) == (backend, "large-v3")
    assert (identity.beam_size, identity.temperatures) == (3, (0.0, 0.5))
    assert len(identity.packages) == 2
    assert identity.device in ("cpu", "gpu")
    believed = given.model_copy(update={"min_avg_logprob": -0.1, "hallucinations": ()})
    assert listening_identity(believed, ModelFile("large-v3", None)) == identity


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_an_unknown_name_is_answered_with_the_nearest(backend):
    pytest.importorskip(backend.replace("-", "_"))
    with pytest.raises(ParamsError, match="no Whisper model 'large-v33'") as caught:
        load_recogniser(params("large-v33", backend=backend), "en")
    assert "did you mean 'large-v3'" in caught.value.hint


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("whisper", "whisper", "--no-deps"), ("faster-whisper", "faster_whisper", "kamerton[asr]")],
)
def test_a_missing_package_is_named_with_its_installation(monkeypatch, backend, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolMissingError) as caught:
        load_recogniser(params("tiny", backend=backend), "en")
    assert extra in caught.value.hint


def test_weights_that_cannot_be_downloaded_are_explained(monkeypatch):
    whisper = pytest.importorskip("whisper")

    def offline(_name):
        raise URLError("no network")

    monkeypatch.setattr(whisper, "load_model", offline)
    with pytest.raises(ToolMissingError, match=r"download failed: .*no network") as caught:
        load_recogniser(params("tiny"), "en")
    assert "transcribe.model" in caught.value.hint


def test_fast_weights_that_cannot_be_downloaded_are_explained(monkeypatch):
    faster_whisper = pytest.importorskip("faster_whisper")

    def offline(*_names, **_options):
        raise ConnectionError("no network")

    monkeypatch.setattr(faster_whisper, "WhisperModel", offline)
    with pytest.raises(ToolMissingError, match="download failed: no network"):
        load_recogniser(params("tiny", backend="faster-whisper"), "en")


def test_threads_are_those_asked_for(random_whisper, monkeypatch):
    import torch

    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    load_recogniser(params(random_whisper[False]), "en")
    load_recogniser(params(random_whisper[False], threads=3), "en")
    assert asked == [3]


def test_whisper_answers_through_its_own_code(random_whisper):
    recogniser = load_recogniser(params(random_whisper[False]), "en")
    answers = recogniser.transcribe([WAVE, WAVE[:8000]])
    assert len(answers) == 2
    assert answers[0].language == "en"
    assert answers[0].avg_logprob < -1.0, "random weights are unsure"
    assert answers[0].temperature == 0.4, "the ladder was climbed to its end"
    assert 0.0 <= answers[0].no_speech_prob <= 1.0
    assert answers[0].compression_ratio > 0.0


def test_a_sampled_answer_depends_on_the_sound_alone(random_whisper):
    import torch

    recogniser = load_recogniser(params(random_whisper[False], temperatures=(1.0,)), "en")
    before = torch.random.get_rng_state()
    first = recogniser.transcribe([WAVE])
    second = recogniser.transcribe([WAVE[:9000], WAVE])[1:]
    assert first == second
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_believed_does_not_steer_what_is_heard(random_whisper):
    loose = params(random_whisper[False], min_avg_logprob=-99.0, max_compression_ratio=99.0)
    plain = params(random_whisper[False])
    answers = [load_recogniser(given, "en").transcribe([WAVE]) for given in (loose, plain)]
    assert answers[0] == answers[1]
    assert answers[0][0].temperature == 0.4


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # whisper under numpy 2
def test_beams_are_used_when_asked_for(random_whisper, monkeypatch):
    import whisper.decoding

    seen = []
    plain = whisper.decoding.BeamSearchDecoder.__init__

    def spy(self, beam_size, *rest, **options):
        seen.append(beam_size)
        plain(self, beam_size, *rest, **options)

    monkeypatch.setattr(whisper.decoding.BeamSearchDecoder, "__init__", spy)
    load_recogniser(params(random_whisper[False], temperatures=(0.0,)), "en").transcribe([WAVE])
    assert seen == []
    beams = params(random_whisper[False], temperatures=(0.0,), beam_size=3)
    load_recogniser(beams, "en").transcribe([WAVE])
    assert set(seen) == {3}
    seen.clear()
    (answer,) = load_recogniser(beams, "en").decode_windows([WAVE])
    assert seen == [3]
    assert all(value < 0.0 for text in answer.texts for value in text.logprobs)


def test_a_language_is_forced(random_whisper):
    recogniser = load_recogniser(params(random_whisper[True], temperatures=(0.0,)), "ru")
    assert recogniser.transcribe([WAVE])[0].language == "ru"
    assert recogniser.transcribe([WAVE], "de")[0].language == "de"


def test_languages_have_whispers_own_probabilities(random_whisper):
    import whisper

    recogniser = load_recogniser(params(random_whisper[True]), "ru")
    found = recogniser.language_probabilities(WAVE)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(WAVE))
    assert found == pytest.approx(recogniser._model.detect_language(mel)[1])
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)
    english = load_recogniser(params(random_whisper[False]), "en")
    assert english.language_probabilities(WAVE) == {"en": 1.0}


def test_tokens_are_as_probable_as_whisper_found_them_one_by_one(random_whisper):
    """Against the slow way: each prefix read anew, what may never be said masked."""
    import torch
    import whisper

    recogniser = load_recogniser(params(random_whisper[False]), "en")
    model = recogniser._model
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(WAVE))
    task = whisper.decoding.DecodingTask(model, whisper.DecodingOptions(language="en", fp16=False))
    result = task.run(mel[None])[0]
    assert result.tokens
    naive = []
    with torch.no_grad():
        for length, token in enumerate(result.tokens):
            prefix = torch.tensor([[*task.initial_tokens, *result.tokens[:length]]])
            logits = model.decoder(prefix, result.audio_features[None])[0, -1]
            logits[list(task._get_suppress_tokens())] = -torch.inf
            naive.append(float(logits.log_softmax(dim=-1)[token]))
    found = recogniser._logprobs(task, result.tokens, result.audio_features)
    assert found == pytest.approx(naive, abs=1e-4)


def test_babble_is_cut_off(random_whisper):
    """The few text positions of this model end its answer before it does."""
    recogniser = load_recogniser(params(random_whisper[False]), "en")
    (answer,) = recogniser.decode_windows([WAVE])
    assert not answer.ended
    assert recogniser.decode_windows([]) == []


def test_windows_answer_alike_alone_and_together(random_whisper):
    recogniser = load_recogniser(params(random_whisper[False]), "en")
    waves = [WAVE, WAVE[:8000], hum(2.0, seed=4)]
    together = recogniser.decode_windows(waves)
    for wave, answer in zip(waves, together, strict=True):
        (single,) = recogniser.decode_windows([wave])
        assert [text.text for text in single.texts] == [text.text for text in answer.texts]


@pytest.fixture(scope="session")
def random_ct2(tmp_path_factory):
    """A CTranslate2 model of random weights, as long-winded as the real ones."""
    torch = pytest.importorskip("torch")
    model = pytest.importorskip("whisper.model")
    pytest.importorskip("faster_whisper")
    from kamerton.demo.toy_whisper.ct2 import convert

    torch.manual_seed(5)
    dims = model.ModelDimensions(80, 1500, 16, 2, 1, 51864, 448, 16, 2, 1)
    made = model.Whisper(dims)
    torch.nn.init.normal_(made.decoder.positional_embedding, std=0.01)
    folder = tmp_path_factory.mktemp("random") / "ct2"
    saved = folder.with_name("random.pt")
    torch.save({"dims": vars(dims), "model_state_dict": made.state_dict()}, saved)
    convert(saved, folder)
    return folder


def fast(model, **changed):
    return load_recogniser(params(model, backend="faster-whisper", threads=1, **changed), "en")


def test_a_fast_sampled_answer_depends_on_the_sound_alone(random_ct2):
    recogniser = fast(random_ct2, temperatures=(1.0,))
    first = recogniser.transcribe([WAVE])
    assert recogniser.transcribe([hum(0.5), WAVE])[1:] == first
    assert fast(random_ct2, temperatures=(1.0,)).transcribe([WAVE]) == first


def test_the_fast_ladder_is_climbed_where_the_first_answer_fails(random_ct2):
    (answer,) = fast(random_ct2).transcribe([WAVE])
    assert answer.temperature == 0.4
    (first,) = fast(random_ct2, temperatures=(0.0,)).transcribe([WAVE])
    assert first.temperature == 0.0
    assert first.compression_ratio > 2.4, "the same few letters until the end"


def test_fast_babble_is_cut_off(random_ct2):
    (answer,) = fast(random_ct2).decode_windows([WAVE])
    assert not answer.ended
    assert sum(len(text.logprobs) for text in answer.texts) <= 224
    assert fast(random_ct2).decode_windows([]) == []
    assert fast(random_ct2).language_probabilities(WAVE) == {"en": 1.0}


def test_log_probabilities_are_a_softmax_over_what_may_come():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    logits[10:20] = np.finfo(np.float32).min
    ctranslate2 = pytest.importorskip("ctranslate2")
    view = ctranslate2.StorageView.from_array(logits)
    reference = torch.from_numpy(logits).log_softmax(dim=-1)
    assert [_logprob(view, token) for token in range(10)] == pytest.approx(
        reference[:10].tolist(), abs=1e-5
    )


def test_an_english_model_refuses_other_languages(random_whisper):
    with pytest.raises(ParamsError, match="knows English only"):
        load_recogniser(params(random_whisper[False]), "ru")


def test_what_is_no_checkpoint_is_corrupt(tmp_path):
    pytest.importorskip("whisper")
    path = tmp_path / "mine.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputCorruptError, match="no Whisper checkpoint"):
        load_recogniser(params(path), "en")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("whisper")
    path = tmp_path / "evil.pt"
    torch.save({"dims": Evil(tmp_path / "ran")}, path)
    with pytest.raises(InputCorruptError, match="no Whisper checkpoint"):
        load_recogniser(params(path), "en")
    assert not (tmp_path / "ran").exists()


class Evil:
    """Makes a file when it is unpickled by a loader that trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_converted_model_needs_all_its_files(tmp_path):
    pytest.importorskip("faster_whisper")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InputEmptyError, match=r"config\.json"):
        load_recogniser(params(tmp_path, backend="faster-whisper"), "en")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputCorruptError, match="no CTranslate2 Whisper model"):
        load_recogniser(params(tmp_path, backend="faster-whisper"), "en")


def window(**changed):
    values = {"avg_logprob": -0.5, "no_speech_prob": 0.1, "compression_ratio": 1.0}
    return {"tokens": [1, 2], "temperature": 0.0, **values, **changed}


def test_figures_of_several_windows_become_one():
    answer = summarise(
        " one  two ",
        "en",
        [
            window(),
            window(avg_logprob=-1.0, tokens=[1] * 6, no_speech_prob=0.4, temperature=0.2),
        ],
    )
    assert answer.text == "one two"
    assert answer.avg_logprob == pytest.approx((2 * -0.5 + 6 * -1.0) / 8)
    assert (answer.no_speech_prob, answer.temperature) == (0.4, 0.2)


def test_nothing_heard_has_no_figures():
    answer = summarise("", "en", [])
    assert (answer.text, answer.avg_logprob, answer.no_speech_prob) == ("", None, None)
    assert np.isscalar(answer.language)


@pytest.fixture(scope="session")
def spoken():
    """Sentences that the toy recogniser was not trained on: (texts, waves at 16 kHz)."""
    pytest.importorskip("espeakng_loader")
    texts = list(itertools.islice(sentences(np.random.default_rng(11), part="corpus"), 5))
    speech = speak_all([Utterance(text) for text in texts])
    return texts, [resample(item.wave, SAMPLE_RATE_HZ, 16000) for item in speech]


@pytest.mark.parametrize("backend", ["whisper", "faster-whisper"])
def test_the_toy_hears_what_was_said(repository, spoken, backend):
    toy = repository / "assets" / "toy-whisper"
    if not toy.is_dir():
        pytest.skip("the toy recogniser is not trained (assets/toy-whisper)")
    pytest.importorskip(backend.replace("-", "_"))
    texts, waves = spoken
    recogniser = load_recogniser(params(toy, backend=backend), "en")
    answers = recogniser.transcribe(waves)
    heard = [normalise(answer.text, "en") for answer in answers]
    assert word_errors(texts, heard).wer <= 0.15
    assert recogniser.transcribe(waves[3:]) == answers[3:]
    assert all(not judge_recognition(answer, params(toy), "en") for answer in answers)


@pytest.mark.parametrize(
    ("backend", "beam_size"), [("whisper", 1), ("faster-whisper", 1), ("faster-whisper", 2)]
)
def test_packed_clips_come_back_each_with_its_words(repository, spoken, backend, beam_size):
    """Whatever the toy makes of a full window, attribution and redoing leave no word astray."""
    toy = repository / "assets" / "toy-whisper"
    if not toy.is_dir():
        pytest.skip("the toy recogniser is not trained (assets/toy-whisper)")
    pytest.importorskip(backend.replace("-", "_"))
    texts, waves = spoken
    recogniser = load_recogniser(params(toy, backend=backend, beam_size=beam_size), "en")
    clips = [
        Sound(str(n), len(wave) / 16000, lambda wave=wave: wave) for n, wave in enumerate(waves)
    ]
    heard = listen(clips, Listener(lambda: recogniser, lambda: None), "en")
    said = [normalise(heard.answers[n].text, "en") for n in range(len(texts))]
    assert word_errors(texts, said).wer <= 0.15
    assert heard.windows >= 1


def test_both_backends_time_and_weigh_a_window_alike(repository, spoken):
    toy = repository / "assets" / "toy-whisper"
    if not toy.is_dir():
        pytest.skip("the toy recogniser is not trained (assets/toy-whisper)")
    pytest.importorskip("faster_whisper")
    pytest.importorskip("whisper")
    answers = {}
    for backend, beam_size in (("whisper", 1), ("faster-whisper", 1), ("faster-whisper", 2)):
        recogniser = load_recogniser(params(toy, backend=backend, beam_size=beam_size), "en")
        answers[backend, beam_size] = recogniser.decode_windows([spoken[1][0]])[0]
    reference = answers.pop(("whisper", 1))
    for other in answers.values():
        assert [text.text for text in other.texts] == [text.text for text in reference.texts]
        assert other.ended is reference.ended is True
        for mine, theirs in zip(other.texts, reference.texts, strict=True):
            assert mine.start_seconds == pytest.approx(theirs.start_seconds, abs=0.3)
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=0.3)


@pytest.mark.parametrize(
    "name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt", "vocabulary.json",
             "preprocessor_config.json"]
)  # fmt: skip
def test_every_file_of_a_converted_model_counts(tmp_path, name):
    (tmp_path / "model.bin").write_bytes(b"weights")
    model = ModelFile("x", tmp_path)
    before, identity = model.content, model.identity
    (tmp_path / "README.md").write_text("about it")
    assert model.content == before
    (tmp_path / name).write_bytes(b"other")
    assert model.content != before
    assert (model.identity == identity) == (name != "model.bin")
