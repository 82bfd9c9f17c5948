"""Settings that every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread each: the suite shares two cores with whatever else runs, and results must not depend
# on how many there are.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile(
    "kamerton", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kamerton")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_speech() -> Path:
    """Real recordings for checks; skips where they are not at hand."""
    folder = ROOT.parent / "shared" / "speech" / "ljspeech"
    if not folder.is_dir():
        pytest.skip("real speech is not at hand (shared/speech beside the repository)")
    return folder


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of one MLflow database for the whole session: making its tables takes seconds.

    Tests keep apart by the names of their models and experiments.
    """
    from kamerton.tracking.mlflow_client import connect

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    connect(uri)
    return uri
