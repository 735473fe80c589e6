import datetime as dt
import gzip
import json
import math
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.config import Config, apply_settings, parse, read_toml, to_toml
from mocosfl_mpi.config import settings as all_settings
from mocosfl_mpi.config.sections import ADDED
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.presets import load, presets
from mocosfl_mpi.record.reader import open_run

PRESETS = presets()


def build(*assignments, values=None):
    return parse(apply_settings(values or {}, assignments), "here")


# ------------------------------------------------------------------------------------------ unknown keys


@pytest.mark.parametrize(
    ("values", "key", "meant"),
    [
        ({"model": {"cutlayer": 2}}, "model.cutlayer", "model.cut_layer"),
        ({"clients": {"count": 2}}, "clients", "client"),
        ({"sead": 2}, "sead", "seed"),
        ({"server": {"batch_size": 2}}, "server.batch_size", "client.batch_size"),
        ({"federation": {"sync_frequency": 2}}, "federation.sync_frequency", "federation.sync_freq"),
    ],
)
def test_unknown_key_is_refused_with_the_likely_one(values, key, meant):
    with pytest.raises(BadInput, match=f"^here: unknown key {key!r}; did you mean {meant!r}") as caught:
        parse(values, "here")
    assert caught.value.exit_code == 2


def test_unknown_key_like_nothing():
    with pytest.raises(BadInput, match=r"unknown key 'xyzzyqq'; .*lists all keys"):
        parse({"xyzzyqq": 2}, "here")


def test_all_mistakes_are_named_at_once():
    with pytest.raises(BadInput) as caught:
        parse({"epochs": 0, "model": {"widht": 3}, "client": {"count": "many"}}, "here")
    assert all(word in str(caught.value) for word in ("epochs = 0", "'model.widht'", "client.count = 'many'"))


# -------------------------------------------------------------------------------------------- validators

RICHER = {"client.rich_share": 0.5, "model.rich_cut_layer": 3}
REFUSED = [
    ({"model.cut_layer": 10}, "model.cut_layer = 10 lies beyond resnet18.*choose 1 to 9"),
    ({"model.cut_layer": 18, "model.backbone": "resnet34"}, "choose 1 to 17"),
    ({"model.cut_layer": 18, "model.backbone": "resnet50"}, "beyond resnet50, which has 17 entries; choose 1 to 17"),
    ({"model.cut_layer": 14, "model.backbone": "vgg11"}, "choose 1 to 13"),
    ({"model.cut_layer": 16, "model.backbone": "vgg13"}, "choose 1 to 15"),
    ({"model.cut_layer": 19, "model.backbone": "vgg16"}, "choose 1 to 18"),
    ({"model.cut_layer": 10, "model.backbone": "mobilenetv2"}, "choose 1 to 9"),
    ({"model.cut_layer": 10, "model.backbone": "mobilenetv2_published"}, "choose 1 to 9"),
    ({"model.cut_layer": 15, "model.backbone": "vit"}, "choose 1 to 14"),
    ({"model.backbone": "resnet20"}, "model.backbone = 'resnet20': .*'resnet18', 'resnet34'.*'vit'"),
    ({"model.backbone": "vgg11", "model.client_residual": False}, "vgg11 has no shortcuts; leave it true"),
    ({"model.backbone": "vit", "model.weight_standardization": False}, "vit has no standardised convolutions"),
    (
        {"model.backbone": "mobilenetv2_published", "model.cut_layer": 7, "server.micro_batch": 20},
        "BatchNorm in mobilenetv2_published; leave it empty, or use mobilenetv2",
    ),
    ({"client.count": 3, "client.sampling_ratio": 0.3}, "leaves an empty pool"),
    ({"compute.compile": True, "compute.backend": "fused"}, "compute.compile = true is for compute.backend = stacked"),
    ({"compute.compile": True, "compute.backend": "loop"}, "compute.backend is 'loop'; leave one of them out"),
    ({"contrast.share_features": False, "contrast.memory_length": 19}, "raise memory_length to at least 20"),
    ({"contrast.share_features": False, "server.micro_batch": 30}, "multiple of 20 rows"),
    (
        {"contrast.share_features": False, "server.micro_batch": 20, "contrast.symmetric": "both_views"},
        "multiple of 40 rows",
    ),
    ({"evaluation.probe_l2": [1e-3, 1e-2]}, "data.validation_images = 0"),
    ({"evaluation.probe_l2": []}, "probe_l2 is empty"),
    ({"model.head": "largeV2", "server.micro_batch": 20}, "BatchNorm"),
    ({"data.source": "image-folder"}, "needs data.folder and data.image_size"),
    ({"data.source": "image-folder", "data.folder": "x"}, "needs data.folder and data.image_size"),
    (
        {"federation.momentum_every": 2},
        "momentum_every = 2 of momentum models that are not averaged .*set federation.ali",
    ),
    (
        {"federation.momentum_compression": "int8", "federation.alignment": "momentum_reset"},
        "'int8' of momentum models",
    ),
    (
        {"method": "monacosfl", "federation.alignment": "online", "federation.momentum_compression": "topk"},
        "set federation.alignment = online_and_momentum",
    ),
    ({"federation.alignment": "none", "federation.aligned_layers": ["stem"]}, "leave aligned_layers empty"),
    ({"federation.alignment": "none", "client.velocity_at_sync": "averaged"}, "set velocity_at_sync = kept"),
    ({"client.frozen": True, "federation.alignment": "online"}, "client.frozen = true synchronises no model"),
    ({"client.frozen": True, "federation.aligned_layers": ["stem"]}, "set client.frozen = false"),
    (
        {"method": "fl_simclr", "federation.alignment": "online_and_momentum"},
        "alignment = 'online_and_momentum' speaks of momentum models, .* 'fl_simclr' have none; .* fl_moco or fl_byol",
    ),
    ({"method": "fl_simsiam", "federation.alignment": "momentum_reset"}, "set federation.alignment to online or none"),
    ({"method": "fl_simsiam", "federation.momentum_compression": "int8"}, "'int8' speaks of momentum models"),
    ({"method": "fl_moco", "federation.momentum_every": 2}, "set federation.alignment = online_and_momentum"),
    (
        {"method": "fedema", "federation.alignment": "online"},
        "fedema is itself a way to align models; leave federation.alignment out, or choose method = fl_moco or fl_byol",
    ),
    (
        {"method": "fedu", "federation.momentum_every": 2, "federation.aligned_layers": ["stem"]},
        "leave federation.aligned_layers, federation.momentum_every out",
    ),
    ({"method": "standalone", "federation.alignment": "online_and_momentum"}, "leave federation.alignment out"),
    ({"method": "standalone", "client.velocity_at_sync": "reset"}, "set velocity_at_sync = kept"),
    ({"method": "standalone", "evaluation.own_models": 0}, "leaves nothing to judge: method = standalone"),
    ({"federation.divergence_threshold": 0.5}, "divergence_threshold is for method = fedu, which is 'mocosfl'"),
    ({"method": "fedu", "federation.divergence_target": 0.5}, "divergence_target is for method = fedema"),
    ({"method": "fedema", "federation.divergence_target": 0}, "federation.divergence_target = 0"),
    ({"method": "fedu", "federation.divergence_threshold": -1}, "federation.divergence_threshold = -1"),
    ({"evaluation.own_models": 3}, "finds no client with an encoder of its own: all share"),
    ({"method": "fedu", "evaluation.own_models": 3}, "finds no client with an encoder of its own"),
    ({"federation.alignment": "none", "evaluation.own_models": -1}, "evaluation.own_models = -1"),
    ({"federation.momentum_every": 0}, "federation.momentum_every = 0"),
    ({"federation.momentum_topk": 0}, "federation.momentum_topk = 0"),
    ({"federation.momentum_topk": 1.5}, "federation.momentum_topk = 1.5"),
    ({"federation.aligned_layers": [""]}, "federation.aligned_layers.0 = ''"),
    ({"federation.aligned_layers": "stem"}, "federation.aligned_layers = 'stem'"),
    ({"client.sampling": "trace"}, "needs client.availability, for example"),
    ({"client.availability": ["1"]}, "is for client.sampling = trace, which is 'uniform'"),
    ({"client.sampling": "trace", "client.availability": ["12"]}, "client.availability.0 = '12'"),
    ({"client.sampling": "trace", "client.availability": [""]}, "client.availability.0 = ''"),
    ({"client.sampling": "trace", "client.availability": ["11", "1"]}, "rows of different lengths"),
    ({"client.sampling": "trace", "client.availability": ["1"] * 21}, "21 rows for client.count = 20"),
    (
        {"client.sampling": "trace", "client.availability": ["110", "011"], "client.sampling_ratio": 0.6},
        "leaves 10 of 20 clients in epoch 0, and a pool takes 12; lower client.sampling_ratio to at most 0.5",
    ),
    ({"reliability.client_dropout": 1.0}, "reliability.client_dropout = 1.0"),
    ({"reliability.query_loss": -0.1}, "reliability.query_loss = -0.1"),
    ({"reliability.sync_miss": 1}, "reliability.sync_miss = 1"),
    ({"reliability.packet_loss": 0.1}, "reliability.packet_loss"),
    (
        {"method": "fl_moco", "reliability.query_loss": 0.1, "reliability.key_loss": 0.2},
        "query_loss = 0.1 and reliability.key_loss = 0.2 of query data",
    ),
    ({"client.frozen": True, "reliability.gradient_loss": 0.1}, "leave reliability.gradient_loss and"),
    ({"client.frozen": True, "reliability.sync_miss": 0.1}, "sends no gradients and synchronises no model"),
    ({"client.count": 1, "reliability.client_dropout": 0.1}, "leave one client of the pool"),
    ({"client.sampling_ratio": 0.05, "reliability.sync_miss": 0.1}, "leave one client of the pool"),
    ({"federation.alignment": "none", "reliability.sync_miss": 0.1}, "at which nothing is aligned"),
    (
        {"method": "monacosfl", "federation.momentum_compression": "int8", "reliability.sync_miss": 0.1},
        "set it to none, or leave reliability.sync_miss out",
    ),
    (
        {"model.head": "largeV2", "client.batch_size": 1, "reliability.key_loss": 0.1},
        "needs two rows, and clients that fail may leave one",
    ),
    ({"client.rich_share": 1.0}, "client.rich_share = 1.0"),
    ({"client.rich_share": 0.01, "client.rich_batch_factor": 2}, "of client.count = 20 clients is none"),
    ({"client.rich_batch_factor": 2}, "say how many are with client.rich_share"),
    ({"partition.rich_data": 0.5}, "say how many are with client.rich_share"),
    ({"client.rich_share": 0.5}, "rich clients have nothing more than others"),
    ({"client.rich_share": 0.5, "partition.rich_data": 1.0}, "partition.rich_data = 1.0"),
    ({"client.rich_share": 0.5, "partition.rich_data": 0.6, "partition.kind": "overlapping"}, "for each client alone"),
    (
        {
            "client.rich_share": 0.5,
            "partition.rich_data": 0.6,
            "partition.kind": "dirichlet",
            "partition.rich_deal": "published",
        },
        "rich_deal = published needs partition.rich_data, and partition.kind = iid or shards",
    ),
    ({"partition.rich_deal": "published"}, "rich_deal = published needs partition.rich_data"),
    (
        {
            "client.rich_share": 0.5,
            "client.rich_batch_factor": 4,
            "contrast.share_features": False,
            "server.micro_batch": 40,
        },
        "a multiple of 80 rows",
    ),
    (
        {"method": "fl_byol", "communication.download_every": 2, "communication.smashed": "int8"},
        "method = fl_byol sends nothing in a step, .*download_every = 2 and communication.smashed = 'int8' cannot save",
    ),
    ({"communication.loss_threshold": -0.1}, "communication.loss_threshold = -0.1"),
    ({"communication.download_every": 0}, "communication.download_every = 0"),
    ({"communication.smashed": "int4"}, "communication.smashed = 'int4'"),
    ({"communication.topk": 1.5}, "communication.topk = 1.5"),
    ({"communication.topk": 0.1, "communication.smashed": "int8"}, "neither is set; set one, or leave topk out"),
    ({"communication.warmup_epochs": 3}, "of a saving that is off .*set loss_threshold, or"),
    ({"communication.replay_mib": 3}, "of a saving that is off"),
    (
        {"communication.loss_threshold": 0.1, "epochs": 11},
        "everything travels in the first 11 epochs, and epochs = 11; lower warmup_epochs to at most 9, or raise",
    ),
    (
        {"communication.loss_threshold": 0.1, "communication.warmup_epochs": 0, "epochs": 2},
        "in the first 2 epochs, and epochs = 2; raise epochs to at least 3",
    ),
    ({"client.frozen": True, "communication.download_every": 2}, "no gradient comes down at all"),
    ({"client.frozen": True, "communication.gradient": "int8"}, "leave download_every and gradient out"),
    ({"compute.precision": "bf16", "communication.gradient": "bf16"}, "is in bfloat16 already; leave it out"),
    (
        {"method": "fl_byol", "defence.clip": 1.0, "defence.dropout": 0.5},
        "fl_byol sends nothing at a cut, .*defence.clip = 1.0 and defence.dropout = 0.5 has nothing to protect",
    ),
    (
        {"method": "fedavg", "defence.nopeek": 1.0},
        "nothing to protect there; leave it out, or choose a method",
    ),
    ({"defence.clip": 0}, "defence.clip = 0"),
    ({"defence.noise": "uniform"}, "defence.noise = 'uniform'"),
    ({"defence.noise": "laplace"}, "with defence.noise_scale = 0 adds nothing; set noise_scale"),
    ({"defence.noise_scale": 0.5}, "of noise that is off; set defence.noise to gaussian or laplace"),
    ({"defence.delta": 1e-6, "defence.clip": 1.0}, "without defence.clip and defence.noise = gaussian; set both"),
    (
        {"defence.delta": 1e-6, "defence.clip": 1.0, "defence.noise": "laplace", "defence.noise_scale": 1.0},
        "defence.delta = 1e-06 is that of a guarantee, and there is none",
    ),
    ({"defence.delta": 1.0}, "defence.delta = 1.0"),
    ({"defence.dropout": 1.0}, "defence.dropout = 1.0"),
    ({"defence.keep_share": 0}, "defence.keep_share = 0"),
    ({"defence.keep": "published"}, "chooses among what defence.keep_share = 1.0 sends, which is everything"),
    ({"defence.levels": 1}, "defence.levels = 1"),
    (
        {"defence.levels": 257, "compute.precision": "bf16"},
        "8 significant bits, which tell 256 .* at most 256, or compute.precision = fp32",
    ),
    ({"defence.levels": 16, "communication.smashed": "int8"}, "round one after the other"),
    ({"defence.levels": 16, "communication.smashed": "bf16"}, "leave one of them out"),
    (
        {"defence.keep_share": 0.2, "communication.smashed": "topk", "communication.topk": 0.1},
        "communication.topk = 0.1 sends fewer numbers than defence.keep_share = 0.2 keeps.*set topk = 0.2",
    ),
    (
        {"defence.keep_share": 0.2, "defence.keep": "published", "communication.smashed": "topk"},
        "sends as many numbers of each sample, .* set defence.keep = per_sample, or another codec",
    ),
    ({"defence.adversarial": 0.1}, "own decoder, and defence.resistance = 0 trains none; set defence.resistance, or"),
    (
        {"defence.adversarial": 0.1, "client.frozen": True, "method": "taressfl", "defence.resistance": 1.0},
        "own decoder, and client.frozen = true trains none; leave one of them out",
    ),
    ({"defence.nopeek": 1.0, "client.batch_size": 1}, "gives 1 row.* set client.batch_size to at least 3"),
    ({"defence.nopeek": 1.0, "client.batch_size": 2}, "of two it is always 1; set client.batch_size"),
    (
        {"client.frozen": True, "client.gradient_scale": "own_rows", "client.velocity_at_sync": "reset"},
        "client.gradient_scale = own_rows and client.velocity_at_sync = reset: with client.frozen = true.*leave it out",
    ),
    ({"defence.nopeek": 1.0, "client.frozen": True}, "they do not learn; leave one of them out"),
    (
        {"defence.nopeek": 1.0, "client.rich_share": 0.5, "client.rich_batch_factor": 2},
        "depends on the size of a batch, and client.rich_batch_factor = 2",
    ),
    ({"method": "sfl_v2", "client.holds_labels": True}, "is for method = split_vertical, and method is 'sfl_v2'"),
    ({"client.holds_labels": True}, "is for method = split_vertical"),
    ({"method": "fedprox"}, "method = 'fedprox'"),
    ({"seed": -1}, "seed = -1"),
    ({"seed": 2**63}, "seed = "),
    ({"epochs": 0}, "epochs = 0"),
    ({"steps_per_epoch": 0}, "steps_per_epoch = 0"),
    ({"data.image_size": 7}, "data.image_size = 7"),
    ({"data.validation_images": -1}, "data.validation_images = -1"),
    ({"partition.alpha": 0}, "partition.alpha = 0"),
    ({"partition.skew": 4}, "partition.skew = 4"),
    ({"views.size": 1000}, "views.size = 1000"),
    ({"model.rich_cut_layer": 3}, "say how many are with client.rich_share"),
    ({"client.rich_share": 0.5, "model.rich_cut_layer": 1}, "choose 2 to 9"),
    ({"client.rich_share": 0.5, "model.rich_cut_layer": 10}, "resnet18 has 9 entries; choose 2 to 9"),
    ({"client.rich_share": 0.5, "model.cut_layer": 9, "model.rich_cut_layer": 9}, "lower model.cut_layer"),
    ({**RICHER, "model.bottleneck": "C4S2"}, "compresses the maps of one cut"),
    ({**RICHER, "model.client_residual": False}, "belong to rich clients and to the main server"),
    ({**RICHER, "method": "fl_moco"}, "clients hold the whole network; leave it out, or choose method = mocosfl or"),
    ({**RICHER, "method": "sfl_v2"}, "takes smashed data of one shape; leave it out, or choose method = mocosfl or"),
    (
        {**RICHER, "method": "monacosfl", "federation.momentum_compression": "int8"},
        "must have followed in full; set it to none",
    ),
    ({**RICHER, "communication.loss_threshold": 0.1, "epochs": 20}, "replays smashed data of equal shapes"),
    ({**RICHER, "federation.alignment": "none", "evaluation.own_models": 2}, "clients' own models behind one cut"),
    ({"views.flip_probability": 1.1}, "views.flip_probability = 1.1"),
    ({"views.crop_scale_min": 0}, "views.crop_scale_min = 0"),
    ({"model.width": 6}, "model.width = 6"),
    ({"model.width": 2}, "model.width = 2"),
    ({"contrast.temperature": 0}, "contrast.temperature = 0"),
    ({"contrast.momentum": 1.01}, "contrast.momentum = 1.01"),
    ({"server.momentum": 1.0}, "server.momentum = 1.0"),
    ({"server.lr": -0.1}, "server.lr = -0.1"),
    ({"server.weight_decay": -1}, "server.weight_decay = -1"),
    ({"server.schedule": "step"}, "server.schedule = 'step'"),
    ({"client.sampling_ratio": 0}, "client.sampling_ratio = 0"),
    ({"client.sampling_ratio": 1.5}, "client.sampling_ratio = 1.5"),
    ({"client.count": 2.5}, "client.count = 2.5"),
    ({"federation.sync_freq": 0}, "federation.sync_freq = 0"),
    ({"evaluation.every": -1}, "evaluation.every = -1"),
    ({"evaluation.probe_l2": [0.0]}, r"evaluation.probe_l2.0 = 0.0"),
    ({"evaluation.label_shares": [0.1, 1.5]}, r"evaluation.label_shares.1 = 1.5"),
    ({"evaluation.label_shares": [0.1, 0.1]}, "names a share twice"),
    ({"evaluation.fine_tune_share": 0}, "evaluation.fine_tune_share = 0"),
    ({"evaluation.fine_tune_epochs": 0}, "evaluation.fine_tune_epochs = 0"),
    ({"evaluation.transfer": "imagenet"}, "evaluation.transfer = 'imagenet'"),
    ({"evaluation.transfer": "embedded"}, "is data.source itself"),
    ({"compute.block_size": 0}, "compute.block_size = 0"),
    ({"compute.precision": "fp16"}, "compute.precision = 'fp16'"),
]


def nested(dotted):
    values = {}
    for name, value in dotted.items():
        *sections, key = name.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return values


@pytest.mark.parametrize(("dotted", "message"), REFUSED, ids=[str(dotted) for dotted, _ in REFUSED])
def test_refused(dotted, message):
    with pytest.raises(BadInput, match=message):
        parse(nested(dotted), "here")


@pytest.mark.parametrize(
    "name",
    [
        "server.lr",
        "client.lr",
        "client.weight_decay",
        "server.weight_decay",
        "contrast.temperature",
        "evaluation.knn_temperature",
        "partition.alpha",
        "contrast.momentum",
    ],
)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_only_finite_numbers(name, value):
    with pytest.raises(BadInput, match=name):
        parse(nested({name: value}), "here")


@pytest.mark.parametrize(
    "dotted",
    [
        {"model.cut_layer": 17, "model.backbone": "resnet34"},
        {"model.cut_layer": 14, "model.backbone": "vit"},
        {"model.backbone": "mobilenetv2_published", "model.cut_layer": 8, "server.micro_batch": 20},
        {"model.backbone": "mobilenetv2_published", "model.client_residual": False, "server.micro_batch": 20},
        {"contrast.share_features": False, "server.micro_batch": 40},
        {"evaluation.probe_l2": [1e-3, 1e-2], "data.validation_images": 10},
        {"data.source": "image-folder", "data.folder": "x", "data.image_size": 64},
        {"client.lr": 0},
        {"contrast.momentum": 1},
        {"communication.loss_threshold": 0.1, "epochs": 12},
        {"communication.loss_threshold": 0.1, "communication.warmup_epochs": 0, "epochs": 3},
        {"communication.loss_threshold": 0.1, "epochs": 12, "client.frozen": True, "communication.smashed": "topk"},
        {"evaluation.every": 0},
        {"defence.nopeek": 1.0, "client.batch_size": 2, "contrast.symmetric": "both_views"},
        {"defence.keep_share": 0.2, "communication.smashed": "topk", "communication.topk": 0.2},
        {"method": "split_vertical", "client.count": 4, "defence.clip": 1.0, "defence.levels": 2},
        {"client.frozen": True, "defence.clip": 1.0, "defence.noise": "gaussian", "defence.noise_scale": 2.0},
    ],
)
def test_accepted(dotted):
    parse(nested(dotted), "here")


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3
    with pytest.raises(ValueError, match="frozen"):
        Config().model.width = 8


@pytest.mark.parametrize(
    ("count", "ratio", "pool", "blocks", "lanes"),
    [
        (20, 1.0, 20, 20, 1),
        (100, 0.29, 29, 24, 2),
        (1000, 0.1, 100, 24, 5),
        (384, 1.0, 384, 24, 16),
        (385, 1.0, 385, 48, 9),
        (1000, 1.0, 1000, 72, 14),
        (5, 0.7, 3, 3, 1),
    ],
)
def test_derived_sizes(count, ratio, pool, blocks, lanes):
    config = parse(nested({"client.count": count, "client.sampling_ratio": ratio}), "here")
    assert (config.pool_size, config.blocks, config.block_size) == (pool, blocks, lanes)
    config = parse(nested({"client.count": 20, "compute.block_size": 7}), "here")
    assert (config.blocks, config.block_size) == (3, 7)


def test_rows_per_client():
    for symmetric, rows in (("off", 20), ("published", 20), ("both_views", 40)):
        assert build(f"contrast.symmetric={symmetric}").rows_per_client == rows


# ------------------------------------------------------------------------------------------- TOML and hash


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_sound_and_survives_toml(name):
    title, values = PRESETS[name]
    config = parse(values, name)
    text = to_toml(config, title)
    again = parse(tomllib.loads(text), name)
    assert again == config
    assert again.hash() == config.hash()
    assert load(name) == (name, values)
    assert title


def test_printed_toml_explains_every_setting():
    text = to_toml(Config(), "Title\nand more")
    assert text.startswith("# Title\n# and more\n")
    for name, description, _ in all_settings():
        assert description, f"{name} has no description"
        assert re.search(rf"^(# )?{name.rpartition('.')[2]} =", text, re.MULTILINE)


def other_values():
    """For each setting a value that is neither the default nor refused."""
    special = {
        "method": "monacosfl",
        "data.source": "cifar10",
        "partition.kind": "iid",
        "partition.rich_data": 0.7,
        "partition.rich_deal": "published",
        "views.pipeline": "mocov1",
        "model.backbone": "resnet34",
        "model.head": "V1",
        "contrast.symmetric": "off",
        "server.schedule": "constant",
        "client.schedule": "constant",
        "client.schedule_step": "published",
        "client.gradient_scale": "own_rows",
        "client.velocity_at_sync": "reset",
        "federation.weighting": "data",
        "federation.alignment": "momentum_reset",
        "federation.momentum_compression": "int8",
        "federation.aligned_layers": ["stem"],
        "client.sampling": "by_data",
        "client.availability": ["110", "101"],
        "communication.smashed": "int8",
        "communication.gradient": "topk",
        "defence.noise": "gaussian",
        "defence.keep": "published",
        "defence.levels": 4,
        "evaluation.probe_l2": [0.5],
        "evaluation.label_shares": [0.01, 0.1],
        "evaluation.fine_tune_share": 0.5,
        "evaluation.transfer": "svhn",
        "compute.precision": "fp64",
        "compute.backend": "loop",
        "compute.device": "cuda",
        "compute.pipeline": "on",
        "data.folder": "x",
        "model.bottleneck": "C4S2",
        "model.width": 32,
        "model.rich_cut_layer": 3,
        "data.image_size": 64,
        "views.size": 48,
        "client.pretrained": "expert",
        "defence.resistance_decoder": "conv_normN0C16",
        "pretraining.auxiliary": "cifar100",
        "pretraining.choose": "knn",
    }
    for name, _, default in all_settings():
        if name in special:
            yield name, special[name]
        elif isinstance(default, bool):
            yield name, not default
        elif isinstance(default, float):
            yield name, 0.31
        else:
            assert default is None or isinstance(default, int), name
            yield name, (default or 0) + 1


NEEDS = {
    "federation.momentum_every": {"method": "monacosfl"},
    "federation.momentum_compression": {"method": "monacosfl"},
    "client.rich_share": {"partition.rich_data": 0.8, "client.rich_share": 0.5},
    "client.rich_batch_factor": {"client.rich_share": 0.5, "partition.rich_data": 0.8},
    "partition.rich_data": {"client.rich_share": 0.5, "client.rich_batch_factor": 2},
    "partition.rich_deal": {"client.rich_share": 0.5, "partition.rich_data": 0.8},
    "federation.divergence_threshold": {"method": "fedu"},
    "federation.divergence_target": {"method": "fedema"},
    "evaluation.own_models": {"method": "standalone"},
    "client.availability": {"client.sampling": "trace", "client.sampling_ratio": 0.5, "client.availability": ["1"]},
    "communication.loss_threshold": {"epochs": 12},
    "communication.warmup_epochs": {"epochs": 20, "communication.loss_threshold": 0.1},
    "communication.replay_mib": {"epochs": 12, "communication.loss_threshold": 0.1},
    "communication.topk": {"communication.smashed": "topk"},
    "client.holds_labels": {"method": "split_vertical", "client.count": 4},
    "defence.adversarial": {"defence.resistance": 1.0},
    "defence.noise": {"defence.noise_scale": 1.0, "defence.noise": "laplace"},
    "defence.noise_scale": {"defence.noise_scale": 1.0, "defence.noise": "laplace"},
    "defence.delta": {"defence.clip": 1.0, "defence.noise": "gaussian", "defence.noise_scale": 1.0},
    "defence.keep": {"defence.keep_share": 0.5},
    "server.pretrained": {"client.pretrained": "expert"},
    **{
        f"defence.resistance_{name}": {"defence.resistance": 1.0}
        for name in ("ssim", "decoder", "steps", "every", "lr")
    },
    "pretraining.auxiliary_images": {"pretraining.auxiliary": "cifar100"},
    "pretraining.expert": {"pretraining.auxiliary": "cifar100", "client.count": 1, "partition.kind": "iid"},
    "model.rich_cut_layer": {"client.rich_share": 0.5, "client.rich_batch_factor": 2},
}
"""Without which a setting is refused."""


@pytest.mark.parametrize(("name", "value"), list(other_values()))
def test_hash_changes_with_every_setting_and_toml_keeps_it(name, value):
    needs = NEEDS.get(name, {})
    config = parse(nested(needs | {name: value}), "here")
    assert config.hash() != parse(nested(needs), "here").hash()
    assert parse(tomllib.loads(to_toml(config)), "here") == config


def test_hash_outlives_new_settings(tmp_path):
    """A configuration stored by schema 1.0, which knew fewer settings, has the same hash today."""
    packed = Path(__file__).parent / "record/run-1.0.h5.gz"
    (tmp_path / "run.h5").write_bytes(gzip.decompress(packed.read_bytes()))
    with open_run(tmp_path) as run:
        stored, hashed = run.attrs["config"], run.attrs["config_hash"]
    assert "label_shares" not in stored["evaluation"]
    assert parse(stored, "stored").hash() == hashed
    assert "reliability" not in json.loads(parse(stored, "stored").canonical())
    failing = json.loads(build("reliability.key_loss=0.1", values=stored).canonical())
    assert failing == stored | {"reliability": {"key_loss": 0.1}}
    chosen = json.loads(build("evaluation.label_shares=[0.1]", values=stored).canonical())["evaluation"]
    assert chosen == stored["evaluation"] | {"label_shares": [0.1]}
    assert "communication" not in stored
    chosen = json.loads(build("communication.download_every=2", values=stored).canonical())["communication"]
    assert chosen == {"download_every": 2}
    assert "defence" not in stored
    chosen = json.loads(build("defence.levels=8", values=stored).canonical())["defence"]
    assert chosen == {"levels": 8}


def test_a_plain_evaluation_asks_for_nothing_further():
    config = parse(
        {"evaluation": {"label_shares": [0.1], "fine_tune_share": 0.5, "transfer": "svhn", "per_client": True}}, "here"
    )
    assert config.evaluation.further == tuple(
        f"evaluation.{name}" for name in ("label_shares", "fine_tune_share", "transfer", "per_client")
    )
    assert config.evaluation.plain() == Config().evaluation
    assert build("evaluation.neighbours=7").evaluation.plain().neighbours == 7


def test_what_came_later_is_named_by_its_setting():
    assert set(ADDED) <= {name for name, _, _ in all_settings()}


def test_hash_is_that_of_the_meaning_not_of_the_writing():
    assert (
        parse({"client": {"lr": 1, "count": 3}}, "a").hash() == parse({"client": {"count": 3, "lr": 1.0}}, "b").hash()
    )
    assert parse({}, "a").hash() == parse({"seed": 1234}, "b").hash()
    assert len(Config().hash()) == 64


STRINGS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(folder=STRINGS, seed=st.integers(0, 2**63 - 1), lr=st.floats(0, 1e300))
def test_any_value_survives_toml(folder, seed, lr):
    values = {"seed": seed, "server": {"lr": lr}, "data": {"folder": folder}}
    config = parse(values, "here")
    assert parse(tomllib.loads(to_toml(config)), "here") == config


# ------------------------------------------------------------------------------------------------ --set


@pytest.mark.parametrize(
    ("assignment", "get", "value"),
    [
        ("epochs=3", lambda c: c.epochs, 3),
        ("model.cut_layer = 2", lambda c: c.model.cut_layer, 2),
        ("method=monacosfl", lambda c: c.method, "monacosfl"),
        ("method='monacosfl'", lambda c: c.method, "monacosfl"),
        ("client.frozen=true", lambda c: c.client.frozen, True),
        ("server.lr=1e-3", lambda c: c.server.lr, 1e-3),
        ("evaluation.probe_l2=[0.5]", lambda c: c.evaluation.probe_l2, (0.5,)),
        ("model.bottleneck=C4S2", lambda c: c.model.bottleneck, "C4S2"),
        ("model.bottleneck=", lambda c: c.model.bottleneck, ""),
        ("data.folder=a=b", lambda c: c.data.folder, "a=b"),
    ],
)
def test_assignments(assignment, get, value):
    assert get(build(assignment)) == value


def test_assignments_lie_over_the_preset_and_the_last_one_counts():
    values = {"client": {"count": 3, "lr": 0.5}}
    config = build("client.count=4", "client.count=5", values=values)
    assert (config.client.count, config.client.lr) == (5, 0.5)
    assert values == {"client": {"count": 3, "lr": 0.5}}, "the preset itself is not changed"


@pytest.mark.parametrize("assignment", ["epochs", "=3", " =3", ""])
def test_malformed_assignments(assignment):
    with pytest.raises(BadInput, match=r"expected section\.key=value"):
        build(assignment)


def test_value_is_not_a_section():
    with pytest.raises(BadInput, match="'seed' is a value, not a section"):
        build("seed=1", "seed.x=2")


NAMES = [name for name, _, _ in all_settings()]
VALUES = st.one_of(
    STRINGS,
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["true", "[1,2]", "{a=1}", "1979-05-27", "07:32:00", "'x'", '"', "[", "nan", "-inf", "0x10", "1_000", "", "\\"]
    ),
)
ASSIGNMENT = st.one_of(
    st.text(max_size=20),
    st.builds("{}={}".format, st.sampled_from(NAMES), VALUES),
    st.builds("{}={}".format, STRINGS, VALUES),
    st.builds("{}.{}={}".format, st.sampled_from(NAMES), STRINGS, VALUES),
    st.builds("{}={}".format, st.sampled_from(sorted({name.partition(".")[0] for name in NAMES})), VALUES),
)


@given(st.lists(ASSIGNMENT, min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_assignment_parses_or_is_bad_input(assignments):
    try:
        config = build(*assignments, values=PRESETS["quickstart"][1])
    except BadInput:
        return
    assert parse(tomllib.loads(to_toml(config)), "here") == config
    config.hash()


def test_huge_number():
    with pytest.raises(BadInput):
        build("seed=" + "9" * 5000)


def test_dates_in_a_file_are_bad_input():
    with pytest.raises(BadInput):
        build("epochs=3", values={"seed": dt.date(2024, 1, 2)})


# ------------------------------------------------------------------------------------------------ files


def test_files(tmp_path):
    good = tmp_path / "mine.toml"
    good.write_text("epochs = 3\n[client]\ncount = 4\n")
    assert load(str(good)) == ("mine", {"epochs": 3, "client": {"count": 4}})
    bad = tmp_path / "bad.toml"
    bad.write_text("epochs = = 3")
    with pytest.raises(BadInput, match="not valid TOML"):
        read_toml(bad)
    with pytest.raises(BadInput, match="cannot read"):
        read_toml(tmp_path / "none.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe9\n")
    with pytest.raises(BadInput, match="cannot read"):
        read_toml(latin)
    with pytest.raises(BadInput, match="did you mean 'quickstart'"):
        load("quikstart")


def test_published_presets_are_100000_steps_of_about_100_images():
    """Spec 4.1: every published size, on 50,000 CIFAR images."""
    expected = {5: (500, 2000), 20: (125, 8800), 100: (500, 2000), 200: (250, 2000), 1000: (50, 2000)}
    from mocosfl_mpi.server.fed_server import due

    for clients, (steps, syncs) in expected.items():
        name = f"cifar10-{clients}clients-cut1"
        config = parse(PRESETS[name][1], name)
        assert -(-(50_000 // clients) // config.client.batch_size) == steps
        assert config.epochs * steps == 100_000
        assert config.pool_size * config.client.batch_size == 100
        assert config.epochs * sum(due(s, steps, config.federation.sync_freq) for s in range(steps)) == syncs
        assert (config.server.lr, config.contrast.memory_length, config.contrast.temperature) == (0.06, 6000, 0.1)
        assert (config.contrast.symmetric, config.client.schedule_step) == ("published", "published")
        assert config.contrast.momentum == 0.99


def test_tables_in_tables_without_end_are_refused(tmp_path):
    file = tmp_path / "deep.toml"
    file.write_text(".".join("a" * 50) + " = 1\n")
    assert read_toml(file)["a"]["a"]
    for text in (".".join("a" * 51) + " = 1", ".".join("a" * 3000) + " = 1"):
        file.write_text(text)
        with pytest.raises(BadInput, match="more than 50 levels"):
            read_toml(file)


def test_what_auto_means_on_this_machine_may_not_go_with_another_setting():
    config = parse({"communication": {"smashed": "bf16"}}, "test")
    assert config.computed("fp32", "stacked").compute.precision == "fp32"
    with pytest.raises(BadInput, match=r"precision = auto is bf16 on this machine: .*leave it out"):
        config.computed("bf16", "fused")
