"""What is asked of a batch system follows from the plan."""

from __future__ import annotations

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.plan.profile import write_profile
from mocosfl_mpi.plan.request import LONGEST, node_memory, requests
from tests.unit.plan.test_plan import plan, profile


def test_one_node_holds_all_ranks_and_their_common_pages_once():
    made = plan(ranks=4)
    assert node_memory(made, 1) == made.memory
    assert node_memory(made, 4) == max(made.resident)
    first = sum(made.resident[:2]) - made.parts[1].shared
    second = sum(made.resident[2:]) - made.parts[3].shared
    assert node_memory(made, 2) == max(first, second) < made.memory


def test_memory_and_time_have_their_margins_and_say_so():
    made = plan("quickstart")
    memory, time = requests(made, 1)
    assert int(memory.text.removesuffix("G")) - 1 < 1.25 * made.memory / 2**30 <= int(memory.text.removesuffix("G"))
    hours, minutes, seconds = map(int, time.text.split(":"))
    asked = 3600 * hours + 60 * minutes + seconds
    assert asked - 60 < 1.5 * made.seconds + 600 <= asked < LONGEST
    assert f"{made.memory / 2**30:.1f} GiB" in memory.source
    assert "allocations" not in time.source


def test_a_long_run_asks_for_a_day_and_continues():
    _, time = requests(plan("quickstart", "epochs=1000000"), 1)
    assert time.text == "24:00:00"
    assert "several allocations" in time.source


@pytest.mark.parametrize(("words", "mine"), [((), ("", "")), (("--mem", "7G", "--time", "33:00"), ("7G", "33:00"))])
def test_a_script_by_a_profile(tmp_path, capsys, words, mine):
    made = plan(ranks=3)
    file = tmp_path / "node.json"
    write_profile(profile(made.experiment, made.layout), file)
    assert main(["slurm", "smoke", "-n", "3", "--profile", str(file), *words]) == 0
    said = capsys.readouterr().out
    memory, time = requests(made, 1)
    assert f"#SBATCH --mem={mine[0] or memory.text} " in said
    assert f"#SBATCH --time={mine[1] or time.text} " in said
    assert said.count("# plan: ") == (0 if words else 2)


def test_a_profile_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "node.json").write_text("{}")
    assert main(["slurm", "smoke", "--profile", str(tmp_path / "node.json")]) == 2
    assert "node.json" in capsys.readouterr().err
