import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from kamerton.demo.toy_whisper import tokens, train
from kamerton.demo.toy_whisper.data import Batches, Sentence, noise_strips
from kamerton.demo.toy_whisper.export import UNUSED_LOGIT, full_state, save_checkpoint
from kamerton.demo.toy_whisper.model import CONSTANT_CHANNEL, ToyWhisper, dimensions


def trained(steps: int) -> tuple[ToyWhisper, list[float]]:
    """A network after a few steps on one batch of made-up sentences, and its losses."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    bank = [
        Sentence(random.normal(-3.0, 1.0, (80, 30)).astype(np.float16), words)
        for words in ((1, 2), (3, 4), (5, 6))
    ]
    batch = Batches(bank, seed=0, noise=noise_strips(seed=0, seconds=6.0)).draw(4)
    model = ToyWhisper()
    optimizer = train.optimizer_of(model)
    return model.eval(), [train.step(model, optimizer, batch, 2e-3) for _ in range(steps)]


@pytest.fixture(scope="module")
def model() -> ToyWhisper:
    return trained(8)[0]


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    import whisper

    path = tmp_path_factory.mktemp("export") / "toy.pt"
    save_checkpoint(model, path)
    return path, whisper.load_model(str(path), device="cpu")


@pytest.fixture(scope="module")
def converted(exported, tmp_path_factory):
    pytest.importorskip("ctranslate2")
    from kamerton.demo.toy_whisper.ct2 import convert

    folder = tmp_path_factory.mktemp("converted") / "ct2"
    convert(exported[0], folder)
    return folder


def test_it_learns() -> None:
    _, losses = trained(10)
    assert losses[-1] < 0.5 * losses[0]


def test_the_held_channel_is_constant_after_training(model) -> None:
    decoder = model.whisper.decoder
    assert decoder.ln.weight[CONSTANT_CHANNEL] == 0.0
    assert decoder.ln.bias[CONSTANT_CHANNEL] == 1.0
    assert (decoder.token_embedding.weight[:, CONSTANT_CHANNEL] == 0.0).all()
    assert decoder.token_embedding.weight[:, 0].std() > 0.01  # the others are free


def test_a_short_window_is_encoded_as_whisper_would(model) -> None:
    mel = torch.randn(1, 80, 3000)
    with torch.no_grad():
        assert_allclose(model.encode(mel), model.whisper.encoder(mel), atol=1e-5)


def test_unused_tokens_have_one_logit_and_used_ones_the_compact_models(model) -> None:
    from whisper.model import Whisper

    full = Whisper(dimensions(tokens.FULL_SIZE)).eval()
    full.load_state_dict(full_state(model))
    ids = torch.tensor(tokens.full_ids())
    audio = torch.randn(2, 150, 96)
    text = torch.randint(0, tokens.COMPACT_SIZE, (2, 7))
    with torch.no_grad():
        wanted = model.whisper.decoder(text, audio)
        logits = full.decoder(ids[text], audio)
    unused = torch.ones(tokens.FULL_SIZE, dtype=torch.bool)
    unused[ids] = False
    assert int(unused.sum()) == tokens.FULL_SIZE - tokens.COMPACT_SIZE
    assert_allclose(logits[..., ids], wanted, atol=1e-4)
    assert_allclose(logits[..., unused], UNUSED_LOGIT, atol=1e-4)


def test_the_file_is_small_and_loads_in_unmodified_whisper(exported, model) -> None:
    path, loaded = exported
    assert path.stat().st_size < 2_500_000
    assert not loaded.is_multilingual
    assert loaded.dims == dimensions(tokens.FULL_SIZE)
    for name, value in full_state(model).items():
        assert_allclose(loaded.state_dict()[name], value, atol=2e-3, rtol=2e-3)


def test_the_same_weights_give_the_same_file(exported, model, tmp_path) -> None:
    save_checkpoint(model, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == exported[0].read_bytes()


def test_faster_whisper_hears_what_whisper_hears(exported, converted) -> None:
    """The same features give the same logits through CTranslate2: first token and confidence."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    loaded = exported[1]
    other = ctranslate2.models.Whisper(str(converted), compute_type="float32")
    assert not other.is_multilingual
    mel = torch.randn(1, 80, 3000)
    view = ctranslate2.StorageView.from_array(mel.numpy())
    theirs = np.array(other.encode(view))
    with torch.no_grad():
        ours = loaded.encoder(mel).numpy()
    assert np.abs(theirs - ours).mean() < 0.03  # weights of 8 bits
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.999

    prompt = [50257, 50362]
    answer = other.generate(
        view, [prompt], beam_size=1, max_length=6, return_scores=True, suppress_tokens=[]
    )[0]
    with torch.no_grad():
        logits = loaded.decoder(torch.tensor([prompt]), torch.from_numpy(ours))[0, -1]
    said = answer.sequences_ids[0]
    assert not said or float(logits[said[0]]) > float(logits.max()) - 0.3


def test_the_tokenizer_file_says_what_whispers_tokenizer_says(converted) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from whisper.tokenizer import get_tokenizer

    ours = tokenizers.Tokenizer.from_file(str(converted / "tokenizer.json"))
    theirs = get_tokenizer(multilingual=False)
    for text in (" every golden river", "It's 42 o'clock, naïve!", " -", " ♪♪♪", "Привет  мир\n\t"):
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == text
    for name in ("endoftext", "startoftranscript", "nospeech", "notimestamps", "29.98"):
        token = f"<|{name}|>"
        assert ours.token_to_id(token) == theirs.encoding.encode_single_token(token)


def test_decoding_stops_at_the_end_and_speaks_words_only(model) -> None:
    for ids in model.recognise(torch.randn(2, 80, 100), longest=5):
        assert len(ids) <= 5
        assert all(token < tokens.EOT for token in ids)


def test_the_learning_rate_warms_up_and_ends_near_nothing() -> None:
    rates = [train.learning_rate(share, 10_000) for share in np.linspace(0, 1, 50)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(train.PEAK_LEARNING_RATE)
    assert rates[-1] == pytest.approx(0.01 * train.PEAK_LEARNING_RATE)
    assert train.learning_rate(0.0, 0) < 0.01 * train.PEAK_LEARNING_RATE


def test_a_training_state_survives_being_saved(model, tmp_path) -> None:
    state = train.TrainingState(model.state_dict(), 8, 0.5)
    state.save(tmp_path / "work.pt")
    again = train.TrainingState.load(tmp_path / "work.pt")
    assert (again.steps, again.minutes) == (8, 0.5)
    assert all(torch.equal(value, again.weights[name]) for name, value in state.weights.items())


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"sentences": 0}, {"threads": 0}])
def test_a_plan_without_anything_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="positive"):
        train.TrainingPlan(**wrong)
