"""SIGTERM and Ctrl-C as a wish to stop after the step: the run saves a checkpoint and ends with success."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from facegpt.training.engine import Ranks


@dataclass
class Interrupt:
    """The signal that this process has received, if any."""

    signal: str = ""

    def anywhere(self, ranks: Ranks) -> bool:
        """Whether any rank has received one; every rank must ask, and all get the same answer."""
        if ranks.world == 1:
            return bool(self.signal)
        return bool(ranks.sum(torch.tensor(float(bool(self.signal)), device=ranks.device)) > 0)


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Inside, the first SIGTERM or SIGINT is only noted; a second SIGINT interrupts as usual.

    A second SIGTERM changes nothing: after Ctrl-C the launcher sends one to every rank, and kills after 30 s.
    """
    interrupt = Interrupt()

    def note(number: int, _frame: object) -> None:
        interrupt.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # Python takes signals in the main thread only
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
