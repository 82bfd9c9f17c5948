import hashlib

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from kamerton.demo.toy_whisper import tokens, train
from kamerton.demo.toy_whisper.batches import Batches, Said
from kamerton.demo.toy_whisper.card import model_card
from kamerton.demo.toy_whisper.data import Sentence, noise_strips
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
    batch = Batches(bank, seed=0, noise=noise_strips(seed=0, seconds=6.0)).alone(4)
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


def test_a_piece_knows_its_place_in_the_window(model) -> None:
    """Through the first layers only: further on it also hears what stands beside it."""
    encoder = model.whisper.encoder
    inputs = []
    handle = encoder.blocks[0].register_forward_pre_hook(
        lambda _module, given: inputs.append(given[0])
    )
    mel = torch.randn(1, 80, 3000)
    with torch.no_grad():
        model.encode(mel)
        model.encode(mel[..., 400:800], torch.tensor([200]))
    handle.remove()
    assert_allclose(inputs[1][:, 2:-2], inputs[0][:, 202:398], atol=1e-5)


def test_the_attention_is_what_whisper_attends_to(model) -> None:
    """Whisper's own attention weights, which it gives away without its fused kernel only."""
    from whisper.model import disable_sdpa

    seen = []
    listening = model.whisper.decoder.blocks[-1].cross_attn
    handle = listening.register_forward_hook(lambda _module, _given, output: seen.append(output[1]))
    with torch.no_grad(), disable_sdpa():
        model(torch.randn(2, 80, 60), torch.randint(0, 9, (2, 5)))
        ours = model.attention()
    handle.remove()
    heads = ours.shape[1]
    assert ours.shape == (2, heads, 5, 30)
    assert_allclose(ours, seen[0].log_softmax(dim=-1)[:, :heads], atol=1e-4)


def test_attention_is_missed_by_what_lies_elsewhere() -> None:
    heard = torch.tensor([[[2.0, 3.0], [-1.0, -1.0]]])
    share = torch.full((1, 1, 2, 10), 1e-9)
    share[0, 0, 0, 2:4] = 0.25
    share[0, 0, 0, 8] = 0.5
    missed = train.missed_attention(share.log(), heard)
    assert missed == pytest.approx(np.log(2.0), abs=1e-5)
    nothing = train.missed_attention(share.log(), torch.full((1, 2, 2), -1.0))
    assert nothing == 0.0


def test_what_is_misheard_stays_a_word_or_a_time_nearby() -> None:
    random = np.random.default_rng(0)
    text = random.integers(0, tokens.COMPACT_SIZE, (50, 40))
    changed = train.misheard(text, random)
    kinds = [text < tokens.EOT, text >= tokens.FIRST_TIMESTAMP]
    assert (kinds[0] == (changed < tokens.EOT)).all()
    assert (np.abs(changed - text)[kinds[1]] <= 1).all()
    assert (changed == text)[~kinds[0] & ~kinds[1]].all()
    assert 0.05 < (changed != text).mean() < 0.3


def test_words_belong_to_the_sentence_in_whose_time_they_are() -> None:
    sentences = [Said(0.2, 2.0, (1, 2)), Said(2.8, 5.0, (3,)), Said(5.6, 8.0, (4, 5))]
    ids = []
    for start, end, words in (sentences[0], sentences[2]):
        ids += [tokens.timestamp(start + 0.3), *words, tokens.timestamp(end - 0.2)]
    wanted = [tokens.decode([1, 2]), "", tokens.decode([4, 5])]
    assert train.by_time(ids, sentences) == wanted
    assert train.by_time(ids[:-1], sentences) == wanted  # the last time is missing
    assert train.by_time([], sentences) == ["", "", ""]


def test_training_can_start_from_an_exported_checkpoint(exported, model) -> None:
    again = ToyWhisper()
    again.start_from(exported[0])
    old, new = model.whisper.state_dict(), again.whisper.state_dict()
    fresh = ToyWhisper().whisper.state_dict()
    for name in set(old) - {"decoder.token_embedding.weight", "decoder.positional_embedding"}:
        assert_allclose(new[name], old[name], atol=2e-3, rtol=2e-3)
    place, token = "decoder.positional_embedding", "decoder.token_embedding.weight"
    assert_allclose(new[place], fresh[place])
    first = tokens.FIRST_TIMESTAMP
    assert_allclose(new[token][:first], old[token][:first], atol=2e-3, rtol=2e-3)
    assert_allclose(new[token][first:], fresh[token][first:])
    decoder = again.whisper.decoder
    assert (decoder.token_embedding.weight[:, CONSTANT_CHANNEL] == 0.0).all()


def test_a_time_points_to_its_place_in_the_sound() -> None:
    """Before any training its vector is most like the encoder's position for that time."""
    model = ToyWhisper()
    times = model.whisper.decoder.token_embedding.weight[tokens.FIRST_TIMESTAMP :]
    nearest = (times @ model.whisper.encoder.positional_embedding.T).argmax(dim=1)
    wanted = [
        min(1499, round(tokens.seconds_of(tokens.FIRST_TIMESTAMP + i) * 50)) for i in range(301)
    ]
    assert np.abs(nearest.numpy() - np.array(wanted)).max() <= 1


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
    state = train.TrainingState(model.state_dict(), 8, (0.5, 2.0), "abc")
    state.save(tmp_path / "work.pt")
    again = train.TrainingState.load(tmp_path / "work.pt")
    assert (again.steps, again.minutes, again.initial) == (8, (0.5, 2.0), "abc")
    assert all(torch.equal(value, again.weights[name]) for name, value in state.weights.items())


def test_a_training_state_is_gone_on_from_with_all_its_weights(model, tmp_path) -> None:
    train.TrainingState(model.state_dict(), 8, (0.5,), "abc").save(tmp_path / "work.pt")
    again = ToyWhisper()
    before = train.begin(again, tmp_path / "work.pt")
    assert (before.steps, before.minutes, before.initial) == (8, (0.5,), "abc")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_checkpoint_to_start_from_is_known_by_its_hash(exported) -> None:
    before = train.begin(ToyWhisper(), exported[0])
    assert (before.steps, before.minutes) == (0, ())
    assert before.initial == hashlib.sha256(exported[0].read_bytes()).hexdigest()
    assert train.begin(ToyWhisper(), None).initial is None


def test_the_card_has_a_command_for_every_round() -> None:
    card = model_card([], minutes=(36.0, 1.5), threads=2, seed=1, steps=12345, initial="ab" * 32)
    commands = [line for line in card.splitlines() if "--minutes" in line]
    assert len(commands) == 2
    assert commands[0].endswith("--minutes 36 --work ROUND1.pt --initial OLD.pt")
    assert commands[1].endswith("--minutes 1.5 --work ROUND2.pt --initial ROUND1.pt")
    assert "ab" * 32 in card
    assert "12 345 steps" in card
    fresh = model_card([], minutes=(36.0,), threads=2, seed=1, steps=1)
    assert "OLD.pt" not in fresh


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"sentences": 0}, {"threads": 0}])
def test_a_plan_without_anything_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="positive"):
        train.TrainingPlan(**wrong)
