"""Bars on a person's terminal and nowhere else."""

import pytest

from mocosfl_mpi.launch import TERMINAL
from mocosfl_mpi.speaker import console


class Terminal:
    def isatty(self):
        return True

    def write(self, text):
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize(
    ("environ", "terminal"),
    [
        ({}, True),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3"}, False),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3", TERMINAL: "97"}, True),
    ],
)
def test_open_mpi_gives_ranks_a_terminal_that_nobody_watches(monkeypatch, environ, terminal):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", TERMINAL, "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert console().is_terminal is terminal
    assert TERMINAL not in environ or console().width == 97
