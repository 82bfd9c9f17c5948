"""What a process owes the one that started it."""

import ctypes
import os
import signal
import sys

# The caller sets this where an orphan would write beside its successor: DVC names the stage.
PARENT_MARKER = "DVC_STAGE"
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> bool:
    """Have the kernel send this process ``number`` when its parent dies, however it dies.

    A stage whose orchestrator was killed would otherwise go on as an orphan and write beside the
    stage that the next run starts. Returns whether that is in force; it is Linux's alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        return False
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), number)
    return True
