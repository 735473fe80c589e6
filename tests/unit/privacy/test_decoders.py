"""The published decoders, by their counts of parameters and multiply-accumulates."""

import pytest
import torch

from mocosfl_mpi.cost.flops import measure
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.privacy.decoders import decoder, norm_for

IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    ("shape", "millions", "macs"),
    [
        ((4, 16, 16), 0.450, 173),
        ((64, 32, 32), 0.521, 532),
        ((128, 16, 16), 0.529, 194),
        ((256, 8, 8), 0.574, 46),
        ((512, 4, 4), 0.776, 25),
    ],
)
def test_residual_decoders_have_the_published_size(shape, millions, macs):
    """Counts of res_normN4C64 measured on the published code."""
    network = decoder("res_normN4C64", shape, IMAGE)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions
    assert measure(network, shape).last.macs / 1e6 == pytest.approx(macs, rel=0.02)


def test_plain_decoder_has_the_published_size():
    assert sum(p.numel() for p in decoder("conv_normN0C16", (4, 16, 16), IMAGE).parameters()) == 5769


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", ["res_normN1C8", "conv_normN2C8"])
@pytest.mark.parametrize(("shape", "image"), [((5, 8, 8), (1, 8, 8)), ((4, 2, 4), (3, 16, 32))])
def test_images_have_their_shape_and_range(name, norm, shape, image):
    torch.manual_seed(0)
    out = decoder(name, shape, image, norm)(torch.randn(2, *shape))
    assert out.shape == (2, *image)
    assert 0 < out.min() < out.max() < 1


@pytest.mark.parametrize(("rows", "norm", "buffers"), [(19, "group", False), (20, "batch", True)])
def test_small_batches_have_no_running_statistics(rows, norm, buffers):
    assert norm_for(rows) == norm
    network = decoder("res_normN0C8", (4, 8, 8), (3, 16, 16), norm)
    names = {name.rpartition(".")[2] for name, _ in network.named_buffers()}
    assert names == ({"running_mean", "running_var"} if buffers else set())


@pytest.mark.parametrize("name", ["res_norm", "res_normN4", "vit_normN4C64", "res_normN4C64x", "res_normN0C2", "C64"])
def test_unknown_names_are_refused(name):
    with pytest.raises(BadInput, match="expected res_normN<N>C<C>"):
        decoder(name, (4, 16, 16), IMAGE)


@pytest.mark.parametrize("image", [(3, 24, 24), (3, 8, 8), (3, 32, 16)])
def test_images_that_no_doubling_reaches_are_refused(image):
    with pytest.raises(BadInput, match=r"power of two times as large as the 16x16 map"):
        decoder("res_normN4C64", (4, 16, 16), image)
