import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mocosfl_mpi.config import parse
from mocosfl_mpi.server import main_server as main_server_module
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.protocol import AtHand
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.streams import Streams
from tests.unit.server.traffic import one_step

POOL = np.array([1, 4, 6])
ROWS = 4
BASE = {
    "epochs": 5,
    "model": {"width": 4, "key_dim": 8, "cut_layer": 2},
    "contrast": {"memory_length": 70},
    "client": {"count": 7},
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def config(**sections):
    values = copy.deepcopy(BASE)
    for name, settings in sections.items():
        values[name] = values.get(name, {}) | settings
    values["client"]["batch_size"] = ROWS if values["contrast"].get("symmetric") != "both_views" else ROWS // 2
    return parse(values, "test")


def network(settings, dtype=torch.float64):
    return cut.build(settings.model, 1, 16, Streams(0), dtype)


def server(settings, dtype=torch.float64):
    built = network(settings, dtype)
    return MainServer(settings, built.trunk, built.key_dim, Streams(1), engine(dtype))


def engine(dtype):
    return Engine("fp64" if dtype is torch.float64 else "fp32", "loop")


def smashed(seed, settings, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(POOL) * ROWS, *network(settings).smashed_shape)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).relu().to(dtype) for _ in range(2)]


def state(main_server):
    tensors = [*main_server.online.state_dict().values(), *main_server.momentum.state_dict().values()]
    return torch.cat([t.detach().reshape(-1).double() for t in (*tensors, main_server.memory.keys)])


@pytest.mark.parametrize("symmetric", ["off", "published", "both_views"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [4, 8, 12, 100, 5])
def test_micro_batches_sum_to_the_whole(symmetric, shared, chunk):
    if not shared and chunk == 5:
        return  # refused by the configuration: private memories want whole clients
    contrast = {"symmetric": symmetric, "share_features": shared}
    whole = server(config(contrast=contrast))
    parts = server(config(contrast=contrast, server={"micro_batch": chunk}))
    for step in range(2):
        query, key = smashed(step, config())
        results = [one_step(s, query, key, POOL) for s in (whole, parts)]
        assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-12)
        assert results[0][1].loss == pytest.approx(results[1][1].loss, abs=1e-12)
        assert results[0][1].accuracy == results[1][1].accuracy
        assert torch.allclose(results[0][1].queries, results[1][1].queries, rtol=0, atol=1e-12)
    assert torch.allclose(state(whole), state(parts), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({}, [8, 4]),
        ({"head": "largeV2", "hidden_dim": 8}, [12]),
        ({"backbone": "mobilenetv2", "width": 16}, [8, 4]),
        ({"backbone": "mobilenetv2_published", "width": 16}, [12]),
        ({"backbone": "mobilenetv2_published", "width": 16, "cut_layer": 8}, [8, 4]),
    ],
)
def test_rows_that_batch_norm_looks_at_pass_together(monkeypatch, model, parts):
    monkeypatch.setattr(main_server_module, "MICRO_BATCH", 8)
    settings = config(model=model)
    found = server(settings)
    passed, forward = [], found._online_passes.forward_with_pullback

    def watch(rows, **options):
        passed.append(len(rows))
        return forward(rows, **options)

    monkeypatch.setattr(found._online_passes, "forward_with_pullback", watch)
    one_step(found, *smashed(0, settings), POOL)
    assert passed == [rows for rows in parts for _ in range(2)], "each part for both terms of the loss"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("symmetric", ["off", "published"])
def test_gradient_is_that_of_end_to_end_autograd_bit_for_bit(dtype, symmetric):
    """Cutting autograd at the smashed data and resuming with its gradient loses nothing."""
    settings = config(contrast={"symmetric": symmetric})
    built = network(settings, dtype)
    main_server = MainServer(settings, built.trunk, built.key_dim, Streams(1), engine(dtype))
    generator = torch.Generator().manual_seed(0)
    images, others = (torch.randn(12, 1, 16, 16, generator=generator).to(dtype) for _ in range(2))
    with torch.no_grad():
        key = built.bottom(others)

    reference = copy.deepcopy(main_server)
    bottom = copy.deepcopy(built.bottom)
    query = bottom(images)
    memory = reference.memory.keys[0]
    rows = len(images)

    def term(q, k):
        q = F.normalize(reference.online(q), dim=1)
        k = F.normalize(k, dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ memory.T], dim=1) / 0.1
        return F.cross_entropy(logits, torch.zeros(rows, dtype=torch.long), reduction="sum")

    with torch.no_grad():
        own, swapped = reference.momentum(key), reference.momentum(query)
    loss = term(query, own)
    if symmetric == "published":
        loss = loss + term(key, swapped)
    (loss / rows).backward()

    query = built.bottom(images)
    gradient, report = one_step(main_server, query.detach(), key, POOL)
    query.backward(gradient)
    assert report.loss == pytest.approx((loss / rows).item(), rel=1e-14 if dtype is torch.float64 else 1e-6)
    for mine, expected in zip(built.bottom.parameters(), bottom.parameters(), strict=True):
        assert torch.equal(mine.grad, expected.grad)


def test_published_sum_is_twice_the_mean_over_both_views():
    """Spec 3.2: where online and momentum clients agree, l12 + l21 is twice the loss of `both_views`.

    The trunk's gradient has the same ratio, and so have the gradients at the cut of the rows in l12.
    """
    query, key = smashed(0, config())
    published = server(config(contrast={"symmetric": "published"}))
    gradient, report = one_step(published, query, key, POOL)

    # the same images in both roles, 2B rows per client; the pool is one client, so rows are cat(q, k) and cat(k, q)
    both = server(config(contrast={"symmetric": "both_views"}))
    gradient_both, report_both = one_step(both, torch.cat([query, key]), torch.cat([key, query]), POOL[:1])

    assert report.loss / report_both.loss == pytest.approx(2.0, abs=1e-12)
    assert torch.allclose(gradient, 2 * gradient_both[: len(query)], rtol=0, atol=1e-14)
    assert gradient_both[len(query) :].abs().max() > 0, "only the fixed form sends a gradient for the key views"
    for mine, other in zip(published.online.parameters(), both.online.parameters(), strict=True):
        assert torch.allclose(mine.grad, 2 * other.grad, rtol=0, atol=1e-12)


def test_symmetry_off_is_the_first_term():
    query, key = smashed(0, config())
    off = server(config(contrast={"symmetric": "off"}))
    published = server(config(contrast={"symmetric": "published"}))
    gradient, report = one_step(off, query, key, POOL)
    gradient_published, report_published = one_step(published, query, key, POOL)
    assert torch.allclose(gradient, gradient_published, rtol=0, atol=1e-15), "clients learn from l12 only"
    assert report.loss < report_published.loss
    assert report.accuracy == report_published.accuracy


@pytest.mark.parametrize(("symmetric", "count"), [("off", 12), ("published", 24), ("both_views", 12)])
def test_keys_enter_the_memory_after_the_loss(symmetric, count):
    main_server = server(config(contrast={"symmetric": symmetric}))
    before = main_server.memory.newest_first().clone()
    trunk = copy.deepcopy(main_server.momentum)
    query, key = smashed(0, config())
    _, report = one_step(main_server, query, key, POOL, keep_memory=True)
    assert torch.equal(report.memory_before, before)
    assert report.keys_per_update == count
    now = main_server.memory.newest_first()
    assert torch.equal(now[count:], before[:-count])
    with torch.no_grad():
        k2 = F.normalize(trunk(key), dim=1)
        k1 = F.normalize(trunk(query), dim=1)
    expected = torch.cat([k1, k2]) if symmetric == "published" else k2
    assert torch.allclose(now[:count], expected.flip(0), rtol=0, atol=1e-14)


def test_loss_of_a_memory_of_copies():
    """All negatives equal to the positive: ln(K+1), whatever the network says."""
    settings = config(contrast={"symmetric": "off"}, model={"head": "V1"})
    main_server = server(settings)
    query, key = smashed(0, settings)
    one = key[:1].expand_as(key)
    with torch.no_grad():
        main_server.memory.keys[:] = F.normalize(main_server.momentum(one[:1]), dim=1)
    _, report = one_step(main_server, query, one, POOL)
    assert report.loss == pytest.approx(math.log(71), abs=1e-10)


def test_momentum_trunk():
    main_server = server(config(contrast={"momentum": 0.75}))
    initial = [p.detach().clone() for p in main_server.momentum.parameters()]
    query, key = smashed(0, config())
    one_step(main_server, query, key, POOL)
    for p, start in zip(main_server.momentum.parameters(), initial, strict=True):
        assert torch.equal(p, start), "a no-op before the first update"
    online = [p.detach().clone() for p in main_server.online.parameters()]
    one_step(main_server, query, key, POOL)
    for p, start, fast in zip(main_server.momentum.parameters(), initial, online, strict=True):
        assert torch.allclose(p, 0.75 * start + 0.25 * fast, rtol=0, atol=1e-14)
        assert not p.requires_grad


def test_clients_that_want_no_answer_get_none_and_the_server_learns_the_same():
    query, key = smashed(0, config())
    silent, answering = server(config()), server(config())
    assert one_step(silent, query, key, POOL, answer=False)[0] is None
    assert one_step(answering, query, key, POOL)[0] is not None
    assert torch.equal(state(silent), state(answering))


@pytest.mark.parametrize("symmetric", ["off", "published", "both_views"])
def test_a_part_is_answered_before_the_next_is_asked_for(symmetric):
    """So that clients go on while others' rows are still under way; the gradients are those of all at once."""
    settings = config(contrast={"symmetric": symmetric}, server={"micro_batch": 4})
    query, key = smashed(0, settings)
    said = []

    class Line(AtHand):
        def take(self, at):
            said.append(("take", at.start, at.stop))
            return super().take(at)

        def answer(self, gradient):
            said.append(("answer", len(gradient)))
            super().answer(gradient)

    line, found = Line(query, key), server(settings)
    found.step(line, POOL)
    rows = [(start, start + 4) for start in (0, 4, 8)]
    assert said == [call for part in rows for call in (("take", *part), ("answer", 4))]
    whole = server(config(contrast={"symmetric": symmetric}, server={"micro_batch": 12}))
    assert torch.allclose(line.gradient, one_step(whole, query, key, POOL)[0], rtol=0, atol=1e-12)


def test_learning_rates():
    main_server = server(config())
    rates = [main_server.begin_epoch(epoch) for epoch in range(5)]
    assert rates == pytest.approx([0.06 * (1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)])
    assert main_server.optimiser.param_groups[0]["lr"] == rates[-1]
    multi = server(config(server={"schedule": "multi_step"}))
    assert [multi.begin_epoch(e) for e in range(5)] == pytest.approx([0.06, 0.06, 0.06, 0.006, 0.0006])


def test_step_changes_no_input():
    query, key = smashed(0, config())
    kept = query.clone(), key.clone()
    one_step(server(config()), query, key, POOL)
    assert torch.equal(query, kept[0])
    assert torch.equal(key, kept[1])
    assert not query.requires_grad
