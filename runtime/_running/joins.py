"""Rows that join a pass at a later block: many changed runs of one text, each from the block on that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime.errors import InputError

__all__ = ["rows_present"]


def rows_present(
    joins: Mapping[str, np.ndarray], names: Sequence[str], mask: np.ndarray, new: int, config: ModelConfig
) -> dict[str, int]:
    """The number of rows that are present at each hook point.

    Args:
        joins: the residual streams of rows that join, by the hook point, [rows, P, D].
        names: all hook points, in the order of computation.
        mask: [B, T] of all rows.
        new: positions that are computed, P.
        config: the model's shape.

    Raises:
        InputError: rows cannot join there, no row begins the pass, or the rows are padded differently.
    """
    streams = {f"blocks.{layer}.hook_resid_pre" for layer in range(config.n_layers)}
    for name, stream in joins.items():
        if name not in streams or stream.ndim != 3 or stream.shape[1:] != (new, config.d_model):
            raise InputError(
                f"Rows join at blocks.N.hook_resid_pre, with a stream of shape [rows, {new}, {config.d_model}], not at "
                f"{name!r} with {list(stream.shape)}."
            )
    present = len(mask) - sum(map(len, joins.values()))
    if present < 1:
        raise InputError(f"Of {len(mask)} rows, {len(mask) - present} join later; at least one must begin the pass.")
    if (mask != mask[0]).any():
        raise InputError("Rows that join a pass must be padded as all others are.")
    found = {}
    for name in names:
        present += len(joins.get(name, ()))
        found[name] = present
    return found
