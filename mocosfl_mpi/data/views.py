"""Two augmented views of every image, all images of a block at once.

The pipelines are those of MoCo v1 (He et al., arXiv:1911.05722) and v2 (Chen et al., arXiv:2003.04297) as
MocoSFL runs them on small images. Every parameter of a view comes from numbers of its own, so a view does not
depend on which others are made with it.

Against the exact views (`data.views_exact`, same draws) a pixel differs by 1.2/255 in the mean on CIFAR-10, by
at most 16/255 where a saturated colour falls between two of Pillow's 256 hues. Nearly all of the mean is one
sign: Pillow cuts off fractions in each of the three blends and so is 1.3/255 darker after colour jitter. Crops
agree to 1/255, blurs to 3/255 (Pillow rounds between passes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.config import Views
from mocosfl_mpi.data.colour import blend, luma, shift_hue
from mocosfl_mpi.data.normalise import denormalise, evaluation_images, normalise, per_channel
from mocosfl_mpi.data.resample import apply_matrices, blur_matrices, crop_matrices
from mocosfl_mpi.data.view_draws import BLEND_ORDERS, DRAWS, ViewParameters, view_parameters
from mocosfl_mpi.errors import BadInput

__all__ = ["DRAWS", "ViewMaker", "denormalise", "evaluation_images", "normalise"]

_CPU_CHUNK, _GPU_CHUNK = 400_000, 50_000_000
"""Values per channel stack computed at once: on a CPU, what stays in a core's cache."""
_UNJITTERED = 4


class ViewMaker:
    """Makes the query and key view of uint8 images, as float tensors or (`views.exact`) with PIL.

    ``size`` is the side of a view in pixels; ``mean`` and ``std`` are per channel on the scale 0 to 1;
    ``dtype`` is that of arithmetic and result.
    """

    DRAWS = DRAWS

    def __init__(
        self, config: Views, size: int, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
    ) -> None:
        if min(std) <= 0:
            raise BadInput(f"std = {tuple(std)}: normalisation divides by it, so every value must be above 0")
        self.config = config
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.dtype = dtype

    def __call__(self, pixels: Tensor, draws: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Query and key ``[n, B, C, size, size]`` of uint8 ``pixels`` ``[n, B, C, H, W]``.

        ``draws`` float64 ``[n, B, 2, DRAWS]`` are uniform in [0, 1). The result is on the device of the pixels.
        """
        n, batch, channels, height, width = pixels.shape
        if draws.shape != (n, batch, 2, DRAWS):
            raise ValueError(f"draws of shape {draws.shape} for {n} × {batch} images; expected [n, B, 2, {DRAWS}]")
        images = pixels.reshape(n * batch, channels, height, width)
        flat = np.moveaxis(draws.reshape(n * batch, 2, DRAWS), 1, 0).reshape(2 * n * batch, DRAWS)
        parameters = view_parameters(self.config, flat, height, width)
        if self.config.exact:
            from mocosfl_mpi.data.views_exact import exact_views

            raw = exact_views(images, parameters, self.size, self.config.pipeline)
            result = normalise(raw, self.mean, self.std, self.dtype)
        else:
            result = self._fast(images, parameters)
        query, key = result.view(2, n, batch, channels, self.size, self.size)
        return query, key

    def _fast(self, images: Tensor, parameters: ViewParameters) -> Tensor:
        """Views ``[2·N, C, size, size]`` of ``images`` ``[N, C, H, W]``: N queries, then N keys."""
        count, channels = images.shape[:2]
        result = torch.empty((2 * count, channels, self.size, self.size), dtype=self.dtype, device=images.device)
        values = channels * max(self.size**2, images.shape[2] * images.shape[3])
        chunk = max(1, (_GPU_CHUNK if images.is_cuda else _CPU_CHUNK) // values)
        for start in range(0, 2 * count, chunk):
            which = np.arange(start, min(start + chunk, 2 * count))
            # Views whose hue is shifted at the same moment lie side by side, the unjittered ones last.
            slot = np.where(parameters.jitter[which], parameters.hue_slot[which], _UNJITTERED)
            which = which[np.argsort(slot, kind="stable")]
            index = torch.from_numpy(which).to(images.device)
            planes = self._crop(images.index_select(0, index % count), parameters, which)
            _jitter(planes, parameters, which)
            _grey(planes, parameters, which)
            _blur(planes, parameters, which)
            planes.sub_(per_channel(self.mean, planes)[:, None]).div_(per_channel(self.std, planes)[:, None])
            result.index_copy_(0, index, planes.transpose(0, 1))
        return result

    def _crop(self, images: Tensor, p: ViewParameters, which: npt.NDArray[np.int64]) -> Tensor:
        """Cropped, resized and flipped planes ``[C, m, size, size]``, 0 to 1, of uint8 ``[m, C, H, W]``.

        The flip comes last in mocov2; it is made here because it commutes with all that follows.
        """
        height, width = images.shape[2:]
        planes = images.transpose(0, 1).to(self.dtype, memory_format=torch.contiguous_format)
        top, left, tall, wide = (_floats(a[which], planes) for a in (p.top, p.left, p.height, p.width))
        mirror = torch.from_numpy(p.flip[which]).to(images.device)
        rows = crop_matrices(top, tall, height, self.size).div_(255.0)
        return apply_matrices(rows, crop_matrices(left, wide, width, self.size, mirror), planes)


def _jitter(planes: Tensor, p: ViewParameters, which: npt.NDArray[np.int64]) -> None:
    """Brightness, contrast, saturation and hue in each view's own order; views are sorted by hue slot."""
    jittered = int(p.jitter[which].sum())
    if not jittered:
        return
    own = which[:jittered]
    bounds = np.searchsorted(p.hue_slot[own], np.arange(5))
    kinds = np.array(BLEND_ORDERS)[p.blend_order[own]]
    factors = _floats(np.take_along_axis(p.factors[own], kinds, axis=1).T.copy(), planes)
    codes = torch.from_numpy(kinds.T.copy()).to(planes.device)
    turns = _floats(p.hue[own], planes)
    for slot in range(4):
        begin, end = bounds[slot], bounds[slot + 1]
        if len(planes) == 3 and end > begin:
            shift_hue(planes[:, begin:end], turns[begin:end])
        if slot < 3:
            blend(planes[:, :jittered], factors[slot], codes[slot])


def _grey(planes: Tensor, p: ViewParameters, which: npt.NDArray[np.int64]) -> None:
    if len(planes) == 3 and p.grey[which].any():
        chosen = torch.from_numpy(np.flatnonzero(p.grey[which])).to(planes.device)
        planes[:, chosen] = luma(planes.index_select(1, chosen))


def _blur(planes: Tensor, p: ViewParameters, which: npt.NDArray[np.int64]) -> None:
    if p.blur[which].any():
        chosen = np.flatnonzero(p.blur[which])
        index = torch.from_numpy(chosen).to(planes.device)
        matrices = blur_matrices(_floats(p.radius[which[chosen]], planes), planes.shape[-1])
        planes.index_copy_(1, index, apply_matrices(matrices, matrices, planes.index_select(1, index)))


def _floats(values: npt.NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype)
