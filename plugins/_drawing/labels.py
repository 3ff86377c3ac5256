"""Labels of tokens, and colours of numbers."""

from __future__ import annotations

import math

import numpy as np

from onnxlens.runtime._text.token_text import printable, quoted_token, readable, told_apart, visible

__all__ = ["ink", "printable", "quoted_token", "readable", "short", "thinned", "tint", "told_apart", "visible"]

# From white to a dark colour, so that large numbers stand out; text is white on dark colours.
_LIGHT, _PURPLE, _RED, _BLUE = (np.array(one) for one in ((252, 251, 253), (84, 39, 143), (178, 24, 43), (8, 81, 156)))
_TURNS = 0.55


def short(label: str, most: int) -> str:
    """A label cut to at most `most` characters; if it was longer, the last one is `…`."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def thinned(count: int, most: int) -> range:
    """Which of `count` labels to show where there is room for `most`: every n-th from the first."""
    return range(0, count, max(1, math.ceil(count / most)))


def tint(share: float, *, signed: bool = False) -> str:
    """The colour of a number, as `#rrggbb`.

    Args:
        share: between 0 (nearly white) and 1 (dark purple); if `signed`, between -1 (dark blue) and 1 (dark red).
        signed: whether the scale has two ends, for negative and positive numbers.
    """
    end = _PURPLE if not signed else _RED if share > 0 else _BLUE
    red, green, blue = np.round(_LIGHT + abs(share) * (end - _LIGHT)).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink(ground: str) -> str:
    """Black or white, whichever is legible on a background, `#rrggbb`."""
    red, green, blue = (int(ground[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > _TURNS else "#ffffff"
