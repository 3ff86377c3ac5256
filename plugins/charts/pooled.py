"""Images of arrays with more cells than pixels, in which extreme values are never lost."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage

__all__ = ["PooledImage", "pooled", "show"]


def pooled(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Pools an array to a number of rows and columns: each cell is the number furthest from 0 of those it covers.

    Args:
        values: [R, C]; NaN where there is no number, which is kept only if a pooled cell covers nothing else.
        rows: how many rows fit, at least 1.
        columns: how many columns fit, at least 1.
    """
    for axis, most in enumerate((rows, columns)):
        count = values.shape[axis]
        if count > most:
            starts = np.arange(most) * count // most
            high = np.fmax.reduceat(values, starts, axis=axis)
            low = np.fmin.reduceat(values, starts, axis=axis)
            values = np.where(-low > high, low, high)  # [rows, C], then [rows, columns]
    return values


class PooledImage(AxesImage):
    """An image that shows, of cells that share a pixel, the one whose number is furthest from 0.

    matplotlib's `nearest` shows an arbitrary one of them, and its averages hide single cells.
    """

    def draw(self, renderer: Any) -> None:
        """Draws as many cells as there are pixels, whatever the size and resolution."""
        whole = self.get_array()
        if whole is None:
            return
        box, scale = self.get_window_extent(renderer), renderer.get_image_magnification()
        cells = np.ma.filled(whole.astype(np.float64), np.nan)
        self.set_data(pooled(cells, max(1, int(box.height * scale)), max(1, int(box.width * scale))))
        try:
            super().draw(renderer)
        finally:
            self.set_data(whole)

    def can_composite(self) -> bool:
        """False, since drawing several images as one would bypass `draw`."""
        return False


def show(
    axes: Axes,
    values: np.ndarray,
    *,
    colours: Colormap,
    limits: tuple[float, float],
    aspect: Literal["equal", "auto"],
    extent: tuple[float, float, float, float] | None = None,
) -> PooledImage:
    """Shows an array, as `Axes.imshow` does.

    Args:
        axes: where to draw.
        values: [R, C].
        colours: the colour map.
        limits: the numbers at its ends.
        aspect: whether cells are squares, or fill the axes.
        extent: left, right, bottom and top in the axes' numbers; a cell is 1 wide and high if left out.
    """
    image = PooledImage(axes, cmap=colours, norm=Normalize(*limits), interpolation="nearest", origin="upper")
    image.set_data(values)
    image.set_extent(extent or (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5))
    image.set_clip_path(axes.patch)
    axes.add_image(image)
    axes.set_aspect(aspect)
    return image
