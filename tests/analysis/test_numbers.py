"""What is drawn are the numbers of the files: each CSV against h5py alone."""

from __future__ import annotations

import itertools
import json
import types

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.analysis.scripts import draw

CELLS = [(method, cut) for method in ("mocosfl", "monacosfl") for cut in (1, 4, 8)]
TITLES = {"mocosfl": "MocoSFL", "monacosfl": "MonAcoSFL"}
LABELS = {f"{TITLES[method]}, cut {cut}": (method, cut) for method, cut in CELLS}
GRID = "tests/analysis/grid.toml"


def read(runs, cell, name, seeds=range(3)):
    """The data set of each seed's run, stacked."""
    found = []
    for seed in seeds:
        with h5py.File(runs / f"grid/{cell[0]}-cut{cell[1]}-seed{seed}/run.h5") as file:
            found.append(file[name][()])
    return np.stack(found)


def table(script, name, tmp_path, *arguments):
    assert draw(script, *arguments, "--out", tmp_path, "--format", "csv") == 0
    return pd.read_csv(tmp_path / f"{name}.csv")


def test_accuracy_curves(runs, tmp_path):
    found = dict.fromkeys(("epochs", "images", "bytes"))
    for axis in found:
        found[axis] = table("accuracy_curves", f"accuracy-{axis}", tmp_path, runs / "grid")
    assert found["epochs"]["group"].unique().tolist() == list(LABELS)
    for label, cell in LABELS.items():
        knn = read(runs, cell, "evaluations/knn_top1")  # epochs 0 to 3
        sent = read(runs, cell, "simulated/bytes").sum(axis=(2, 3)).cumsum(axis=1) / 12 / 2**20
        for axis, expected in (
            ("epochs", [0, 1, 2, 3]),
            ("images", [0, 0.048, 0.096, 0.144]),  # 4 steps, 6 clients, batches of 2
            ("bytes", [0, *sent.mean(axis=0)]),
        ):
            own = found[axis][found[axis]["group"] == label]
            assert own[axis].tolist() == pytest.approx(expected)
            assert own["mean"].tolist() == pytest.approx(knn.mean(axis=0))
            assert own["std"].tolist() == pytest.approx(knn.std(axis=0, ddof=1))
            assert own["n"].tolist() == [3] * 4
            assert own["raw_pixels"].iloc[0] == pytest.approx(
                np.mean([read(runs, other, "result/knn_top1_pixels").mean() for other in CELLS])
            )


def test_accuracy_of_the_own_classifier(runs, tmp_path, capsys):
    given = [runs / "fedavg", runs / "ranks2"]
    found = table("accuracy_curves", "accuracy-epochs", tmp_path, *given, "--metric", "classifier")
    with h5py.File(runs / "fedavg/run.h5") as file:
        assert found["mean"].tolist() == file["evaluations/classifier_top1"][:].tolist()
    assert "nothing to draw of 1 of 2 runs: ranks2" in capsys.readouterr().err


def test_health(runs, tmp_path):
    found = table("health", "health", tmp_path, runs / "grid")
    for label, cell in LABELS.items():
        own = found[found["group"] == label].groupby("quantity")
        for quantity, name in (("loss", "epochs/loss"), ("effective_rank", "epochs/effective_rank")):
            values = read(runs, cell, name)
            assert own.get_group(quantity)["epoch"].tolist() == [1, 2, 3]
            assert own.get_group(quantity)["mean"].tolist() == pytest.approx(values.mean(axis=0))
            assert own.get_group(quantity)["std"].tolist() == pytest.approx(values.std(axis=0, ddof=1))
        for quantity in ("online_momentum_distance", "momentum_spread"):
            values = read(runs, cell, f"after_sync/{quantity}").mean(axis=2)
            assert own.get_group(quantity)["mean"].tolist() == pytest.approx(values.mean(axis=0))
            syncs = read(runs, cell, "syncs/step")[0] / 4
            assert own.get_group(quantity)["epoch"].tolist() == pytest.approx(syncs)
        assert (own.get_group("momentum_spread")["mean"].abs() < 1e-6).all() == (cell[0] == "monacosfl")


def test_divergence_map(runs, tmp_path):
    found = table("divergence_map", "divergence-MocoSFL-cut-4", tmp_path, runs / "grid")
    norms = read(runs, ("mocosfl", 4), "divergence/online_mean", [0])[0].astype(float)  # [sync, member, layer]
    clients = read(runs, ("mocosfl", 4), "syncs/clients", [0])[0]
    layers = [name.decode() for name in read(runs, ("mocosfl", 4), "layer", [0])[0]]
    by_layer = found[found["axis"] == "layer"].pivot_table(index="sync", columns="name", values="norm")
    assert by_layer[layers].to_numpy() == pytest.approx(norms.mean(axis=1))
    by_client = found[found["axis"] == "client"].set_index(["sync", "name"])["norm"]
    assert len(by_client) == clients.size
    for sync, member in np.ndindex(clients.shape):
        assert by_client[sync, str(clients[sync, member])] == pytest.approx(norms[sync, member].sum())


def test_divergence_by_frequency_with_published_numbers(runs, tmp_path):
    given = [runs / name for name in ("sync1", "sync4", "grid")]
    found = table("divergence_frequency", "divergence-frequency", tmp_path, *given, "--published", GRID)
    assert found["line"].unique().tolist() == list(LABELS)
    first = found[found["line"] == "MocoSFL, cut 1"]
    assert first["federation.sync_freq"].tolist() == [1, 2, 4]
    assert first["n"].tolist() == [1, 3, 1]
    values = read(runs, ("mocosfl", 1), "divergence/online_mean").astype(float).sum(axis=3).mean(axis=(1, 2))
    assert first["mean"].iloc[1] == pytest.approx(values.mean())
    assert first["std"].iloc[1] == pytest.approx(values.std(ddof=1))
    published = found[found["federation.sync_freq"] == 2].set_index("line")["published"].to_dict()
    expected = dict(zip(LABELS, (1.5, 3, 4, np.nan, np.nan, np.nan), strict=True))
    assert published == pytest.approx(expected, nan_ok=True)


def test_accuracy_by_cut(runs, tmp_path):
    found = table("accuracy_by_cut", "accuracy-by-cut", tmp_path, runs / "grid", "--published", GRID)
    assert found["line"].unique().tolist() == ["MocoSFL", "MonAcoSFL"]
    for (method, cut), (_, row) in zip(CELLS, found.iterrows(), strict=True):
        values = read(runs, (method, cut), "result/linear_top1")
        assert (row["line"], row["model.cut_layer"]) == (TITLES[method], cut)
        assert (row["mean"], row["std"]) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert found["published"].tolist() == [87.5, 70, 50, 87, 85, 82]
    untrained = np.mean([read(runs, cell, "result/linear_top1_untrained") for cell in CELLS])
    assert found["untrained"].tolist() == pytest.approx([untrained] * 6)


def test_published_numbers_of_another_experiment_are_refused(runs, tmp_path, capsys):
    given = (runs / "fl_moco", "--published", GRID, "--out", tmp_path)
    assert draw("accuracy_by_cut", *given) == 2
    assert "its cells differ in method, model.cut_layer" in capsys.readouterr().err


def test_client_cost(runs, tmp_path):
    sent = table("client_cost", "cost-bytes", tmp_path, runs / "grid").set_index("group")
    work = pd.read_csv(tmp_path / "cost-computation.csv").set_index("group")
    image = pd.read_csv(tmp_path / "cost-image.csv").set_index("group")
    memory = pd.read_csv(tmp_path / "cost-memory.csv").set_index("group")
    size = {"KiB": 2**10, "MiB": 2**20, "MFLOP": 1e6, "kFLOP": 1e3}
    for label, cell in LABELS.items():
        totals = read(runs, cell, "simulated/bytes").sum(axis=(1, 2)).mean(axis=0) / 12
        by_kind = dict(zip(read(runs, cell, "message", [0])[0], totals, strict=True))
        unit = size[sent.loc[label, "unit"]]
        assert sent.loc[label, "query data up"] * unit == pytest.approx(by_kind[b"query_up"])
        assert sent.loc[label, "gradients"] * unit == pytest.approx(by_kind[b"gradient_down"])
        models = by_kind[b"momentum_up"] + by_kind[b"momentum_down"]
        assert sent.loc[label, "momentum models"] * unit == pytest.approx(models)
        assert sent.loc[label].drop("unit").sum() * unit == pytest.approx(totals.sum())
        flops = read(runs, cell, "simulated/client_flops").sum(axis=(1, 2, 3)).mean() / 12
        assert work.loc[label].drop("unit").sum() * size[work.loc[label, "unit"]] == pytest.approx(flops)
        flops = read(runs, cell, "cost/flops_per_image", [0])[0, 0].sum()  # segment 0 is the client
        assert image.loc[label].drop("unit").sum() * size[image.loc[label, "unit"]] == pytest.approx(flops)
        use = dict(zip(read(runs, cell, "memory", [0])[0], read(runs, cell, "cost/client_memory", [0])[0], strict=True))
        assert memory.loc[label, "peak"] * size[memory.loc[label, "unit"]] == pytest.approx(use[b"peak"])
        assert memory.loc[label, "activations"] * size[memory.loc[label, "unit"]] == pytest.approx(use[b"activations"])


def test_partition(runs, tmp_path):
    found = table("partition_picture", "partition-MocoSFL-cut-1", tmp_path, runs / "grid")
    counts = read(runs, ("mocosfl", 1), "partition/counts", [0])[0]
    assert (
        found.pivot_table(index="client", columns="class", values="images", sort=False).to_numpy().tolist()
        == counts.tolist()
    )


def test_timeline(runs, tmp_path):
    found = table("rank_timeline", "timeline-ranks3", tmp_path, runs / "ranks3")
    with h5py.File(runs / "ranks3/run.h5") as file:
        seconds, shares = file["measured/seconds"][:], file["measured/idle_share"][:]
    bars, idle = (found[found["panel"] == name] for name in ("timeline", "idle"))
    assert bars["seconds"].to_numpy() == pytest.approx(seconds.reshape(-1))
    assert idle["idle"].to_numpy() == pytest.approx(100 * shares.reshape(-1))
    begin = [0.0, *seconds.sum(axis=2).max(axis=1).cumsum()]
    for epoch, rank in np.ndindex(shares.shape):
        own = bars[(bars["epoch"].astype(float) == epoch) & (bars["rank"] == rank)]
        ends = begin[epoch] + seconds[epoch, rank].cumsum()
        assert own["start"].tolist() == pytest.approx([begin[epoch], *ends[:-1]])


def test_scaling(runs, tmp_path):
    given = [runs / "ranks2", runs / "ranks3", runs / "grid/mocosfl-cut1-seed0"]
    found = table("scaling", "scaling-ranks", tmp_path, *given)
    assert found["ranks"].tolist() == [1, 2, 3]
    for path, row in zip((given[2], *given[:2]), found.to_dict("records"), strict=True):
        with h5py.File(path / "run.h5") as file:
            phases = [name.decode() for name in file["phase"]]
            training = [place for place, name in enumerate(phases) if name not in ("evaluate", "record")]
            step = np.median(file["measured/seconds"][1:, 0][:, training].sum(axis=1)) / 4
            memory = file["measured/resident_bytes"][:].sum(axis=1).max() / 2**20
        assert (row["seconds"], row["mebibytes"]) == pytest.approx((step, memory))
        assert row["speed_up"] == pytest.approx(found["seconds"].iloc[0] / step)
    found = table("scaling", "scaling-clients", tmp_path, runs / "clients6", runs / "clients24")
    assert found["client.count"].tolist() == [6, 24]


def test_scaling_of_nothing(runs, tmp_path, capsys):
    assert draw("scaling", runs / "grid", "--out", tmp_path) == 2
    assert "all runs have 1 rank(s) and 12 clients" in capsys.readouterr().err


def test_plan_against_actual(runs, tmp_path, capsys):
    with h5py.File(runs / "ranks2/run.h5") as file:
        sent, memory = int(file["simulated/bytes"][:].sum()), int(file["measured/resident_bytes"][-1].sum())
    plan = {"simulated_bytes": {"up": 3 * sent, "down": sent}, "client_flops": {"all": 5}, "record_bytes": 9}
    plan |= {"resident_bytes_sum": 2 * memory, "ranks": 2, "clients": 12, "pool": 6, "epochs": 3}
    path = tmp_path / "a.json"
    for content in (plan, {"method": "mocosfl", "plan": plan}):  # of `mocosfl plan` and of `mocosfl inspect`
        path.write_text(json.dumps(content))
        found = table("plan_against_actual", "plan", tmp_path, runs / "ranks2", "--plan", path)
        ratios = found.set_index("quantity")["ratio"].to_dict()
        assert ratios.keys() == {"memory", "bytes", "flops", "record"}, "a plan without seconds says none"
        assert (ratios["bytes"], ratios["memory"]) == (4.0, 2.0)
    for content, told in (
        (plan | {"clients": 13}, "clients = 13 there, 12 in"),
        ({"plan": None}, "is no plan"),
        ([1], "is no plan"),
        ({}, "is no plan"),
    ):
        path.write_text(json.dumps(content))
        assert draw("plan_against_actual", runs / "ranks2", "--plan", path, "--out", tmp_path) == 2
        assert told in capsys.readouterr().err
    assert draw("plan_against_actual", runs / "ranks2", runs / "ranks3", "--plan", path, "--out", tmp_path) == 2
    assert "is the plan of one run" in capsys.readouterr().err


def test_tradeoff(runs, tmp_path):
    found = table("tradeoff", "tradeoff", tmp_path, runs / "grid").set_index("group")
    points = {}
    for label, cell in LABELS.items():
        sent = read(runs, cell, "simulated/bytes").sum(axis=(1, 2, 3)).mean() / 12 / 2**20
        points[label] = (read(runs, cell, "result/linear_top1").mean(), -sent)
        assert tuple(found.loc[label, ["accuracy", "mebibytes"]]) == pytest.approx((points[label][0], sent))
    for label, own in points.items():
        beaten = any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for other in points.values())
        assert found.loc[label, "front"] == (not beaten)
    assert found["mse"].isna().all()


def test_tradeoff_with_attacks(runs, tmp_path, monkeypatch, capsys):
    """The best of the attacks counts, mean over its seeds; controls, other kinds and failures do not."""
    from mocosfl_mpi.figures import tradeoff

    def outcome(attack, mse, kind="reconstruction", trained=True, reason=""):
        floors = {"constant_mean": {"mse": 0.08}, "own_mean": {"mse": 0.05}}
        scores = {"mse": mse} if mse is not None else {}
        return types.SimpleNamespace(
            attack=attack, adversary="main_server", adaptive=-1, protocol="ours", effort=1.0, kind=kind,
            trained=trained, reason=reason, scores=scores, floors=floors,
        )  # fmt: skip

    rows = [outcome("decoder", 0.02), outcome("decoder", 0.04), outcome("ridge", 0.05)]
    rows += [outcome("ridge", 0.001, trained=False), outcome("membership", 0.0, kind="inference")]
    rows += [outcome("maximum", 0.0, reason="too large"), outcome("x", None)]
    monkeypatch.setattr(tradeoff, "read_outcomes", lambda _: rows)
    for name in ("mocosfl-cut1-seed0", "monacosfl-cut8-seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.h5").symlink_to(runs / "grid" / name / "run.h5")
    (tmp_path / "mocosfl-cut1-seed0/attacks.h5").touch()
    assert tradeoff.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    found = pd.read_csv(tmp_path / "out/tradeoff.csv")
    assert found["mse"].tolist() == pytest.approx([0.03, np.nan], nan_ok=True)
    assert found["guess_mse"].iloc[0] == pytest.approx(0.08)
    assert "not attacked" in capsys.readouterr().err


def test_leakage(runs, tmp_path, monkeypatch, capsys):
    """Means over seeds of training and attack, by what the adversary knows; the control and the floor beside."""
    from mocosfl_mpi.figures import leakage

    def outcome(score, adaptive=-1, trained=True, reason="", protocol="ours", seed=0, steps=8, effort=1.0):
        return types.SimpleNamespace(
            attack="linkage", adversary="server", adaptive=adaptive, protocol=protocol, kind="linkage",
            trained=trained, reason=reason, steps=steps, effort=effort, images=8, client=0, seed=seed,
            scores={"top1": score}, floors={"chance": {"top1": 0.01}, "raw_pixels": {"top1": 0.9}},
        )  # fmt: skip

    rows = [outcome(0.2), outcome(0.4, seed=1), outcome(0.8, adaptive=1), outcome(0.1, trained=False)]
    rows += [outcome(1.0, reason="cannot", seed=2), outcome(1.0, protocol="published")]
    rows += [outcome(1.0, steps=4, seed=3), outcome(1.0, effort=0.5), outcome(1.0, steps=4)]
    monkeypatch.setattr(leakage, "read_outcomes", lambda _: rows)
    for name in ("mocosfl-cut1-seed0", "mocosfl-cut1-seed1", "monacosfl-cut8-seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.h5").symlink_to(runs / "grid" / name / "run.h5")
        if name.startswith("mocosfl"):
            (tmp_path / name / "attacks.h5").touch()
    assert leakage.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    found = pd.read_csv(tmp_path / "out/leakage-linkage.csv", keep_default_na=False)
    assert found["knows"].tolist() == ["", "adaptive"]
    assert found["mean"].astype(float).tolist() == pytest.approx([0.3, 0.8])
    assert found["std"].astype(float).tolist() == pytest.approx([np.std([0.2, 0.4, 0.2, 0.4], ddof=1), 0.0])
    assert found["n"].tolist() == [4, 2]
    assert found["floor"].astype(float).tolist() == pytest.approx([0.01, 0.01])
    assert float(found["untrained"][0]) == pytest.approx(0.1)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/run.h5").symlink_to(runs / "grid/mocosfl-cut1-seed0/run.h5")
    assert leakage.main([str(tmp_path / "alone")]) == 2
    assert "mocosfl attack" in capsys.readouterr().err


def test_the_front():
    from mocosfl_mpi.figures.tradeoff import front

    points = np.array([[3, 1, 1], [2, 2, 1], [2, 1, 1], [2, 2, 1], [0, 0, 5]], dtype=float)
    assert front(points).tolist() == [True, True, False, True, True]


def test_comparison(runs, tmp_path):
    found = table("comparison", "comparison", tmp_path, runs / "grid", "--published", GRID).set_index(
        ["metric", "group"]
    )
    gaps = pd.read_csv(tmp_path / "differences.csv").set_index(["metric", "group"])
    for label, cell in LABELS.items():
        for metric in ("linear_top1", "knn_top1"):
            values = read(runs, cell, f"result/{metric}")
            row = found.loc[metric, label]
            assert (row["mean"], row["std"], row["n"]) == pytest.approx((values.mean(), values.std(ddof=1), 3))
            assert [float(word) for word in row["values"].split()] == pytest.approx(values.tolist())
            if cell[0] == "monacosfl":
                pairs = values - read(runs, ("mocosfl", cell[1]), f"result/{metric}")
                row = gaps.loc[metric, label]
                assert row["against"] == f"MocoSFL, cut {cell[1]}"
                assert (row["mean"], row["std"], row["n"]) == pytest.approx((pairs.mean(), pairs.std(ddof=1), 3))
                flips = [abs(np.dot(signs, pairs)) for signs in itertools.product((1, -1), repeat=3)]
                assert row["p"] == np.mean([flip >= abs(pairs.sum()) - 1e-9 for flip in flips])
                assert row["least_p"] == 0.25
    assert len(gaps) == 6
    assert found.loc["linear_top1"]["published"].tolist() == [87.5, 70, 50, 87, 85, 82]
    assert found.loc["knn_top1"]["published"].isna().all()


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((1.0,), 1.0),
        ((1.0, 2.0), 0.5),
        ((1.0, 2.0, 3.0), 0.25),
        ((1.0, -1.0), 1.0),
        ((0.0, 0.0, 0.0), 1.0),
        ((3, -1, 2), 0.5),
    ],
)
def test_sign_flips(differences, p):
    from mocosfl_mpi.figures.comparison import sign_flip

    assert sign_flip(differences) == p


def test_sign_flips_of_many_pairs_are_drawn():
    from mocosfl_mpi.figures.comparison import sign_flip

    assert sign_flip([1.0] * 20) == pytest.approx(2 / 2**20, abs=1e-4)
    assert sign_flip([1.0, -1.0] * 10) == 1.0


def test_against_a_named_reference(runs, tmp_path, capsys):
    given = (runs / "grid", "--against", "cut_layer=8", "--metric", "knn_top1")
    found = table("comparison", "differences", tmp_path, *given)
    assert found["against"].unique().tolist() == ["MocoSFL, cut 8", "MonAcoSFL, cut 8"]
    assert found["group"].tolist() == [label for label in LABELS if "8" not in label]
    for words, told in (("cut_layer=9", "no group of runs is so"), ("width=8", "method, model.cut_layer")):
        assert draw("comparison", runs / "grid", "--against", words, "--out", tmp_path) == 2
        assert told in capsys.readouterr().err
