"""What a URL in the parameters may not hold."""

import pytest

from kamerton.config.addresses import require_no_credentials
from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host/x", "http://host/x?token=hunter2", "http://host/?a=b&API-Key=hunter2",
        "http://host/x?sslpassword=hunter2", "http://host/x?pwd=hunter2", "http://host/x?secret=",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["tune.storage", "tracking.mlflow_uri"])
def test_credentials_are_refused_and_not_repeated(url: str, name: str) -> None:
    with pytest.raises(ParamsError, match="credentials") as caught:
        load_params(None, overrides=[f"{name}={url}"], sections=[])
    assert "hunter2" not in str(caught.value)


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="no valid URL"):
        require_no_credentials("http://[host/x", "")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///mlflow.db",
        "http://mlflow:5000",
        "http://host/x?timeout=5",
        "https://host/secrets",
    ],
)
def test_others_pass(url: str) -> None:
    assert Params.model_validate({"tracking": {"mlflow_uri": url}}).tracking.mlflow_uri == url
