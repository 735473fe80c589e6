"""Signals that ask a run to stop in good order: taken note of from the first moment, obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_asked: list[str] = []


def listen() -> None:
    """From here on SIGTERM, SIGUSR1 and the first Ctrl-C only ask; a second Ctrl-C interrupts."""
    _asked.clear()
    _handle(_take_note)


def ignore() -> None:
    """The run has ended or stopped: a signal that is asked again must not kill what is only tidying up."""
    _handle(signal.SIG_IGN)


@contextmanager
def listening() -> Iterator[None]:
    """``listen`` for a while, in a process that has a life of its own: its handlers come back whatever happens."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        if _may_handle():
            for number, handler in before.items():
                if handler is not None:  # None = set by other than Python, which cannot be given back
                    signal.signal(number, handler)
        _asked.clear()


def _may_handle() -> bool:
    """Only a process's first thread may say what signals do; in another one nobody asks."""
    return threading.current_thread() is threading.main_thread()


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    if _may_handle():
        for number in SIGNALS:
            signal.signal(number, handler)


def _take_note(number: int, _frame: FrameType | None) -> None:
    _asked.append(signal.Signals(number).name)
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)


def asked() -> str:
    """Name of the first signal that has come, or nothing."""
    return _asked[0] if _asked else ""
