"""What stands on the pages of every kind of run, and what is refused."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.config import parse
from mocosfl_mpi.figures import divergence_map
from mocosfl_mpi.grid.description import read_grid
from mocosfl_mpi.grid.published import write_published
from mocosfl_mpi.record.output import Lock
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.report.pictures import Kind
from tests.shipped import fifty
from tests.unit.record.samples import create, row
from tests.unit.report.conftest import page

SECTIONS = ["warnings", "run", "results", "figures", "cost", "computation"]


def check(found):
    """Sound, self-contained and with a place for whoever cannot see or point."""
    assert not found.open, "all elements are closed"
    assert len(found.all("h1")) == len(found.all("main")) == len(found.all("nav")) == 1
    ids = [element.attributes["id"] for element in found.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for link in found.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids, "links stay on the page"
    assert found.all("a")[0].attributes["href"] == "#content"
    assert not {"script", "iframe", "object"} & {element.tag for element in found.elements}
    for element in found.elements:
        for name in ("src", "href"):
            if name in element.attributes:
                assert element.attributes[name].startswith(("data:", "#"))
    assert "url(" not in found.source
    assert "@import" not in found.source
    levels = [int(element.tag[1]) for element in found.elements if element.tag in ("h1", "h2", "h3", "h4", "h5")]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    for image in found.all("img"):
        assert len(image.attributes["alt"]) > 20
    for title in ("Warnings", "What was run", "Results", "Do it again"):
        assert title in found.texts("h2")


def cells(found, title):
    """Rows of the table with that title."""
    (start,) = [
        n for n, one in enumerate(found.elements) if (one.attributes.get("aria-label") or "") == f"Table: {title}"
    ]
    rows = []
    for element in found.elements[start + 2 :]:
        if element.tag == "table":
            break
        if element.tag == "tr":
            rows.append([])
        elif element.tag in ("th", "td"):
            rows[-1].append(element.text.strip())
    return rows


def test_one_run(alone, runs):
    check(alone)
    with open_run(runs / "ranks3") as run:
        summary = run.summary()
    assert alone.texts("h1") == ["ranks3"]
    assert cells(alone, "Test accuracy in %")[1] == [
        "kNN on encoder features", f"{summary['knn_top1']:.1f}", f"{summary['knn_top1_untrained']:.1f}",
        f"{summary['knn_top1'] - summary['knn_top1_untrained']:+.1f}", f"{summary['knn_top1_pixels']:.1f}",
    ]  # fmt: skip
    for text in summary["warnings"]:
        assert text in alone.text
    assert summary["config_hash"] in alone.text
    assert summary["state_sha256"] in alone.text
    settings = cells(alone, "setting, value, default")
    assert [line[1] for line in settings if line[0] == "client.count"] == ["12"]
    assert all(value != default for _, value, default in settings[1:])
    assert "mocosfl run mine.toml -n 3 --out again" in alone.text
    assert "MiB = 2^20" in alone.text
    captions = alone.texts("figcaption")
    for start in ("kNN accuracy against epochs", "Loss", "Divergence by", "What a client has sent", "Seconds by rank"):
        assert [caption for caption in captions if caption.startswith(start)], start
    assert len(alone.all("img")) == len(captions) >= 10


def test_the_audit_of_a_run(alone):
    assert "Privacy audit" in alone.texts("h2")
    assert "The strongest attack of each adversary" in alone.texts("h3")
    assert any(caption.startswith("What adversaries learn: reconstruction") for caption in alone.texts("figcaption"))
    rows = cells(alone, "adversary, kind, strongest attack, metric, score, floor, untrained, finding")
    assert {row[1] for row in rows[1:]} == {"reconstruction", "linkage"}


def test_a_grid(grid, runs):
    check(grid)
    assert "12 runs of 6 configurations: 12 complete. 36 of 36 epochs are done." in grid.text
    table = cells(grid, "Test accuracy at the end")
    assert table[0][:4] == ["configuration", "linear probe, %", "published", "kNN, %"]
    values = []
    for seed in range(2):
        with open_run(runs / f"grid/mocosfl-cut4-seed{seed}") as run:
            values.append(run.result("linear_top1"))
    assert table[2][:3] == ["MocoSFL, cut 4", f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}", "70"]
    assert [row[-1] for row in table[1:]] == ["2/2"] * 6
    assert "Published: nobody: these numbers are there for the tests." in grid.text
    assert cells(grid, "In what the configurations differ")[1] == ["MocoSFL, cut 1", "mocosfl", "1", "0, 1"]
    cost = cells(grid, "A simulated client")
    with open_run(runs / "grid/mocosfl-cut1-seed0") as run:
        sent = run.summary()["bytes_per_client"]
    up = sum(count for kind, count in sent.items() if kind.endswith("_up"))
    assert cost[1][1] == f"{up / 1024:.1f} KiB"
    assert "Accuracy at the end against the cut layer" in grid.texts("figcaption")
    assert "Only the first 1 pictures are here" in grid.text
    assert len(cells(grid, "run, configuration, seed, state, epochs, linear, %, kNN, % (newest), seconds, "
                           "configuration hash, state hash")) == 13  # fmt: skip


@pytest.mark.parametrize("kind", ["killed", "one_epoch", "one_client", "old", "fl_moco", "fedavg", "split_vanilla"])
def test_every_kind_of_run(kind, runs, tmp_path, undrawn):
    found = page(runs / kind, tmp_path / "page.html")
    check(found)
    badge = "killed" if kind == "killed" else "complete"
    assert found.texts("span") == [badge]


def test_failures_are_warned_of(runs, tmp_path, undrawn):
    found = page(runs / "failing", tmp_path / "page.html")
    warned = " ".join(found.texts("li"))
    assert "clients drawn that dropped out of their epoch" in warned
    assert "synchronisations missed by a client" in warned


def test_a_run_at_work(tmp_path, undrawn):
    """The writer is open, and its directory is locked; what is not there yet is not on the page."""
    config = parse({"epochs": 9, "client": {"count": 4}}, "test")
    sizes = {"client": 4, "member": 4}
    lock = Lock(tmp_path)
    with create(tmp_path / "run.h5", sizes, config) as recorder:
        check(page(tmp_path, tmp_path / "none.html"))
        for count in (1, 2):
            for dim in ("step", "sync", "epoch", "evaluation"):
                recorder.append(dim, row(dim, count, sizes, config))
        recorder.flush()
        found = page(tmp_path, tmp_path / "page.html")
        lock.release()
        left = page(tmp_path, tmp_path / "left.html")
    ended = page(tmp_path, tmp_path / "ended.html")
    assert [one.texts("span") for one in (found, left, ended)] == [["running"], ["killed"], ["stopped"]]
    assert "2 of 9 epochs in its file" in found.text
    assert "At the pace so far it needs" in found.text
    assert "an unofficial file" in found.text, "what the program noted"
    assert found.all("progress")[0].attributes == {
        "max": "9", "value": "2", "aria-label": "2 of 9 epochs are done"
    }  # fmt: skip


def test_numbers_that_contradict_each_other_hide_one_figure(tmp_path, monkeypatch):
    """Clients that are none of the run's, in a file that is sound otherwise."""
    config, sizes = parse({"client": {"count": 4}}, "test"), {"client": 4, "member": 4}
    with create(tmp_path / "run.h5", sizes, config) as recorder:
        for dim in ("step", "sync", "epoch", "evaluation"):
            recorder.append(dim, row(dim, 1, sizes, config))
    monkeypatch.setattr("mocosfl_mpi.report.single.pictures.PROGRESS", (Kind(divergence_map),))
    for others in ("COST", "COMPUTATION"):
        monkeypatch.setattr(f"mocosfl_mpi.report.single.pictures.{others}", ())
    found = page(tmp_path, tmp_path / "page.html")
    assert "numbers in the files do not fit together (KeyError" in found.text


def test_damaged_files_among_others_are_named(runs, tmp_path, undrawn):
    for name in ("ranks2", "ranks3", "killed"):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    cut = tmp_path / "runs/ranks3/run.h5"
    cut.write_bytes(cut.read_bytes()[:30000])
    (tmp_path / "runs/text").mkdir()
    (tmp_path / "runs/text/run.h5").write_text("no HDF5")
    found = page(tmp_path / "runs", tmp_path / "page.html")
    check(found)
    warned = found.texts("li")
    for name in ("ranks3", "text"):
        assert [line for line in warned if line.startswith(f"{name} cannot be read and is not on this page: ")]
    assert "killed: The run has not reached its end" in " ".join(warned)
    assert "2 runs of 2 configurations: 1 complete, 1 killed; 2 more cannot be read." in found.text


def test_what_cannot_be_used_is_refused(runs, tmp_path, capsys):
    cut = tmp_path / "cut.h5"
    cut.write_bytes((runs / "ranks2/run.h5").read_bytes()[:30000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for words, told in (
        ([tmp_path / "absent"], "absent"),
        ([tmp_path / ("long" * 99)], "cannot read"),
        ([tmp_path / "empty"], "no run at"),
        ([cut], "damaged"),
        ([runs / "ranks2", tmp_path / "absent"], "absent"),
        ([runs / "ranks2", "--published", tmp_path / "absent.toml"], "absent.toml"),
        ([runs / "ranks2", "-o", tmp_path / "file/page.html"], "name another file with -o"),
    ):
        place = [] if "-o" in words else ["-o", tmp_path / "out/page.html"]
        assert main(["report", *map(str, [*words, *place])]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert told in said.err
    assert not (tmp_path / "out").exists()


def test_the_page_goes_into_the_directory(runs, tmp_path, capsys, monkeypatch, undrawn):
    shutil.copytree(runs / "ranks2", tmp_path / "mine")
    assert main(["report", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out == f"Written: {tmp_path / 'mine/report.html'}\n"
    monkeypatch.chdir(tmp_path)
    assert main(["report", "mine", "mine/run.h5"]) == 0
    assert (tmp_path / "report.html").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_what_stands_in_a_file_is_text(runs, tmp_path, undrawn):
    """Names and notes with markup in them show as they are."""
    shutil.copytree(runs / "ranks2", tmp_path / "<b>mine")
    with h5py.File(tmp_path / "<b>mine/run.h5", "r+") as file:
        file.attrs["command"] = np.bytes_("mocosfl run '<script>alert(1)</script>'")
        file.attrs["notes"] = np.bytes_('["<img src=x onerror=alert(1)> `<i>` and `"]')
    found = page(tmp_path / "<b>mine", tmp_path / "page.html")
    check(found)
    assert found.texts("h1") == ["<b>mine"]
    assert "<script>alert(1)</script>" in found.text
    assert not found.all("b") + found.all("i") + found.all("img")


def test_numbers_that_a_grid_left_beside_its_runs(runs, tmp_path, undrawn):
    """They are found without a word, unless they are of other runs."""
    for name in ("mocosfl-cut1-seed0", "mocosfl-cut8-seed0"):
        shutil.copytree(runs / "grid" / name, tmp_path / "grid" / name)
    write_published(read_grid(Path("tests/analysis/grid.toml")), tmp_path / "grid")
    found = cells(page(tmp_path / "grid", tmp_path / "page.html"), "Test accuracy at the end")
    assert [row[2] for row in found] == ["published", "87.5", "50"]
    alone = page(tmp_path / "grid/mocosfl-cut8-seed0", tmp_path / "page.html")
    assert cells(alone, "Published")[1] == ["linear probe, %", "50"]
    shutil.copytree(runs / "fedavg", tmp_path / "grid/fedavg")
    assert "nobody: these numbers" in alone.text
    assert "nobody: these numbers" not in page(tmp_path / "grid/fedavg", tmp_path / "page.html").text


def test_fifty_runs(tmp_path, undrawn):
    found = page(fifty(tmp_path / "fifty"), tmp_path / "page.html")
    check(found)
    table = cells(found, "Test accuracy at the end")
    assert [row[0] for row in table[1:]] == [f"client lr 0.0{place}" for place in range(1, 6)]
    assert [row[-1] for row in table[1:]] == ["10/10"] * 5
    collapsed = [line for line in found.texts("li") if line.startswith("The features have collapsed")]
    assert len(collapsed) == 1, "one warning for all, and the runs below it"
    assert "50 runs" in collapsed[0]
    assert len(found.texts("h2")) < 12


def test_missing_libraries_are_named(runs, monkeypatch, capsys):
    def without(name, *arguments):
        return None if name == "jinja2" else find_spec(name, *arguments)

    monkeypatch.setattr("mocosfl_mpi.report.page.find_spec", without)
    assert main(["report", str(runs / "ranks2")]) == 2
    assert capsys.readouterr().err == "mocosfl: reports need jinja2: pip install 'mocosfl-mpi[analysis]'\n"
