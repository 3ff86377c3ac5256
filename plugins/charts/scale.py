"""What the colours of a chart stand for: amounts are purple; of numbers with a sign, + is red and - is blue."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxlens.plugins.drawing.labels import printable, tint

__all__ = ["AMOUNT", "CHOSEN", "NATS", "NEGATIVE", "NO_SIGN", "POSITIVE", "PROBABILITY", "SIGNED", "Scale"]

# Maps of colours that matplotlib and plotly know by these names, which the colour-blind can read.
AMOUNT, SIGNED = "Purples", "RdBu_r"
# The same as colours of bars and lines, and what stands out.
NO_SIGN, POSITIVE, NEGATIVE, CHOSEN = "#6a51a3", "#cb4335", "#2171b5", "#e6a100"

PROBABILITY = (0.0, 1.0)
NATS = (0.0, 10.0)  # of surprisal: a token of probability 1 to one of 1 in 22,000


@dataclass(frozen=True)
class Scale:
    """What the two ends of the colours stand for.

    Attributes:
        least: the number of one end; below 0 where numbers have a sign.
        most: the number of the other end.
        signs: what numbers above and below 0 mean, if that can be said in words.
        is_fixed: whether the ends belong to the unit, so that numbers beyond them get the colour of the end.
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
            values: the arrays; what is not finite does not count.
            limits: the ends; if left out, 0 and the largest number, or as much below 0 as above where there is a sign.
            floor: what the end stands for at least, so that noise is not as dark as an effect.
            signs: what numbers above and below 0 mean; then numbers have a sign even if none is below 0.
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
        """The name of the map of colours."""
        return SIGNED if self.is_signed else AMOUNT

    def share(self, value: float) -> float:
        """How far a number is on the way to its end, from -1 to 1."""
        end = self.most if value > 0 or not self.is_signed else -self.least
        return max(-1.0, min(1.0, value / end)) if end else 0.0

    def tint(self, value: float) -> str:
        """The colour of a number, as `#rrggbb`."""
        share = self.share(value)
        return tint(share if self.is_signed else max(0.0, share), signed=self.is_signed)

    def legend(self, unit: str) -> str:
        """The unit, and what the signs mean."""
        if self.signs is None:
            return unit
        return f"{unit}; + (red) {self.signs[0]}, - (blue) {self.signs[1]}"

    def difference(self, other: Scale) -> Scale:
        """The scale of numbers minus those of the other: a difference is as dark as a number of its size."""
        ends = (self.most - self.least) if self == other and self.is_fixed and not self.is_signed else 0.0
        ends = max(ends, self.most, -self.least, other.most, -other.least)
        return Scale(-ends, ends, ("is more in the second", "is less"), is_fixed=True)

    def written(self, values: np.ndarray) -> np.ndarray:
        """Numbers as short texts of as many decimals, with their sign where they may be below 0; "" for no number."""
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
