import sys
from pathlib import Path

import pytest

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")


@pytest.fixture
def fake_trainer() -> list[str]:
    """The command line of a trainer that takes no time."""
    return [sys.executable, str(FAKE_TRAINER)]
