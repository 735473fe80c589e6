"""Experts: their file, and how an experiment begins with one."""

import json

import numpy as np
import pytest
import torch

from mocosfl_mpi.cli import main
from mocosfl_mpi.config import parse
from mocosfl_mpi.config.expert import first_stage
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.evaluation.judge import Monitor
from mocosfl_mpi.experts import Keeper
from mocosfl_mpi.record.expert import FILE, locate, read, write
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import MESSAGES
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams
from tests.unit.agreement import BASE


def configuration(**sections):
    values = {name: dict(value) if isinstance(value, dict) else value for name, value in BASE.items()}
    values |= {"epochs": 1, "steps_per_epoch": 2}
    values["compute"] = {**values["compute"], "precision": "fp32"}
    for name, value in sections.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return parse(values, "here")


STAGE = {"auxiliary": "embedded", "auxiliary_images": 20, "target_share": 0.1, "epochs": 1, "batch": 2}


def trained(config, out):
    """A run, and the simulation that it was."""
    simulation = Simulation.begin(config, Conduct("test", out=out, quiet=True))
    simulation.run()
    return simulation


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """Directory of an expert, its simulation and its configuration."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("expert") / "out"
    game = {"resistance": 1.0, "resistance_decoder": "conv_normN0C4"}
    config = first_stage(configuration(method="mocosfl", pretraining=STAGE, defence=game), "here")
    return out, trained(config, out), config


def test_inspect_takes_its_file_and_shows_what_its_own_attacker_reached(expert, tmp_path, capsys):
    out = expert[0]
    assert main(["inspect", str(out / FILE)]) == 0
    shown = capsys.readouterr().out
    with open_run(out) as run:
        (found,) = run["resistance/ssim"][:, 0]
    assert "Similarity of images to what clients' own decoders draw, by epoch" in shown
    assert any(line.split() == ["epoch", "1", f"{found:.3f}"] for line in shown.splitlines())
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resistance_ssim"] == [pytest.approx(found)]
    alone = tmp_path / FILE
    alone.write_bytes((out / FILE).read_bytes())
    assert main(["inspect", str(alone)]) == 2
    assert "is an expert (method mocosfl, epoch 1, similarity" in capsys.readouterr().err


def test_the_file_holds_both_models_of_both_sides_and_says_whence(expert):
    out, simulation, config = expert
    found = read(out / FILE)
    assert found.facts["config_hash"] == simulation.config.hash()
    assert parse(found.facts["config"], "stored").pretraining == config.pretraining
    assert found.facts["model"]["cut_layer"] == 2
    assert found.facts["epoch"] == 1
    with open_run(out) as run:
        assert found.facts["attacker_ssim"] == run["resistance/ssim"][-1].mean()
    for name, value in simulation.main_server.momentum.state_dict().items():
        np.testing.assert_array_equal(found.arrays[f"server.momentum.{name}"], value.numpy())
    online = simulation.clients.model.module(simulation.clients.average).state_dict()
    assert found.part("client.online.").keys() == online.keys() == found.part("client.momentum.").keys()
    for name, value in online.items():
        np.testing.assert_array_equal(found.arrays[f"client.online.{name}"], value.numpy())
    assert not [name for name in found.arrays if "memory" in name]


def test_frozen_clients_are_the_experts_to_the_last_bit(expert, tmp_path):
    out, trainer, _ = expert
    settings = {"pretrained": str(out), "frozen": True}
    config = configuration(method="taressfl", client=settings, epochs=2)
    simulation = trained(config, tmp_path / "run")
    states = trainer.clients.held(0, ("online", "momentum"))
    assert not torch.equal(states["online"], states["momentum"])
    for name in ("online", "momentum"):
        assert torch.equal(simulation.clients.shared[name], states[name])
        assert torch.equal(simulation.clients.held(2, (name,))[name], states[name])
    assert simulation.clients.digests() == []
    with open_run(tmp_path / "run") as run:
        sent = dict(zip(MESSAGES, run["simulated/bytes"].sum(axis=(0, 1)), strict=True))
        assert {name for name, amount in sent.items() if amount} == {"query_up", "key_up"}
        assert str(run["pretrained/sha256"]) == read(out / FILE).sha256
        assert "resistance/ssim" not in run.names
        judged = run["evaluations/knn_top1"], run["result/knn_top1_untrained"]
    with open_run(out) as run:
        assert judged[1] == run["result/knn_top1"], "the run begins with what the expert was"


def test_both_trunks_begin_with_the_experts(expert, tmp_path):
    out, trainer, _ = expert
    config = configuration(client={"pretrained": str(out / FILE)})
    begun = Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True))
    for kind in ("online", "momentum"):
        for name, value in getattr(trainer.main_server, kind).state_dict().items():
            assert torch.equal(getattr(begun.main_server, kind).state_dict()[name], value), f"{kind} {name}"
    assert not torch.equal(begun.main_server.memory.keys, trainer.main_server.memory.keys)
    begun.results.close()
    scratch = configuration(client={"pretrained": str(out)}, server={"pretrained": False})
    begun = Simulation.begin(scratch, Conduct("test", out=tmp_path / "scratch", quiet=True))
    network = cut.build(config.model, 1, 16, Streams(config.seed), torch.float32)
    for name, value in network.trunk.state_dict().items():
        assert torch.equal(begun.main_server.online.state_dict()[name], value)
    assert not torch.equal(begun.clients.average, begun.clients.model.flat(network.bottom))
    begun.results.close()


def test_a_classifier_is_not_taken_over(expert, tmp_path):
    out, trainer, _ = expert
    config = configuration(method="sfl_v1", client={"pretrained": str(out)})
    begun = Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True))
    backbone = trainer.main_server.online.backbone.state_dict()
    for name, value in begun.main_server.online.backbone.state_dict().items():
        assert torch.equal(value, backbone[name])
    assert begun.main_server.online.head.state_dict().keys() != trainer.main_server.online.head.state_dict().keys()
    begun.results.close()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"cut_layer": 1}, "model.cut_layer is 2 there and 1 here"),
        ({"bottleneck": "C4S2", "width": 8}, "model.width is 4 there and 8 here; model.bottleneck is '' there and"),
        ({"key_dim": 16}, "model.key_dim is 8 there and 16 here"),
        ({"backbone": "vgg11"}, "model.backbone is 'resnet18' there and 'vgg11' here"),
    ],
)
def test_another_network_is_refused_in_one_message(expert, tmp_path, model, told):
    config = configuration(client={"pretrained": str(expert[0])}, model=model)
    with pytest.raises(BadInput, match=told) as caught:
        Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True))
    assert "has another network" in str(caught.value)


def test_another_projector_is_no_matter_without_the_server(expert, tmp_path):
    config = configuration(client={"pretrained": str(expert[0])}, model={"key_dim": 16}, server={"pretrained": False})
    Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True)).results.close()


@pytest.mark.parametrize("damage", [b"", b"12345678", b"\xff" * 200])
def test_what_is_no_expert_is_refused(tmp_path, damage):
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path / FILE)


def test_damaged_and_strange_files_are_refused(expert, tmp_path):
    good = (expert[0] / FILE).read_bytes()
    for cut_at in (100, len(good) - 1):
        (tmp_path / FILE).write_bytes(good[:cut_at])
        with pytest.raises(BadInput, match="cannot be read"):
            read(tmp_path / FILE)
    arrays = {"client.online.stem.conv.weight": np.array([1.0, np.nan], dtype=np.float32)}
    write(tmp_path / FILE, {"model": {}}, arrays)
    with pytest.raises(BadInput, match="not finite"):
        read(tmp_path / FILE)
    write(tmp_path / FILE, {}, {"a": np.zeros(2, dtype=np.float32)})
    with pytest.raises(BadInput, match="says nothing of 'model'"):
        read(tmp_path / FILE).fact("model")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, dtype=np.float32)}, tmp_path / "other", {"mocosfl-expert": json.dumps({"format": 9})})
    with pytest.raises(BadInput, match="has format 9 and this program reads 1"):
        read(tmp_path / "other")
    save_file({"a": np.zeros(2, dtype=np.float32)}, tmp_path / "other")
    with pytest.raises(BadInput, match="is no expert"):
        read(tmp_path / "other")


def test_missing_experts_are_asked_for(tmp_path, capsys):
    config = configuration(method="taressfl", client={"frozen": True})
    with pytest.raises(BadInput, match=r"`mocosfl pretrain CONFIG --out DIR`, then set client\.pretrained = DIR"):
        locate(config)
    assert locate(configuration()) is None
    with pytest.raises(BadInput, match="there is no file"):
        locate(configuration(client={"pretrained": str(tmp_path)}))
    assert main(["run", "smoke", "--set", "method=taressfl", "--out", str(tmp_path / "x")]) == 2
    assert "begins with an expert, and client.pretrained is empty" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# ------------------------------------------------------------------------------------------- the first stage


def test_the_first_stage_is_one_client_with_everything():
    config = configuration(
        method="taressfl",
        client={"frozen": True, "sampling_ratio": 0.5, "lr": 0.01},
        pretraining=STAGE | {"lr": 0.04, "epochs": 7},
        reliability={"client_dropout": 0.1},
        defence={"resistance": 2.0},
    )
    stage = first_stage(config, "here")
    assert (stage.method, stage.epochs, stage.client.count, stage.pool_size) == ("mocosfl", 7, 1, 1)
    assert stage.client.batch_size == 4, "target and auxiliary images"
    assert stage.client.lr == stage.server.lr == 0.04
    assert stage.model == config.model
    assert stage.defence == config.defence
    assert stage.resists
    assert not config.resists
    assert not stage.reliability.anything
    alone = first_stage(config.model_copy(update={"pretraining": config.pretraining.model_copy(
        update={"target_share": 0.0})}), "here")  # fmt: skip
    assert alone.client.batch_size == 2


def test_with_labels_the_first_stage_has_the_auxiliary_images_alone():
    stage = first_stage(
        configuration(method="ressfl", pretraining={"auxiliary": "cifar100", "auxiliary_images": 90}), "here"
    )
    assert (stage.method, stage.data.source, stage.data.train_images) == ("sfl_v2", "cifar100", 90)
    assert stage.auxiliary_data is None


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"method": "fl_moco"}, "method = fl_moco has no first stage; choose one of mocosfl, monacosfl"),
        ({}, "pretraining.auxiliary names no data set"),
        ({"pretraining": STAGE | {"choose": "knn"}}, "evaluation.every = 0 makes none in 1 epochs"),
    ],
)
def test_a_first_stage_that_cannot_be_is_refused(sections, told):
    with pytest.raises(BadInput, match=told):
        first_stage(configuration(**sections), "here")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"method": "taressfl"}, "set client.frozen = true"),
        ({"method": "fl_moco", "client": {"pretrained": "x"}}, "fl_moco cannot begin with an expert"),
        ({"server": {"pretrained": False}}, "client.pretrained names no expert"),
        ({"method": "fedavg", "pretraining": {"auxiliary": "svhn"}}, "fedavg has no first stage"),
        ({"method": "ressfl", "pretraining": {"target_share": 0.1}}, "of pretraining.auxiliary alone"),
        ({"pretraining": {"auxiliary_images": 4}}, "name it with pretraining.auxiliary"),
        ({"defence": {"resistance_every": 2}}, r"of a term that is off \(defence.resistance = 0\)"),
        ({"method": "fl_moco", "defence": {"resistance": 1.0}}, "send no smashed data"),
        ({"client": {"frozen": True}, "defence": {"resistance": 1.0}}, "cannot learn to resist"),
        ({"defence": {"resistance": 1.0, "resistance_decoder": "vit"}}, "resistance_decoder"),
    ],
)
def test_settings_without_effect_are_refused(sections, told):
    with pytest.raises(BadInput, match=told):
        configuration(**sections)


@pytest.mark.parametrize(("share", "told"), [(0.001, "of 60 images is none"), (0.5, None)])
def test_the_share_of_the_targets_images(tmp_path, share, told):
    config = first_stage(configuration(pretraining=STAGE | {"target_share": share}), "here")
    if told:
        with pytest.raises(BadInput, match=told):
            Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True))
        return
    begun = Simulation.begin(config, Conduct("test", out=tmp_path / "run", quiet=True))
    assert begun.problem.images.tolist() == [30 + 20]
    begun.results.close()


def monitor(knn):
    return Monitor(knn, 0.0, 1.0, 1.0, None)


@pytest.mark.parametrize(("choose", "kept", "accuracy", "similarity"), [("last", 3, 30.0, 0.9), ("knn", 2, 50.0, 0.5)])
def test_which_expert_is_kept(expert, tmp_path, choose, kept, accuracy, similarity):
    """Of three epochs the last, or the best; a checkpoint in between changes nothing."""
    _, simulation, config = expert
    settings = config.pretraining.model_copy(update={"choose": choose, "epochs": 3})
    config = config.model_copy(update={"pretraining": settings, "epochs": 3})
    network = cut.build(config.model, 1, 16, Streams(config.seed), torch.float32)

    def keeper():
        return Keeper(config, network, simulation.clients.model, simulation.clients, simulation.main_server)

    first, shared = keeper(), simulation.clients.shared
    before = {name: value.clone() for name, value in shared.items()}
    simulation.clients._parked, parked = {}, simulation.clients._parked
    where = simulation.clients._where.copy()
    simulation.clients._where[:] = -1
    try:
        for epoch, (knn, ssim) in enumerate(((40.0, 0.7), (50.0, 0.5), (30.0, 0.9)), start=1):
            shared["online"][:] = epoch
            first.consider(epoch, monitor(knn), ssim)
            again = keeper()
            again.restore(first.state())
            first = again
        first.write(tmp_path, 0.9)
    finally:
        simulation.clients._parked, simulation.clients._where[:] = parked, where
        for name, value in before.items():
            shared[name].copy_(value)
    found = read(tmp_path / FILE)
    assert all((value == kept).all() for value in found.part("client.online.").values())
    facts = found.facts
    assert (facts["epoch"], facts["knn_top1"], facts["attacker_ssim"]) == (kept, accuracy, similarity)
