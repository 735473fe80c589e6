"""Watching: every state that a run can be in is a sentence, and no writer ever notices."""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mocosfl_mpi.cli import main
from mocosfl_mpi.record.output import LOCK, at_work
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.watch import glance as states
from mocosfl_mpi.watch.curves import bars, svg
from mocosfl_mpi.watch.facts import line, remarks
from mocosfl_mpi.watch.glance import Watcher, thinned
from mocosfl_mpi.watch.page import MARK, page
from mocosfl_mpi.watch.view import view

ROOT = Path(__file__).parents[3]
PACKED = ROOT / "tests/analysis/runs"


def unpack(name: str, directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "run.h5").write_bytes(lzma.decompress((PACKED / f"{name}.h5.xz").read_bytes()))
    return directory


def hold(directory: Path, process: int, host: str | None = None) -> None:
    """The lock as a run leaves it."""
    (directory / LOCK).write_text(f"process {process} on {host or socket.gethostname()}\n")


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def look(*paths: Path) -> list:
    return Watcher(paths).look()


def shown(glances, height: int | None = None, width: int = 110) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(view(glances, width, height))
    return capture.get()


# ---------------------------------------------------------------------------------------------- states of a run


def test_complete(tmp_path):
    (found,) = look(unpack("mocosfl-cut1-seed0", tmp_path / "a"))
    assert (found.state, found.share, found.label) == (states.COMPLETE, 1.0, "a")
    with open_run(tmp_path / "a") as run:
        summary = run.summary()
    assert found.content.summary["knn_top1"] == summary["knn_top1"]
    assert found.content.warnings == summary["warnings"]
    text = shown([found])
    for words in ("epoch 3/3, step 12/12", f"{summary['knn_top1']:.1f} %", "online–momentum distance", "collapsed"):
        assert words in text


@pytest.mark.parametrize("width", [60, 80, 110])
def test_a_sheet_fits_a_narrow_terminal(tmp_path, width):
    text = shown(look(unpack("ranks3", tmp_path / "a")), width=width)
    rows = [words for words in text.splitlines() if words.startswith(("loss", "kNN", "idle"))]
    assert len(rows) == 3
    assert len(text.splitlines()) < 24
    assert ("contrastive" in text) == (width == 110)


def test_stopped_killed_running_and_elsewhere(tmp_path):
    run = unpack("killed", tmp_path / "a")
    assert look(run)[0].state == states.STOPPED
    hold(run, gone())
    assert look(run)[0].state == states.KILLED
    hold(run, os.getpid())
    (found,) = look(run)
    assert found.state == states.RUNNING
    assert found.left > 0
    hold(run, gone(), "another-host")
    assert look(run)[0].state == states.RUNNING
    assert at_work(run) is None


def test_a_silent_run_is_remarked(tmp_path):
    run = unpack("killed", tmp_path / "a")
    hold(run, os.getpid())
    assert not any("Nothing was written" in text for text in look(run)[0].warnings)
    os.utime(run / "run.h5", (time.time(), time.time() - 7200))
    assert any("Nothing was written for 2:00:0" in text for text in look(run)[0].warnings)
    assert look(run)[0].left == 0.0


def test_not_begun_and_starting(tmp_path):
    assert look(tmp_path)[0].state == states.MISSING
    hold(tmp_path, os.getpid())
    assert look(tmp_path)[0].state == states.STARTING
    assert "has written nothing yet" in line(look(tmp_path)[0])


def test_an_older_schema(tmp_path):
    (tmp_path / "run.h5").write_bytes(gzip.decompress((ROOT / "tests/unit/record/run-1.0.h5.gz").read_bytes()))
    (found,) = look(tmp_path)
    assert found.content is not None
    assert found.state in (states.COMPLETE, states.STOPPED)


def test_vanished(tmp_path):
    watcher = Watcher([tmp_path])
    unpack("killed", tmp_path / "grid" / "a")
    assert watcher.look()[0].state == states.STOPPED
    shutil.rmtree(tmp_path / "grid")
    (found,) = [found for found in watcher.look() if found.content]
    assert found.state == states.GONE
    assert "gone" in line(found)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_damaged(tmp_path, size, capsys):
    run = unpack("killed", tmp_path / "a")
    watcher = Watcher([run])
    before = watcher.look()[0].content
    content = (run / "run.h5").read_bytes()
    (run / "run.h5").write_bytes(content[:size])
    (found,) = watcher.look()
    assert (found.state, found.content) == (states.UNREADABLE, before)
    assert str(run / "run.h5") in found.message
    assert main(["watch", "--once", str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    # Beside another one it is a line.
    unpack("one_epoch", tmp_path / "b")
    assert main(["watch", "--once", str(tmp_path)]) == 0
    assert "unreadable" in capsys.readouterr().out


def test_a_file_that_was_being_replaced_is_read_again(tmp_path, monkeypatch):
    run = unpack("killed", tmp_path / "a")
    content = (run / "run.h5").read_bytes()
    (run / "run.h5").write_bytes(content[:3000])
    monkeypatch.setattr(time, "sleep", lambda _: (run / "run.h5").write_bytes(content))
    assert look(run)[0].state == states.STOPPED


# ---------------------------------------------------------------------------------------------- a run at work

WRITER = """
import os, sys
from pathlib import Path
from mocosfl_mpi.config import parse
from mocosfl_mpi.record.output import Lock
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import GROWING
from tests.unit.record.samples import CONFIG, STATE, create, row
out = Path(sys.argv[1])
config = parse(CONFIG | {"epochs": 4}, "test")
lock, recorder = Lock(out), create(out / "run.h5", config=config)
def write(number):
    for dim in GROWING:
        recorder.append(dim, row(dim, number))
    recorder.flush()
for command in sys.stdin:
    word, number = command.split()
    if word == "row":
        write(int(number))
    if word == "resume":
        recorder.close()
        with open_run(out) as earlier:
            rows = {dim: int(number) for dim in earlier.rows}
            recorder = create(out / "run.h5", config=config, earlier=(earlier, rows))
    if word == "end":
        recorder.complete(STATE)
        recorder.close()
        lock.release()
    print("done", flush=True)
"""


@pytest.fixture
def writer(tmp_path):
    """A run in another process that does what it is told, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    def tell(command: str) -> None:
        process.stdin.write(command + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    yield tell
    process.kill()
    process.communicate()


def test_a_live_run_is_followed_through_a_resumption_to_its_end(tmp_path, writer, capsys):
    watcher = Watcher([tmp_path])
    writer("row 0")
    (found,) = watcher.look()
    assert (found.state, found.content.summary["epochs"]) == (states.RUNNING, 1)
    for number in (1, 2):
        writer(f"row {number}")
        assert watcher.look()[0].content.summary["epochs"] == number + 1
    inode = (tmp_path / "run.h5").stat().st_ino
    writer("resume 1")
    assert (tmp_path / "run.h5").stat().st_ino != inode
    assert watcher.look()[0].content.summary["epochs"] == 1
    for number in (1, 2, 3):
        writer(f"row {number}")
    assert watcher.look()[0].content.summary["epochs"] == 4
    writer("end 0")
    assert watcher.look()[0].state == states.COMPLETE
    assert main(["watch", str(tmp_path)]) == 0  # and it ends by itself
    assert "complete" in capsys.readouterr().out


def test_a_run_writes_as_if_nobody_watched(tmp_path, writer):
    """What is read again and again holds no lock, and the rows are those that were written."""
    watcher = Watcher([tmp_path])
    for number in range(4):
        writer(f"row {number}")
        for _ in range(5):
            watcher._known.clear()
            watcher.look()
    writer("end 0")
    with open_run(tmp_path, locks=False) as run, (tmp_path / "run.h5").open("rb") as other:
        assert run.rows["step"] == 4
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if the reader had locked it


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    watcher = Watcher([unpack("killed", tmp_path / "a")])
    first = watcher.look()[0].content
    monkeypatch.setattr(states, "_content", lambda file: pytest.fail("read again"))
    assert watcher.look()[0].content is first


# ---------------------------------------------------------------------------------------------- many runs


@pytest.fixture
def grid(tmp_path):
    for seed in range(3):
        unpack(f"monacosfl-cut4-seed{seed}", tmp_path / f"cut4-seed{seed}")
    unpack("killed", tmp_path / "deeper" / "killed")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cut4-seed0.toml").touch()
    (tmp_path / "configs" / "cut4-seed9.toml").touch()
    return tmp_path


def test_a_directory_of_runs_is_a_table(grid, capsys):
    assert main(["watch", "--once", str(grid)]) == 0
    out = capsys.readouterr().out
    for words in (
        "5 runs: 3 complete, 1 stopped, 1 not begun",
        "cut4-seed2",
        "deeper/killed",
        "cut4-seed9",
        "alike of",
    ):
        assert words in out
    assert "\x1b" not in out


def test_runs_given_twice_are_there_once(grid):
    assert [found.label for found in look(grid, grid / "cut4-seed0")].count(f"{grid.name}/cut4-seed0") == 1
    assert len(look(grid, grid / "cut4-seed0")) == 5


@pytest.mark.parametrize("height", [12, 24])
def test_fifty_runs_fit_a_terminal(tmp_path, height):
    content = lzma.decompress((PACKED / "killed.h5.xz").read_bytes())
    for number in range(50):
        (tmp_path / f"run{number}").mkdir()
        if number < 8:
            (tmp_path / f"run{number}" / "run.h5").write_bytes(content)
    hold(tmp_path / "run3", os.getpid())
    (tmp_path / "configs").mkdir()
    for number in range(8, 50):
        (tmp_path / "configs" / f"run{number}.toml").touch()
    text = shown(look(tmp_path), height)
    assert len(text.splitlines()) <= height
    assert "more, for which there is no room" in text
    assert "50 runs: 1 running, 7 stopped, 42 not begun" in text


def test_labels_with_control_characters_are_harmless(tmp_path):
    run = unpack("killed", tmp_path / "a\x1b[31m<b>")
    assert "\x1b" not in shown(look(run))
    assert "&lt;b&gt;" in page(look(run), None)
    assert "\x1b" not in page(look(run), None)


# ---------------------------------------------------------------------------------------------- the command


def test_lines_tell_what_is_new(tmp_path, writer, capsys, monkeypatch):
    commands = iter(["row 1", "row 2", "nothing 0", "row 3", "end 0"])
    monkeypatch.setattr(time, "sleep", lambda _: writer(next(commands)))
    writer("row 0")
    assert main(["watch", str(tmp_path)]) == 0
    lines = [text for text in capsys.readouterr().out.splitlines() if "epoch" in text]
    assert [text.partition("epoch ")[2][:3] for text in lines] == ["1/4", "2/4", "3/4", "4/4", "4/4"]


def test_ctrl_c_ends_quietly(tmp_path, monkeypatch, capsys):
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    unpack("killed", tmp_path / "a")
    monkeypatch.setattr(time, "sleep", interrupted)
    assert main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "there is no nowhere"),
        ([".", "--interval", "0"], "--interval 0"),
        ([".", "--interval", "nan"], "--interval nan"),
        ([".", "--html", "notes.html"], "is no page of `mocosfl watch`"),
        ([".", "--html", "."], "is a directory"),
        ([".", "--html", "no/where.html"], "cannot write"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    Path("notes.html").write_text("mine")
    assert main(["watch", "--once", *arguments]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert Path("notes.html").read_text() == "mine"


def test_the_page_refreshes_itself_until_the_end(tmp_path, monkeypatch, capsys):
    unpack("killed", tmp_path / "a")
    target = tmp_path / "page.html"
    pages = []

    def finish(_: float) -> None:
        pages.append(target.read_text())
        shutil.rmtree(tmp_path / "a")
        unpack("one_epoch", tmp_path / "a")

    monkeypatch.setattr(time, "sleep", finish)
    assert main(["watch", str(tmp_path), "--html", str(target), "--interval", "3"]) == 0
    pages.append(target.read_text())
    assert ['http-equiv="refresh" content="3"' in text for text in pages] == [True, False]
    for text in pages:
        assert MARK in text
        assert "<script" not in text
        assert "http:" not in text
        assert "<svg" in text
    assert "last look" in pages[1]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["page.html"]


def test_neither_torch_nor_mpi_is_loaded(tmp_path):
    unpack("one_epoch", tmp_path / "a")
    code = (
        "import sys\nfrom mocosfl_mpi.cli import main\n"
        f"assert main(['watch', {str(tmp_path)!r}, '--html', {str(tmp_path / 'page.html')!r}]) == 0\n"
        f"assert main(['watch', '--once', {str(tmp_path)!r}]) == 0\n"
        "assert not {'torch', 'mpi4py', 'mpi4py.MPI'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------------------------------------- curves


def test_bars():
    assert bars(np.array([0.0, 1.0, 2.0, 7.0]), 10) == "▁▂▃█"
    assert bars(np.array([3.0, np.nan, 3.0]), 10) == "▁·▁"
    assert bars(np.array([np.nan]), 10) == bars(np.array([]), 10) == ""
    assert len(bars(np.arange(1000.0), 28)) == 28


def test_thinned_keeps_the_course():
    assert thinned(np.array([1.0, 3.0, np.nan, 7.0, np.nan, np.nan]), 3).tolist()[:2] == [2.0, 7.0]
    assert np.isnan(thinned(np.array([1.0, 3.0, np.nan, 7.0, np.nan, np.nan]), 3)[2])
    assert thinned(np.arange(5), 60).tolist() == [0, 1, 2, 3, 4]


def test_svg_says_what_it_is_and_bears_one_point():
    assert 'aria-label="a &amp; b"' in svg(np.array([2.0]), "a & b")
    assert svg(np.array([np.nan]), "x") == ""


def test_remarks_that_differ_in_numbers_only_are_one(grid):
    kinds = [(kind, of) for kind, text, of in remarks(look(grid)) if "collapsed" in text]
    assert len(kinds) == 1
    assert kinds[0][0] == "Warning"
