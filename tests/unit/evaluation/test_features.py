import pytest
import torch

from mocosfl_mpi.evaluation.features import extract


def _images(n):
    return torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def _scale(chunk):
    return chunk.float() / 255.0


@pytest.mark.parametrize("n", [1, 4, 5, 8, 11])
def test_each_row_is_the_feature_of_its_image(n):
    images = _images(n)
    features = extract(lambda x: x.mean(dim=(2, 3)), images, _scale, chunk=4)
    assert torch.allclose(features, _scale(images).mean(dim=(2, 3)))


def test_the_encoder_always_sees_full_chunks_and_no_gradient():
    rows, grads = [], []
    layer = torch.nn.Linear(48, 2)

    def encoder(x):
        rows.append(len(x))
        out = layer(x.flatten(1))
        grads.append(out.requires_grad)
        return out

    features = extract(encoder, _images(10), _scale, chunk=4)
    assert rows == [4, 4, 4]
    assert grads == [False] * 3
    assert not features.requires_grad


def test_features_do_not_depend_on_the_images_that_follow():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Flatten(), torch.nn.Linear(64, 32))
    images = _images(23)
    everything = extract(net, images, _scale, chunk=8)
    for n in (1, 7, 9, 16):
        assert torch.equal(extract(net, images[:n], _scale, chunk=8), everything[:n])


def test_a_tuple_of_features_comes_back_as_a_tuple():
    pooled, projected = extract(lambda x: (x.mean(dim=(2, 3)), x.flatten(1)[:, :5]), _images(6), _scale, chunk=4)
    assert pooled.shape == (6, 3)
    assert projected.shape == (6, 5)


@pytest.mark.parametrize("bad", [_images(3).float(), _images(3)[0], _images(3)[:0]])
def test_what_is_no_uint8_image_set_is_refused(bad):
    with pytest.raises(ValueError, match="uint8"):
        extract(lambda x: x.flatten(1), bad, _scale)


def test_an_encoder_that_loses_rows_is_refused():
    with pytest.raises(ValueError, match="expected \\[2, d\\]"):
        extract(lambda x: x.flatten(1)[:1], _images(3), _scale, chunk=2)
