"""Memory, time and solutions of a plan: what must change with what, and by how much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mocosfl_mpi import networks
from mocosfl_mpi.cli import main
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.config.expert import first_stage
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.plan.estimate import Plan, best_layout, changes, largest_batch, most_clients
from mocosfl_mpi.plan.experiment import Elsewhere, experiment
from mocosfl_mpi.plan.images import image_set
from mocosfl_mpi.plan.measure import rehearsed
from mocosfl_mpi.plan.memory import rank_memory
from mocosfl_mpi.plan.profile import Machine, Profile, Rehearsal, cached, read_profile, remember, write_profile
from mocosfl_mpi.plan.timing import Layout, explained, load, step_time
from mocosfl_mpi.presets import load as preset
from mocosfl_mpi.split.backbones import mobilenetv2

GIB = 2**30


def planned(name="smoke", *settings):
    config = parse(apply_settings(preset(name)[1], settings), name)
    return experiment(config, image_set(config, None), Elsewhere("bf16", fused=True))


def profile(found, layout, cores=4):
    rehearsal = Rehearsal(
        precision="bf16",
        backend="fused",
        ranks=layout.ranks,
        server_threads=layout.server_threads,
        host_threads=layout.host_threads,
        load=load(found, layout.ranks),
        server=0.5,
        clients=0.2,
        views=0.1,
        other=0.05,
        synchronisation=0.02,
        encoding=1e9,
        program=[400 * 2**20, 350 * 2**20],
    )
    machine = Machine(processor="test", cores=cores, memory=16 * GIB, products=1e11, double_products=1e10)
    return Profile(software_version="0", machine=machine, precision="bf16", fused=True, rehearsals=(rehearsal,))


def plan(name="smoke", *settings, ranks=3, limit=16 * GIB, cores=4):
    found, layout = planned(name, *settings), Layout(ranks, 1, 1)
    return Plan(found, layout, profile(found, layout, cores), limit)


def test_further_evaluations_are_said_to_be_left_out_and_need_no_data():
    settings = ("evaluation.per_client=true", "evaluation.transfer=cifar10")
    notes = plan("smoke", *settings).summary()["notes"]
    assert notes == [
        "time and memory of evaluation.transfer, evaluation.per_client at the end of the run are not in this plan"
    ]
    assert plan("smoke").summary()["notes"] == []
    assert plan("smoke", "evaluation.per_client=true").seconds == plan("smoke").seconds


def test_compiled_passes_are_planned_as_uncompiled_and_that_is_said():
    compiled, plain = (plan("smoke", "compute.precision=fp32", own) for own in ("compute.compile=true", "seed=0"))
    assert any("without the time of compute.compile" in note for note in compiled.summary()["notes"])
    assert compiled.experiment.config.compute.backend == "stacked"
    assert not any("compute.compile" in note for note in plain.summary()["notes"])


def test_a_pipeline_is_planned_as_none_and_that_is_said():
    ahead, plain = (plan("smoke", f"compute.pipeline={own}") for own in ("on", "off"))
    assert any("compute.pipeline" in note for note in ahead.summary()["notes"])
    assert plain.summary()["notes"] == []
    assert ahead.seconds == plain.seconds


def test_hosts_hold_what_defences_keep_and_work_in():
    """Two ranks, a block of two clients of two: 1,024 numbers a sample, two samples a batch, one encoder's gradient."""
    same = ("client.count=2", "client.sampling_ratio=1.0", "contrast.symmetric=off", "client.batch_size=4")
    same = (*same, "compute.block_size=2", "steps_per_epoch=4", "compute.precision=fp32")

    def step(*settings):
        return rank_memory(planned("smoke", *same, *settings), 2)[1].moments["training step"]

    plain, samples, numbers = step(), 2 * 4, 4 * 16 * 16
    assert step("defence.dropout=0.2") - plain == samples * numbers * (1 + 8 + 2), "mask; in and out, masks at work"
    guarded = step("defence.clip=1.0", "defence.keep_share=0.5")
    assert guarded - plain == samples * (4 * (numbers + 1) + numbers) + samples * numbers * (8 + 12 + 25)
    assert step("client.frozen=true", "defence.dropout=0.2") - step("client.frozen=true") == samples * numbers * 10
    wide = ("defence.nopeek=1", "client.batch_size=256")
    assert step(*wide) - step(wide[1]) > 2 * 256 * numbers * 4, "smashed data that are looked at, and distances"
    decoder = ("defence.resistance=1", "defence.resistance_decoder=conv_normN0C4")
    assert step(*decoder) - plain > samples * (4 * numbers + 3 * 4 * numbers)


def test_solving_for_clients_of_a_first_stage_is_refused(capsys):
    stage = ("--stage", "pretrain", "--set", "pretraining.auxiliary=embedded")
    assert main(["plan", "smoke", *stage, "--solve", "batch"]) == 2
    assert "--stage pretrain has one, whose batch is pretraining.batch" in capsys.readouterr().err
    assert main(["plan", "smoke", *stage, "--published-accounting"]) == 2
    assert "leave --stage pretrain out" in capsys.readouterr().err
    assert main(["plan", "smoke", "--stage", "pretrain", "--set", "pretraining.auxiliary=cifar10"]) == 2
    assert "images of 3 channels and data.source = 'embedded' has 1" in capsys.readouterr().err


def test_a_first_stage_that_is_too_large_has_its_own_remedy():
    stage = ("pretraining.auxiliary=embedded", "pretraining.batch=512", "defence.clip=1.0")
    config = first_stage(parse(apply_settings(preset("smoke")[1], stage), "smoke"), "smoke")
    found = experiment(config, image_set(config, None), Elsewhere("bf16", fused=True))
    made = Plan(found, Layout(1, 1, 1), profile(found, Layout(1, 1, 1)), 2**20)
    assert made.summary()["stage"] == "pretrain"
    assert made.summary()["protection"] is None, "the expert's images are the server's own"
    assert any(text == "--set pretraining.batch=256" for text, _ in changes(made))
    assert not any("client.batch_size" in text for text, _ in changes(made))
    fewer = replace(found, images=replace(found.images, auxiliary_bytes=0))
    more = [rank_memory(which, 2)[1].held["data set of the node"] for which in (found, fewer)]
    assert more[0] > more[1]


def test_a_rehearsed_step_takes_what_it_took():
    found = plan()
    views, steps = 0.1, found.experiment.steps
    assert explained(0.5, 0.2, views, 3, steps) == pytest.approx(0.2 + 0.5 + views / steps)
    wanted = 0.2 + 0.5 + views / steps + 0.05 + 0.02 * found.experiment.syncs / steps
    assert found.time.seconds == pytest.approx(wanted)
    assert found.time.idle[0] < found.time.idle[1]


@pytest.mark.parametrize(
    ("share", "ratio", "clients", "rich"), [(0.1, 0.5, 6, 1), (0.95, 0.5, 6, 5), (0.1, 0.09, 2, 1)]
)
def test_a_rehearsal_has_rich_clients_and_others(share, ratio, clients, rich):
    settings = (f"client.rich_share={share}", f"client.sampling_ratio={ratio}", "model.rich_cut_layer=3")
    small = rehearsed(planned("smoke", *settings), Layout(1, 1, 1)).config
    again = parse(small.model_dump(), "rehearsal")
    assert (again.client.count, again.rich_clients) == (clients, rich)


def test_a_rehearsal_has_few_images_for_many_clients():
    settings = ("client.count=100", "client.sampling_ratio=1.0", "data.train_images=400", "partition.kind=dirichlet")
    small = rehearsed(planned("smoke", *settings), Layout(1, 1, 1))
    assert len(small.images.labels) < small.config.client.count == 100
    assert small.owners.images.min() > 0
    assert [len(pool) for pool in small.pools()] == [100] * small.config.epochs


def test_layers_that_are_not_there_are_refused_before_any_rehearsal():
    with pytest.raises(
        BadInput, match="names 'block7', and the clients' part of the network consists of stem, block1;"
    ):
        planned("smoke", "federation.aligned_layers=['block7']")


def test_time_grows_with_the_rows():
    found = plan()
    twice = found.on(found.experiment.resized(batch=4))
    assert twice.time.server == pytest.approx(2 * found.time.server, rel=0.1)
    assert twice.time.clients == pytest.approx(2 * found.time.clients, rel=0.1)


def test_hosts_that_share_cores_are_slower():
    found = plan("quickstart", ranks=3, cores=2)
    crowded = step_time(found.experiment, Layout(5, 1, 1), found.profile)
    alone = step_time(found.experiment, Layout(5, 1, 1), profile(found.experiment, Layout(3, 1, 1), cores=8))
    assert crowded.clients > 1.5 * alone.clients


def test_memory_of_clients_is_counted_by_hand():
    found = planned("smoke", "client.count=32", "client.sampling_ratio=1.0")
    alone, server, host = (*rank_memory(found, 1), *rank_memory(found, 2))
    state = 348 * 4  # parameters of the client's part, in float32
    assert host.clients == 32
    assert server.clients == 0
    assert host.held["models of the pool"] == 3 * 32 * state
    assert host.held["models that wait for their turn"] == 2 * 32 * state  # momentum and velocity stay private
    assert server.held["feature memory"] == 64 * 16 * 4
    assert alone.peak > host.held["models of the pool"]


def test_networks_are_planned_as_they_are_computed(monkeypatch):
    monkeypatch.setitem(networks.STAGES, "resnet50", (1, 1))
    monkeypatch.setitem(networks.BLOCKS, "vit", 1)
    assert planned("smoke", "model.backbone=resnet50").config.compute.backend == "fused"
    found = planned("smoke", "model.backbone=vit")
    assert found.config.compute.backend == "stacked"
    assert found.network.bottom.largest == 2 * 4 * 12 * 64, "hidden units of 8 x 8 tokens of 12 channels, in bf16"


def test_batch_norm_on_the_server_takes_all_rows_at_once(monkeypatch):
    monkeypatch.setattr(mobilenetv2, "MOBILENETV2", ((1, 16, 1, 1), (6, 24, 1, 1)))

    def step(backbone):
        width = ("client.count=100", "client.sampling_ratio=1.0", "model.width=16", f"model.backbone={backbone}")
        found = plan("smoke", "partition.kind=iid", *width)
        names = [name for name, _ in changes(found)]
        return rank_memory(found.experiment, 2)[0].moments["training step"], any("micro_batch" in n for n in names)

    published, splits = step("mobilenetv2_published")
    corrected, may_split = step("mobilenetv2")
    assert published > 2 * corrected
    assert (splits, may_split) == (False, True)


def test_memory_grows_with_what_needs_it():
    base = rank_memory(planned("quickstart"), 3)
    batch = rank_memory(planned("quickstart", "client.batch_size=40"), 3)
    fewer = rank_memory(planned("quickstart", "data.train_images=2000"), 3)
    assert base[0].moment == "classifiers on raw pixels"
    assert fewer[0].peak < base[0].peak
    assert batch[1].peak > base[1].peak


def test_what_is_shared_counts_once():
    found = plan("quickstart")
    assert found.memory == sum(found.resident) - sum(part.shared for part in found.parts[1:])
    assert found.parts[1].shared > 0


def test_the_largest_that_fits_fits_and_the_next_does_not():
    found = plan("smoke", limit=2 * GIB)
    batch = largest_batch(found)
    assert found.on(found.experiment.resized(batch=batch)).fits
    assert not found.on(found.experiment.resized(batch=batch + max(2, batch // 500))).fits
    clients = most_clients(plan("smoke", "partition.kind=overlapping", limit=2 * GIB))
    assert clients > 1000


def test_no_number_of_clients_fits_into_nothing():
    assert most_clients(plan(limit=GIB // 4)) == 0
    assert largest_batch(plan(limit=GIB // 4)) == 0


def test_changes_lower_the_memory_and_are_named():
    found = plan("quickstart", limit=GIB // 4)
    assert not found.fits
    remedies = list(changes(found))
    assert all(left < found.memory for _, left in remedies)
    assert [left for _, left in remedies] == sorted(left for _, left in remedies)
    assert any(text == "-n 1" for text, _ in remedies)
    assert any("data.train_images=3000" in text for text, _ in remedies)


def test_the_best_layout_is_the_quickest():
    found = plan("quickstart", cores=4)
    best = best_layout(found)
    assert found.on(layout=best).time.seconds <= found.time.seconds


# ------------------------------------------------------------------------------------------------- the file


def test_a_profile_comes_back_as_it_was(tmp_path):
    stored = profile(planned(), Layout(3, 1, 1))
    write_profile(stored, tmp_path / "machine.json")
    assert read_profile(tmp_path / "machine.json") == stored


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("{", "nonsense"), "no profile"),
        (('"cores": 4', '"cores": 0'), "cores"),
        (('"cores": 4', '"cores": 4, "extra": 1'), "extra"),
        (('"server": 0.5', '"server": NaN'), "server"),
        (('"server": 0.5', '"server": -1'), "server"),
    ],
)
def test_a_bad_profile_is_refused_with_its_key(tmp_path, change, says):
    file = tmp_path / "machine.json"
    write_profile(profile(planned(), Layout(3, 1, 1)), file)
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change, 1))
    with pytest.raises(BadInput, match=says):
        read_profile(file)


def test_a_missing_profile_names_the_remedy(tmp_path):
    with pytest.raises(BadInput, match="--save-profile"):
        read_profile(tmp_path / "none.json")


def test_the_cache_keeps_older_rehearsals(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("MOCOSFL_CACHE", str(cache))
    assert cached() is None
    first, second = (profile(planned("smoke", f"model.width={width}"), Layout(3, 1, 1)) for width in (4, 8))
    remember(first)
    remember(second)
    kept = remember(second)
    assert kept.rehearsals == (*second.rehearsals, *first.rehearsals)
    assert cached() == kept
    other = second.model_copy(update={"machine": second.machine.model_copy(update={"cores": 64})})
    assert remember(other).rehearsals == second.rehearsals


def test_rates_lie_between_those_of_the_rehearsals():
    small, large = (profile(planned("smoke", f"model.width={width}"), Layout(3, 1, 1)) for width in (4, 64))
    slow = replace_server(large, 100.0)
    both = small.model_copy(update={"rehearsals": (*small.rehearsals, *slow.rehearsals)})
    between = planned("smoke", "model.width=16")
    times = [step_time(between, Layout(3, 1, 1), p).server for p in (small, both, slow)]
    assert min(times[0], times[2]) < times[1] < max(times[0], times[2])


def replace_server(found, seconds):
    rehearsal = found.rehearsals[0].model_copy(update={"server": seconds})
    return found.model_copy(update={"rehearsals": (rehearsal,)})


def test_resized_is_the_same_experiment_but_for_the_size():
    found = planned()
    assert replace(found.resized(batch=7), config=found.config) == found
