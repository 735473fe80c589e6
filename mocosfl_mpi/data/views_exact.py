"""The same views made one by one with PIL on uint8 images, as torchvision's transforms make them.

The reference for `data.views`, which computes in floating point and does not round after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.data.view_draws import BLEND_ORDERS, ViewParameters


def exact_views(images: Tensor, p: ViewParameters, size: int, pipeline: str) -> Tensor:
    """uint8 views ``[m, C, size, size]`` of uint8 ``images`` ``[N, C, H, W]``; view v shows image v mod N."""
    channels_last = images.permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([_view(channels_last[v % len(images)], p, v, size, pipeline) for v in range(len(p))])
    return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous().to(images.device)


def _view(pixels: np.ndarray[Any, Any], p: ViewParameters, v: int, size: int, pipeline: str) -> Any:
    """View number ``v`` as uint8 ``[size, size, C]``."""
    functional = torchvision().transforms.functional
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    box = (int(p.top[v]), int(p.left[v]), int(p.height[v]), int(p.width[v]))
    image = functional.resized_crop(image, *box, [size, size])
    if pipeline == "mocov1" and p.flip[v]:
        image = functional.hflip(image)
    if p.jitter[v]:
        for adjust, amount in _jitter_steps(functional, p, v):
            image = adjust(image, amount)
    if p.grey[v]:
        image = functional.rgb_to_grayscale(image, num_output_channels=len(image.getbands()))
    if p.blur[v]:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(p.radius[v])))
    if pipeline == "mocov2" and p.flip[v]:
        image = functional.hflip(image)
    return np.asarray(image).reshape(size, size, -1)


def _jitter_steps(functional: Any, p: ViewParameters, v: int) -> list[tuple[Callable[[Any, float], Any], float]]:
    """The four operations of torchvision's ColorJitter and their amounts, in the order of view ``v``."""
    blends = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    steps = [(blends[k], float(p.factors[v, k])) for k in BLEND_ORDERS[p.blend_order[v]]]
    steps.insert(int(p.hue_slot[v]), (functional.adjust_hue, float(p.hue[v])))
    return steps
