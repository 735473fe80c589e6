import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.split.bottleneck import Bottleneck
from mocosfl_mpi.split.layers import PlainConv2d, PlainConvTranspose2d


@given(
    kernel=st.none() | st.integers(0, 9),
    channels=st.integers(0, 40),
    stride=st.none() | st.integers(0, 20),
    tail=st.sampled_from(["", "noRELU", "norelu", "noReLU"]),
)
def test_grammar(kernel, channels, stride, tail):
    option = (f"K{kernel}" if kernel is not None else "") + f"C{channels}"
    option += (f"S{stride}" if stride is not None else "") + tail
    sound = (
        channels >= 1
        and stride in (None, 1, 2, 4, 8, 16)
        and (kernel is None or (kernel % 2 == 1 and stride in (None, 1)))
    )
    if not sound:
        with pytest.raises(BadInput, match=re.escape(repr(option))):
            Bottleneck.parse(option)
        return
    assert Bottleneck.parse(option) == Bottleneck(channels, stride or 1, kernel or 3, relu=not tail)


@given(st.text(alphabet="KCSnoRELUrelu0123456789 -", max_size=12) | st.text(max_size=6))
def test_any_text_parses_or_is_refused(option):
    try:
        parsed = Bottleneck.parse(option)
    except BadInput as error:
        if repr(option) not in str(error):
            raise
        return
    assert parsed.channels >= 1
    assert re.fullmatch(r"(K\d+)?C\d+(S\d+)?(no(RELU|relu|ReLU))?", option)


@pytest.mark.parametrize("option", ["", "4", "C", "S2", "C4S3", "C4S2x", "c4", "C4 S2", "K2C4", "K3C4S2", "C4S2NORELU"])
def test_published_fallback_is_an_error_here(option):
    with pytest.raises(BadInput):
        Bottleneck.parse(option)


@given(channels=st.integers(1, 6), halvings=st.integers(0, 3), inputs=st.integers(1, 6), relu=st.booleans())
def test_decoder_mirrors_encoder(channels, halvings, inputs, relu):
    pair = Bottleneck(channels, 2**halvings, relu=relu)
    images = torch.zeros(1, inputs, 16, 16)
    small = pair.encoder(inputs)(images)
    assert small.shape == (1, channels, 16 // 2**halvings, 16 // 2**halvings)
    assert pair.decoder(inputs)(small).shape == images.shape
    for side in (pair.encoder(inputs), pair.decoder(inputs)):
        kinds = [type(layer) for layer in side]
        assert kinds.count(nn.ReLU) == (max(1, halvings) if relu else 0)
        convolutions = [layer for layer in side if not isinstance(layer, nn.ReLU)]
        assert len(convolutions) == max(1, halvings)
        assert all(layer.bias is not None for layer in convolutions)
        assert {type(layer) for layer in convolutions} <= {PlainConv2d, PlainConvTranspose2d}
