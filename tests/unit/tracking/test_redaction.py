import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.tracking.redaction import MASK, redact, redact_text

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@mlflow.example/x",
        f"postgresql://{SECRET}@db/x",
        f"--api-key={SECRET}",
        f"--api-key {SECRET} --next",
        f"API_KEY={SECRET}",
        f"password: {SECRET}",
        f"my.token={SECRET} rest",
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
    ],
)
def test_harmless_text_is_kept(text: str) -> None:
    assert redact_text(text) == text


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
