"""Crops, resizing and blur as small matrices, one per view, that act on the rows and columns of an image."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def crop_matrices(start: Tensor, length: Tensor, source: int, size: int, mirror: Tensor | None = None) -> Tensor:
    """Matrices ``[m, size, source]`` that crop ``[start, start + length)`` of an axis and resize it to ``size``.

    They are Pillow's antialiased bilinear filter (``Resample.c``): a triangle of half-width max(1, length/size)
    source pixels around the centre of each output pixel, cut at the edges of the crop and normalised. Where
    ``mirror`` is true the output runs backwards. ``start``, ``length`` ``[m]`` in the floating-point type and on
    the device of the result.
    """
    out = torch.arange(size, dtype=start.dtype, device=start.device)
    scale = (length / size)[:, None]
    if mirror is not None:
        out = torch.where(mirror[:, None], size - 1 - out, out)
    centre = (out + 0.5) * scale - 0.5 + start[:, None]
    pixel = torch.arange(source, dtype=start.dtype, device=start.device)
    weights = pixel - centre[:, :, None]
    weights.abs_().div_(-scale.clamp(min=1.0)[:, :, None]).add_(1.0).clamp_(min=0.0)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weights.mul_(inside[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def apply_matrices(rows: Tensor, columns: Tensor, planes: Tensor) -> Tensor:
    """``rows[m] @ plane[c, m] @ columns[m]ᵀ``: ``[m, S, H]``, ``[m, S, W]``, ``[C, m, H, W]`` to ``[C, m, S, S]``."""
    size = rows.shape[1]
    result = planes.new_empty((*planes.shape[:2], size, size))
    transposed = columns.transpose(1, 2)
    for source, target in zip(planes, result, strict=True):
        torch.bmm(torch.bmm(rows, source), transposed, out=target)
    return result


def blur_matrices(radius: Tensor, size: int) -> Tensor:
    """Matrices ``[m, size, size]`` of Pillow's Gaussian blur with ``radius`` ``[m]``, 0 < radius < 2.4 pixels.

    Pillow passes three box blurs with fractional edges over the image and repeats its outermost pixels
    (``BoxBlur.c``, after Gwosdek et al., *Theoretical Foundations of Gaussian Convolution by Extended Box
    Filtering*, 2011). One pass of radius l + a is (M + a·E) / (2l + 1 + 2a), where M sums the 2l + 1 nearest
    pixels and E the next two, so three passes are a cubic in a whose matrices do not depend on the view.
    """
    variance = radius.double() ** 2 / 3
    whole = torch.floor((torch.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box = whole.long()
    cubic = _cubed_boxes(size).to(radius.device, radius.dtype)
    a = part.to(radius.dtype)[:, None]
    # Horner element by element: a matrix product may round differently with the number of views.
    matrices = cubic[3, box]
    for coefficient in (cubic[2], cubic[1], cubic[0]):
        matrices.mul_(a).add_(coefficient[box])
    total = (2 * (whole + part) + 1) ** 3
    return matrices.div_(total.to(radius.dtype)[:, None]).view(-1, size, size)


@functools.lru_cache(maxsize=8)
def _cubed_boxes(size: int) -> Tensor:
    """Coefficient matrices of 1, a, a², a³ in (M + a·E)³ for l = 0 and 1: float64 ``[4, 2, size · size]``."""
    cubes = []
    for whole in (0, 1):
        m = torch.stack([_shift(size, k) for k in range(-whole, whole + 1)]).sum(dim=0)
        e = _shift(size, -whole - 1) + _shift(size, whole + 1)
        once, twice = m @ m @ e + m @ e @ m + e @ m @ m, m @ e @ e + e @ m @ e + e @ e @ m
        cubes.append(torch.stack([m @ m @ m, once, twice, e @ e @ e]).view(4, size * size))
    return torch.stack(cubes, dim=1)


def _shift(size: int, by: int) -> Tensor:
    """Takes the pixel ``by`` places further on, or the outermost one: ``[size, size]``."""
    index = torch.arange(size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[index, (index + by).clamp(0, size - 1)] = 1.0
    return matrix
