import numpy as np
import pytest
import torch

from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.linear_probe import linear_probe
from mocosfl_mpi.evaluation.per_client import client_top1, personalised_top1


def blobs(n, spread, seed, classes=4, d=6):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return Labelled(3.0 * torch.eye(classes, d)[labels] + spread * torch.randn(n, d, generator=g), labels)


def test_a_client_is_judged_on_the_test_images_of_its_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    hits = torch.tensor([True, True, True, False, False, True, True])
    owned = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool()
    found = client_top1(hits, labels, owned)
    assert found[:4].tolist() == pytest.approx([75.0, 100 * 4 / 6, 100 * 2 / 3, 100 * 5 / 7])
    assert np.isnan(found[4]), "no test image of its class"


def test_a_personal_probe_is_the_linear_probe_on_the_clients_own_images_and_classes():
    train, test = blobs(200, 2.0, 0), blobs(200, 2.0, 1)
    classes = train.labels.numpy()
    parts = [
        np.flatnonzero((classes == 1) | (classes == 3))[:40],
        np.flatnonzero(classes == 2)[:20],
        np.arange(80),
    ]
    found = personalised_top1(train, test, None, parts, (1e-3,), 200)
    own, asked = parts[0], torch.isin(test.labels, torch.tensor([1, 3]))
    expected = linear_probe(
        train.features[own], train.labels[own] // 2, test.features[asked], test.labels[asked] // 2, 2, (1e-3,), 200
    )
    assert found[0] == expected.test_top1
    assert np.isnan(found[1]), "one class leaves nothing to tell apart"
    assert found[2] == linear_probe(train[0][:80], train[1][:80], *test, 4, (1e-3,), 200).test_top1
    assert len({*found[[0, 2]], 100.0}) == 3


def test_separable_classes_and_shuffled_labels():
    train, test = blobs(200, 0.1, 0), blobs(400, 0.1, 1)
    parts = [np.arange(40), np.arange(40, 80)]
    assert personalised_top1(train, test, None, parts, (1e-3,), 200).tolist() == [100.0, 100.0]
    shuffled = Labelled(test.features, test.labels[torch.randperm(400, generator=torch.Generator().manual_seed(3))])
    found = personalised_top1(train, shuffled, None, parts, (1e-3,), 200)
    assert ((found > 15.0) & (found < 35.0)).all()


def test_the_penalty_is_chosen_on_held_out_images_of_the_clients_classes():
    train, test, held_out = blobs(40, 2.5, 0, d=30), blobs(300, 2.5, 1, d=30), blobs(400, 2.5, 2, d=30)
    penalties = (1e-6, 1e-1, 100.0)
    alone = {p: personalised_top1(train, test, None, [np.arange(40)], (p,), 300)[0] for p in penalties}
    scores = {p: personalised_top1(train, held_out, None, [np.arange(40)], (p,), 300)[0] for p in penalties}
    best = max(sorted(penalties, reverse=True), key=scores.__getitem__)
    assert len(set(alone.values())) > 1
    assert personalised_top1(train, test, held_out, [np.arange(40)], penalties, 300)[0] == alone[best]
    none_of_them = Labelled(held_out.features[:0], held_out.labels[:0])
    assert personalised_top1(train, test, none_of_them, [np.arange(40)], penalties, 300)[0] == alone[100.0]
