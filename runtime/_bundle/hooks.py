"""Hook points: the named intermediate values of a model.

Names, shapes and meanings are TransformerLens's (https://transformerlensorg.github.io/TransformerLens), on the raw
weights: nothing is folded or centred. Which of them a model has, its bundle says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["HeadProduct", "HookPoint", "sizes"]

_OF_TEXT = ("batch", "pos", "query_pos", "key_pos")


@dataclass(frozen=True)
class HeadProduct:
    """How a hook point that the graph does not output is computed: head by head, as activation @ weight.

    Attributes:
        activation: the hook point with the activation, [B, P, H, d].
        weight: the weight, [H, d, D].
        added_to: the hook point that the products of all heads are added up in, so that it changes with them.
    """

    activation: str
    weight: str
    added_to: str


@dataclass(frozen=True)
class HookPoint:
    """A named intermediate value.

    Attributes:
        name: TransformerLens's name.
        axes: what each axis counts: `batch`, `pos`, `query_pos` (new positions), `key_pos` (past and new), `head`,
            `kv_head` (heads for keys and values, where there are fewer of them), `d_model`, `d_head`, `d_mlp`, or
            `one`.
        meaning: what the value is, in a few words.
        product: how it is computed where a request names it; None for an output of the bundle's graph.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str
    product: HeadProduct | None = None

    @property
    def on_request(self) -> bool:
        """Whether the bundle's graph does not output the value; it is then computed where a request names it."""
        return self.product is not None

    @property
    def position_axis(self) -> int:
        """Which axis counts the positions that are computed; for scores and patterns, those of the queries."""
        return self.axes.index("pos" if "pos" in self.axes else "query_pos")

    def shape(self, config: ModelConfig, batch: int, new: int, past: int = 0) -> tuple[int, ...]:
        """The value's shape in a pass over `new` positions after `past` cached ones."""
        size = sizes(config) | {"batch": batch, "pos": new, "query_pos": new, "key_pos": past + new}
        return tuple(size[axis] for axis in self.axes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the entries of a manifest."""
        entries: dict[str, Any] = {"name": self.name, "axes": list(self.axes), "meaning": self.meaning}
        if self.product is not None:
            entries["product"] = vars(self.product).copy()
        return entries

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], config: ModelConfig) -> HookPoint:
        """Reads entries that `to_dict` returned.

        Raises:
            TypeError, ValueError: they are of another form, or name unknown axes.
        """
        values = {"product": None, **entries}
        if isinstance(values["product"], dict):
            values["product"] = HeadProduct(**values["product"])
        point = cls(**{**values, "axes": tuple(values["axes"])})
        texts = [point.name, point.meaning, *(vars(point.product).values() if point.product is not None else ())]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("its entries must be texts")
        unknown = [axis for axis in point.axes if axis not in (*_OF_TEXT, *sizes(config))]
        if unknown or not {"pos", "query_pos"}.intersection(point.axes) or point.axes[0] != "batch":
            raise ValueError(f"its axes are {', '.join(map(repr, point.axes))}")
        return point


def sizes(config: ModelConfig) -> dict[str, int]:
    """How long each axis is that does not depend on the text."""
    return {
        "head": config.n_heads,
        "kv_head": config.key_value_heads,
        "d_model": config.d_model,
        "d_head": config.d_head,
        "d_mlp": config.d_mlp,
        "d_vocab": config.d_vocab,
        "n_ctx": config.n_ctx,
        "one": 1,
    }
