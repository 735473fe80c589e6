"""Sample pictures: originals above what an attack made of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SAMPLES = 8
_SIDE = 64  # pixels of a sample on the page, at least
_MARGIN, _GAP, _HEAD = 92, 4, 20


def png(truth: Tensor, guess: Tensor, title: str) -> bytes:
    """A PNG of the first images: pixels ``[n, C, H, W]`` in [0, 1], truth above guess, labelled."""
    count = min(SAMPLES, len(truth))
    side = truth.shape[-1]
    scale = max(1, -(-_SIDE // side))
    step = side * scale + _GAP
    sheet = Image.new("RGB", (_MARGIN + count * step, _HEAD + 2 * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    draw.text((_GAP, _GAP), title.encode("latin-1", "replace").decode("latin-1"), fill="black", font=font)
    for row, (label, images) in enumerate((("original", truth), ("reconstruction", guess))):
        top = _HEAD + row * step
        draw.text((_GAP, top + step // 2 - 6), label, fill="black", font=font)
        for column, image in enumerate(images[:count]):
            sheet.paste(_picture(image, scale), (_MARGIN + column * step, top))
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return data.getvalue()


def _picture(image: Tensor, scale: int) -> Image.Image:
    pixels = (image.clamp(0.0, 1.0) * 255.0).round().byte().permute(1, 2, 0).numpy()
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    found = Image.fromarray(colours)
    return found.resize((found.width * scale, found.height * scale), Image.Resampling.NEAREST)
