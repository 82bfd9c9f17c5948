"""The work on recordings, with decoders that crash: tests put it in the place of the real one."""

import os
import signal
import time
from pathlib import Path

from kamerton.data.work import cut, look_at


def cut_or_crash(job, tick):
    if "crash" in job.path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    return cut(job, tick)


def look_or_crash(path, tick):
    if "crash" in path.name:
        os.abort()
    return look_at(path, tick)


def cut_slowly(job, tick):
    """Does the small ones at once; the rest take for ever, and say so by a file."""
    if "slow" in job.path.name:
        Path(f"{job.path}.begun").touch()
        time.sleep(120)
    return cut(job, tick)
