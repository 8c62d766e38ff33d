"""One process per run directory: a lock that the kernel gives back however its holder ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from facegpt.errors import ConfigError
from facegpt.files import take_lock

LOCK = ".lock"
PATIENCE = 1.0  # seconds; somebody who only looks holds it for a moment


def lock(run: Path) -> TextIO:
    """Take the lock of a run directory and keep it until the returned file is closed or the process ends.

    Raises ConfigError that names the process that has it, be it a second start or a rank that survived its
    launcher.
    """
    file = (run / LOCK).open("a+", encoding="utf-8")
    deadline = time.monotonic() + PATIENCE
    while not take_lock(file, wait=False):
        if time.monotonic() > deadline:
            file.close()
            raise ConfigError(_in_use(run))
        time.sleep(0.1)
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
    file.flush()
    return file


def check_unlocked(run: Path) -> None:
    """Raise ConfigError when another process has the lock. Any number of processes may look at once."""
    try:
        with (run / LOCK).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(_in_use(run)) from None
    except OSError:  # no such file, or no locks here
        return


def _in_use(run: Path) -> str:
    try:
        holder = json.loads((run / LOCK).read_text(encoding="utf-8"))
        who = f"process {int(holder['pid'])} on {str(holder['host'])[:64]}"
    except (OSError, ValueError, TypeError, KeyError):
        who = "another process"
    return f"{run} is in use by {who}; wait until it has ended, end it, or take another run=DIRECTORY"
