"""The measures together: each only where it is asked for, from streams of its own, and what they say in clear cases."""

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.config import Evaluation
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.data.normalise import evaluation_images
from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.features import extract
from mocosfl_mpi.evaluation.further import Further, Subject
from mocosfl_mpi.evaluation.judge import Judge
from mocosfl_mpi.record.schema import ENTRIES
from mocosfl_mpi.streams import Streams

EVERYTHING = {
    "label_shares": (0.1, 0.5),
    "published_probe": True,
    "fine_tune_share": 0.5,
    "fine_tune_epochs": 2,
    "transfer": "svhn",
    "per_client": True,
}


def pictures(n, seed, channels=1, size=8):
    random = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 4
    pixels = random.integers(0, 100, (n, channels, size, size), dtype=np.uint8)
    half = size // 2
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[:, half * row : half * (row + 1), half * column : half * (column + 1)] += 150
    return Images(pixels, labels)


def prepare(pixels):
    return evaluation_images(pixels, 8, (0.5,), (0.25,), torch.float32)


class Quadrants(nn.Module):
    """The mean of each quadrant, with a weight each that fine-tuning can change."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 4).flatten(1) * self.weight


TRAIN, TEST = pictures(160, 0), pictures(80, 1)
OTHER = Dataset(pictures(120, 2, 3, 12), pictures(40, 3, 3, 12), ("a", "b", "c", "d"), (0.5,) * 3, (0.2,) * 3)
PARTS = [np.arange(0, 160, 4), np.arange(160), np.flatnonzero(TRAIN.labels < 2)]


def further(test=TEST, other=OTHER, **settings):
    evaluation = Evaluation(**settings)
    transfer = other if evaluation.transfer else None
    return Further(evaluation, TRAIN, test, 4, PARTS, transfer, prepare, Streams(1))


def subject(test=TEST):
    encoder = Quadrants()

    def labelled(images):
        return Labelled(extract(encoder, torch.from_numpy(images.pixels), prepare), torch.from_numpy(images.labels))

    return Subject(labelled(TRAIN), labelled(test), None, encoder, Quadrants)


def test_nothing_is_measured_unless_asked():
    assert further().measure(subject()) == {}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "fine_tune_epochs"])
def test_each_setting_brings_its_measures_and_they_are_those_of_the_schema(name):
    found = further(**{name: EVERYTHING[name]}).measure(subject())
    wanted = {
        entry.name.removeprefix("result/")
        for entry in ENTRIES.values()
        if entry.setting == f"evaluation.{name}" and not (name == "published_probe" and entry.dims)
    }
    assert set(found) | {f"{measure}_untrained" for measure in found} == wanted


def test_everything_at_once_brings_every_measure_of_the_schema():
    found = further(**EVERYTHING).measure(subject())
    assert {f"result/{name}" for name in found} == {
        entry.name
        for entry in ENTRIES.values()
        if entry.setting.startswith("evaluation.") and not entry.name.endswith("_untrained")
    }
    assert np.shape(found["few_labels_top1"]) == np.shape(found["published_few_labels_top1"]) == (2,)
    assert np.shape(found["client_knn_top1"]) == np.shape(found["personalised_top1"]) == (len(PARTS),)


def test_separable_features_give_full_marks():
    found = further(**EVERYTHING | {"fine_tune_epochs": 20}).measure(subject())
    assert found["few_labels_top1"] == [100.0, 100.0]
    assert found["fine_tuned_top1"] == 100.0
    assert found["transfer_knn_top1"] == found["transfer_linear_top1"] == 100.0
    assert found["client_knn_top1"].tolist() == [100.0] * 3
    assert np.isnan(found["personalised_top1"][0]), "one class"
    assert found["personalised_top1"][1:].tolist() == [100.0] * 2
    assert found["published_few_labels_top1"][1] == 100.0


def test_shuffled_labels_give_chance():
    random = np.random.default_rng(7)
    test = pictures(1200, 1)
    shuffled = Images(test.pixels, random.permutation(test.labels))
    settings = EVERYTHING | {"transfer": "", "fine_tune_epochs": 10}
    found = further(test=shuffled, **settings).measure(subject(test=shuffled))
    for name, value in found.items():
        values = np.atleast_1d(np.asarray(value, dtype=float))
        if name == "personalised_top1":
            assert np.isnan(values[0])
            assert 20.0 < values[1] < 30.0
            assert 43.0 < values[2] < 57.0, "two classes"
        elif name == "client_knn_top1":
            assert ((values > 18.0) & (values < 32.0)).all()
        else:
            assert ((values > 20.0) & (values < 32.0)).all(), name


def test_transfer_to_grey_and_to_colour_images_of_another_size():
    """A colour image that is grey in truth, and the grey one, look alike to the encoder."""
    grey = Dataset(
        *(Images(part.pixels[:, :1], part.labels) for part in (OTHER.train, OTHER.test)), OTHER.classes, (0.5,), (0.2,)
    )
    colour = Dataset(
        *(Images(part.pixels.repeat(3, axis=1), part.labels) for part in (grey.train, grey.test)),
        OTHER.classes,
        OTHER.mean,
        OTHER.std,
    )
    found = [further(other=data, transfer="svhn").measure(subject()) for data in (grey, colour)]
    assert found[0] == found[1]
    assert found[0]["transfer_linear_top1"] == 100.0


def test_no_global_generator_and_the_same_again():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = further(**EVERYTHING).measure(subject())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = further(**EVERYTHING).measure(subject())
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_a_judge_leaves_the_encoder_as_it_was():
    encoder = Quadrants()
    settings = Evaluation(**EVERYTHING)
    judge = Judge(settings, TRAIN, None, TEST, 4, prepare, further(**EVERYTHING))
    verdict = judge.verdict(lambda images: (encoder(images), encoder(images)), Quadrants)
    assert torch.equal(encoder.weight, torch.ones(4))
    assert verdict.further["few_labels_top1"] == [100.0, 100.0]
