"""The colour scale of a chart: amounts are purple; numbers with a sign are red above 0 and blue below."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxlens.plugins._drawing.labels import printable, tint

__all__ = ["AMOUNT", "CHOSEN", "NATS", "NEGATIVE", "NO_SIGN", "POSITIVE", "PROBABILITY", "SIGNED", "Scale"]

# Colour maps of matplotlib and plotly that colour-blind readers can read.
AMOUNT, SIGNED = "Purples", "RdBu_r"
# The same for bars and lines, and the colour of highlights.
NO_SIGN, POSITIVE, NEGATIVE, CHOSEN = "#6a51a3", "#cb4335", "#2171b5", "#e6a100"

PROBABILITY = (0.0, 1.0)
NATS = (0.0, 10.0)  # of surprisal: a token of probability 1 to one of 1 in 22,000


@dataclass(frozen=True)
class Scale:
    """The numbers at the two ends of the colours.

    Attributes:
        least: the number of one end; below 0 where numbers have a sign.
        most: the number of the other end.
        signs: the meaning of numbers above and below 0, in words; None if there is none.
        is_fixed: whether the ends were given, so that numbers beyond them get the colour of the end.
    """

    least: float
    most: float
    signs: tuple[str, str] | None = None
    is_fixed: bool = False

    @classmethod
    def of(
        cls,
        values: Iterable[np.ndarray],
        *,
        limits: tuple[float, float] | None = None,
        floor: float = 0.0,
        signs: tuple[str, str] | None = None,
    ) -> Scale:
        """The scale of arrays.

        Args:
            values: the arrays; NaN and infinity are ignored.
            limits: the ends; if left out, 0 and the largest number, or a symmetric range around 0 for numbers with a
                sign.
            floor: the least number at the end, so that noise is not as dark as an effect.
            signs: the meaning of numbers above and below 0; then numbers have a sign even if none is below 0.
        """
        named = (printable(signs[0]), printable(signs[1])) if signs else None
        if limits is not None:
            return cls(*limits, named, is_fixed=True)
        finite = np.concatenate([np.zeros(0), *(one[np.isfinite(one)].ravel() for one in values)])
        largest = max(float(np.abs(finite).max(initial=0.0)), floor) or 1.0
        return cls(-largest if signs or (finite < 0).any() else 0.0, largest, named)

    @property
    def is_signed(self) -> bool:
        """Whether numbers may be below 0."""
        return self.least < 0

    @property
    def colours(self) -> str:
        """The name of the colour map."""
        return SIGNED if self.is_signed else AMOUNT

    def share(self, value: float) -> float:
        """The place of a number on the scale, from -1 to 1."""
        end = self.most if value > 0 or not self.is_signed else -self.least
        return max(-1.0, min(1.0, value / end)) if end else 0.0

    def tint(self, value: float) -> str:
        """The colour of a number, as `#rrggbb`."""
        share = self.share(value)
        return tint(share if self.is_signed else max(0.0, share), signed=self.is_signed)

    def legend(self, unit: str) -> str:
        """The unit, and the meaning of the signs."""
        if self.signs is None:
            return unit
        return f"{unit}; + (red) {self.signs[0]}, - (blue) {self.signs[1]}"

    def difference(self, other: Scale) -> Scale:
        """The scale of differences from another chart: a difference is as dark as a number of its size."""
        ends = (self.most - self.least) if self == other and self.is_fixed and not self.is_signed else 0.0
        ends = max(ends, self.most, -self.least, other.most, -other.least)
        return Scale(-ends, ends, ("is larger in the second", "is smaller"), is_fixed=True)

    def written(self, values: np.ndarray) -> np.ndarray:
        """Numbers as short texts of equally many decimals, with a sign if they can be negative; "" for NaN."""
        finite = np.abs(values[np.isfinite(values)])
        largest = max(float(finite.max(initial=0.0)), 1e-9)
        decimals = 3 if largest < 0.1 else min(2, max(0, 2 - math.floor(math.log10(largest))))
        if (self.least, self.most) == PROBABILITY:
            decimals = 2

        def shown(value: float) -> str:
            if not math.isfinite(value):
                return ""
            if not value:
                return "0"
            text = f"{value:{'+' if self.is_signed else ''}.{decimals}f}"
            return text if float(text) else text.lstrip("+-")

        found: np.ndarray = np.vectorize(shown, otypes=[object])(values.astype(np.float64))
        return found
