"""What differs makes the groups, and the groups the legend."""

from __future__ import annotations

import shutil

import pytest

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.study import Member, Study, find, telling


def members(*settings):
    return [Member(None, "run", 0, 1, True, "", found) for found in settings]


def study(*settings):
    return Study.of(members(*settings), pytest.fail)


def test_the_fewest_settings_tell_runs_apart():
    found = members(
        {"client.batch_size": 20, "client.count": 5, "method": "mocosfl", "epochs": 3},
        {"client.batch_size": 5, "client.count": 20, "method": "mocosfl", "epochs": 3},
        {"client.batch_size": 5, "client.count": 20, "method": "fl_moco", "epochs": 3},
    )
    assert telling(found) == ("method", "client.count")
    assert telling(found[:1]) == ()


def test_computing_is_named_only_where_nothing_else_differs():
    found = members({"compute.precision": "fp32", "views.size": 8}, {"compute.precision": "bf16", "views.size": 16})
    assert telling(found) == ("views.size",)
    found = members({"compute.precision": "fp32"}, {"compute.precision": "bf16"})
    assert telling(found) == ("compute.precision",)


def test_groups_stand_in_the_order_of_methods_and_numbers():
    cells = [("monacosfl", 10), ("mocosfl", 10), ("monacosfl", 9), ("mocosfl", 9)]
    found = study(*({"method": method, "model.cut_layer": cut} for method, cut in cells))
    assert found.labels == ["MocoSFL, cut 9", "MocoSFL, cut 10", "MonAcoSFL, cut 9", "MonAcoSFL, cut 10"]
    assert list(found.legend) == ["MocoSFL", "MonAcoSFL", "cut 9", "cut 10"]
    colours = [group.mark.colour for group in found.groups]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert found.groups[0].mark.line == found.groups[2].mark.line != found.groups[1].mark.line
    lines, legend = found.without("model.cut_layer")
    assert [line.label for line in lines] == list(legend) == ["MocoSFL", "MonAcoSFL"]


def test_an_alignment_of_the_method_goes_without_saying():
    arms = [("mocosfl", "method"), ("mocosfl", "momentum_reset"), ("monacosfl", "method")]
    found = study(*({"method": method, "federation.alignment": how} for method, how in arms))
    assert found.labels == ["MocoSFL", "MocoSFL, momentum reset", "MonAcoSFL"]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 20, 50])
def test_no_two_groups_look_alike(count):
    marks, legend = style.marks([f"arm {number}" for number in range(count)], [""] * count)
    assert len(set(marks)) == len(legend) == count
    grey = {(mark.marker, mark.line) for mark in marks}
    assert len(grey) >= min(count, 8), "who sees no colours can tell eight apart"


def test_greys_differ():
    """Colours that follow one another are at least a tenth apart in lightness, for print without colours."""
    light = []
    for colour in style.COLOURS:
        red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        light.append(0.299 * red + 0.587 * green + 0.114 * blue)
    steps = [abs(a - b) for a, b in zip(light, light[1:], strict=False)]
    assert min(steps) > 0.1
    assert len(set(style.HATCHES)) > len(style.COLOURS)


def test_the_same_run_twice_counts_once(runs, tmp_path, capsys):
    source = runs / "grid/mocosfl-cut1-seed0"
    assert len(find([source, source / "run.h5", runs / "grid"])) == 18
    shutil.copytree(source, tmp_path / "copy")
    told = []
    found = Study.read([source, tmp_path / "copy", runs / "ranks2"], by_ranks=False, say=told.append)
    assert [member.name for member in found.members] == ["mocosfl-cut1-seed0"]
    assert [text.split(" is ")[0] for text in told] == ["copy", "ranks2"]
    found = Study.read([source, tmp_path / "copy", runs / "ranks2"], by_ranks=True, say=told.append)
    assert found.labels == ["ranks 1", "ranks 2"]
    assert len(found.groups[0].members) == 2


def test_what_a_legend_does_not_say_is_said(runs):
    told = []
    Study.read([runs / "clients6", runs / "fl_moco"], by_ranks=False, say=told.append)
    assert told == ["runs that differ in method differ in model.cut_layer, client.count too; legends do not say so"]


def test_a_configuration_of_another_version(runs):
    """The oldest file's configuration has the defaults of what came later."""
    found = Study.read([runs / "old", runs / "ranks2"], by_ranks=False, say=lambda _: None)
    assert all("federation.alignment" in member.settings for member in found.members)


def test_a_place_without_runs(tmp_path):
    with pytest.raises(BadInput, match="expected a run's directory"):
        Study.read([tmp_path], by_ranks=False, say=print)
