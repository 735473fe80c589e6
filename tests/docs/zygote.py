"""Carries out `mocosfl` commands without starting an interpreter for each: imports once, then forks.

``python -m tests.docs.zygote SOCKET`` listens; the program ``mocosfl`` on the PATH of the tests (``CLIENT``) hands over
its words, its directory, its environment and its three streams. A command that starts ranks, or is one, gets an
interpreter of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback

CLIENT = """#!{python} -S
import json, os, shlex, socket, sys
words = sys.argv[1:]
extra = json.loads(os.environ.get("DOCS_EXTRA", "{{}}"))
words += shlex.split(extra.get(words[0] if words else "", extra.get("", "")))
ranks = 1
for number, word in enumerate(words):
    if word == "-n":
        ranks = int(words[number + 1])
launched = any(name in os.environ for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"))
if launched or os.environ.get("DOCS_FRESH") or (ranks > 1 and words[0] in ("run", "pretrain", "attack", "audit")):
    os.execv("{python}", ["{python}", "-m", "mocosfl_mpi", *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{socket}")
    message = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(message).to_bytes(8, "little")], [0, 1, 2])
    server.sendall(message)
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""
"""The program ``mocosfl``. What ``DOCS_EXTRA`` says (JSON: by subcommand) is appended to the words."""


def _receive(client: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    head, fds, _, _ = socket.recv_fds(client, 8, 3)
    left = int.from_bytes(head, "little")
    parts = []
    while left:
        parts.append(client.recv(left))
        left -= len(parts[-1])
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    words, folder, environment = json.loads(b"".join(parts))
    return words, folder, environment


def _carry_out(client: socket.socket) -> int:
    from mocosfl_mpi.cli import main

    words, folder, environment = _receive(client)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if words and words[0] in {"run", "pretrain"}:
        os.environ["MOCOSFL_RANKS"] = "1"  # as `mocosfl run -n 1` does, which then becomes a fresh interpreter
    try:
        return main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # what an interpreter would do
        traceback.print_exc()
        return 1


def serve(path: str) -> None:
    import mocosfl_mpi.evaluation.judge
    import mocosfl_mpi.plan.estimate  # noqa: F401 - both for torch and what goes with it

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = _carry_out(client)
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError):
                        stream.flush()
                client.sendall(bytes([code & 255]))
                client.close()
                _end(code)
            client.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _end(code: int) -> None:
    """End as an interpreter does: MPI is finalised at exit."""
    import atexit

    atexit._run_exitfuncs()
    os._exit(code & 255)


if __name__ == "__main__":
    serve(sys.argv[1])
