import signal
import subprocess
import sys

import pytest

from kamerton.demo import run


def test_an_interrupted_demo_lets_dvc_end_by_itself(tmp_path):
    """A training below it saves when it is interrupted; killing dvc would cut that short."""
    program = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.6)\n"  # more than the quarter of a second that subprocess.run waits
        f"pathlib.Path({str(tmp_path / 'saved')!r}).touch()\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run._wait(subprocess.Popen([sys.executable, "-c", program]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "saved").exists()


def test_the_recordings_can_be_made_again(tmp_path, monkeypatch):
    """Messages about a damaged truth advise `kamerton demo --force`."""
    from kamerton.demo import corpus

    given = {}

    def make_corpus(*_paths, **options):
        given.update(options)
        return corpus.CorpusReport(1, 1, 1.0, 1.0, made=True, fingerprint="f")

    monkeypatch.setattr(corpus, "make_corpus", make_corpus)
    run.make_recordings(tmp_path, force=True)
    assert given["force"] is True
