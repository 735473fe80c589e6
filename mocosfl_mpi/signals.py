"""Signals that ask a run to stop in good order: taken note of from the first moment, obeyed between two steps."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_asked: list[str] = []


def listen() -> None:
    """From here on SIGTERM, SIGUSR1 and the first Ctrl-C only ask; a second Ctrl-C interrupts."""
    _asked.clear()
    for number in SIGNALS:
        signal.signal(number, _take_note)


def ignore() -> None:
    """The run has ended or stopped: a signal that is asked again must not kill what is only tidying up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _take_note(number: int, _frame: FrameType | None) -> None:
    _asked.append(signal.Signals(number).name)
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)


def asked() -> str:
    """Name of the first signal that has come, or nothing."""
    return _asked[0] if _asked else ""
