"""Weights as attributes, as a PyTorch model has them: `lens.blocks[3].attn.W_Q`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxlens.runtime.errors import suggestion

__all__ = ["Module"]


class Module:
    """One part of a model, whose weights and parts are attributes.

    Args:
        weights: all weights by TransformerLens's names.
        name: the part's name, such as `blocks.3.attn`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], name: str) -> None:
        self._weights, self._name = weights, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # copy and pickle ask for these
            raise AttributeError(attribute)
        full = f"{self._name}.{attribute}"
        if full in self._weights:
            return self._weights[full]
        if any(name.startswith(f"{full}.") for name in self._weights):
            return Module(self._weights, full)
        if attribute.startswith("hook_"):
            raise AttributeError(
                f"Hook points are named by text: read this one with lens.run_with_cache(text, names_filter={full!r})."
            )
        known = dir(self)
        raise AttributeError(
            f"{self._name} has no {attribute!r}.{suggestion(attribute[:100], known)} It has {', '.join(known)}."
        )

    def __dir__(self) -> list[str]:
        inside = [name.removeprefix(f"{self._name}.") for name in self._weights if name.startswith(f"{self._name}.")]
        return list(dict.fromkeys(name.split(".")[0] for name in inside))

    def __repr__(self) -> str:
        return f"Module({self._name!r}: {', '.join(dir(self))})"
