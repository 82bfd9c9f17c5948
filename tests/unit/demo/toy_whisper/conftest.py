import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks are slower, and tests less repeatable, on several threads."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("whisper")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
