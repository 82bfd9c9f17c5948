"""Run a command as a process that dies with the one that started it.

Called by path, `python child.py PARENT_PID COMMAND…`, with nothing but the standard library. A
tuner that is killed cannot clean up; a trainer that outlived it would go on for hours and hold the
trial's files against the tuner's next start. On Linux the kernel sends the signal; elsewhere the
trainer ends with its budget and the lock of the run directory keeps others out until then.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_STOPPED = 75


def main(arguments: list[str]) -> None:
    """Bind this process to its parent and become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        # Kept across exec. SIGKILL, because the next tuner must not meet a trainer that is still
        # saving; checkpoints are atomic, so nothing is torn.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(_STOPPED)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
