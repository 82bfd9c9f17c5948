import base64
import html
import json
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.tracking.redaction import MASK, Masker, redact, redact_text, secrets_of

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@mlflow.example/x",
        f"postgresql://{SECRET}@db/x",
        f"postgresql://me:a/{SECRET}@db/x",
        f"postgresql://me:a@{SECRET}@db/x",
        f"postgresql://host/db?user=me&password={SECRET}",
        f"--api-key={SECRET}",
        f"--api-key {SECRET} --next",
        f"API_KEY={SECRET}",
        f"password: {SECRET}",
        f"my.token={SECRET} rest",
        f"password='{SECRET}'",
        f'{{"token": "{SECRET}"}}',
        f"a:token={SECRET}",
        f"x --token {SECRET}",
        f"bot 123456789:{SECRET * 4}",
    ],
)
def test_secrets_in_text_are_masked(text: str) -> None:
    assert SECRET not in redact_text(text)
    assert MASK in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "kamerton train --set train.batch_size=16",
        "sqlite:///mlflow.db",
        "http://127.0.0.1:5000",
        "token=${TELEGRAM_TOKEN}",
        "epochs: 12 at 10:45",
        "see https://host/path and write to me@example.org",
    ],
)
def test_harmless_text_is_kept(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize("piece", ["x", "-", "a.", "token", "a://", "1", "token =", "%", "="])
def test_long_words_take_no_longer_than_their_length(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    masker = Masker(["hunter2:hunter2", "=%x-a.token1"])
    began = time.thread_time()
    redact_text(text)
    masker(text)
    assert time.thread_time() - began < 1.0


def test_a_secret_after_a_long_name_is_masked() -> None:
    name = "x" * 500
    for text in (
        f"{name}_token={SECRET}",
        f"{name}https://me:{SECRET}@host/",
        f"--{name}-key-token {SECRET}",
    ):
        assert SECRET not in redact_text(text)


def test_nested_secrets_are_masked_by_name_and_references_are_kept() -> None:
    params = {"a": {"token": SECRET, "uri": f"http://u:{SECRET}@h"}, "b": [{"password": "${PW}"}]}
    assert redact(params) == {
        "a": {"token": MASK, "uri": f"http://{MASK}@h"},
        "b": [{"password": "${PW}"}],
    }


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())


@given(st.recursive(NUMBERS, lambda inner: st.dictionaries(st.sampled_from("abc"), inner)))
def test_values_without_secrets_come_back_equal(value: object) -> None:
    assert redact(value) == value


# Signs of secrets, and those that quoting changes.
_SECRETS = st.text("aB3/+=&?%<>'\" é\\\n:@", min_size=8, max_size=20)
_ENCODERS = {
    "plain": str,
    "url": urllib.parse.quote,
    "url, all": lambda text: urllib.parse.quote(text, safe=""),
    "form": urllib.parse.quote_plus,
    "lower": lambda text: urllib.parse.quote(text, safe="").replace("%2F", "%2f"),
    "json": lambda text: json.dumps(text)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "html": html.escape,
    "html, no quotes": lambda text: html.escape(text, quote=False),
    "json, letters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
}


@given(_SECRETS, st.sampled_from(sorted(_ENCODERS)), st.text("xyz ", max_size=5))
def test_a_known_secret_is_masked_however_it_is_written(secret: str, how: str, word: str) -> None:
    written = _ENCODERS[how](secret)
    masked = Masker([secret])(f"{word}{written}{word}")
    assert written not in masked
    assert MASK in masked


@given(_SECRETS, st.binary(max_size=7), st.binary(max_size=7), st.booleans())
def test_nothing_in_base64_gives_a_secret_back(
    secret: str, before: bytes, after: bytes, url: bool
) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + secret.encode() + after).decode()
    masked = Masker([secret])(f"Basic {text}").removeprefix("Basic ")
    assert MASK in masked
    rest = masked.replace(MASK, "").rstrip("=").translate(str.maketrans("-_", "+/"))
    assert secret.encode() not in base64.b64decode(rest[: len(rest) // 4 * 4])
    # At most the first and the last sign of the secret can be guessed from what is left.
    assert len(rest) <= -(-8 * (len(before) + len(after)) // 6) + 4


def test_a_secret_within_another_leaves_nothing() -> None:
    assert Masker(["abcdef", "abcdefghij"])("x abcdefghij y") == f"x {MASK} y"
    assert Masker([])("kept as it is") == "kept as it is"
    assert Masker([""])("kept as it is") == "kept as it is"
    assert "abcdef" not in repr(Masker(["abcdef"]))


def test_secrets_of_an_environment_are_those_named_so() -> None:
    environ = {"A_TOKEN": "12345678\n", "API_KEY": "short", "HOME": "/home/someone",
               "AWS_SECRET_ACCESS_KEY": "abcdefghijk"}  # fmt: skip
    assert secrets_of(environ) == ["12345678", "abcdefghijk"]
