"""A cache for eyes: as HTML in a notebook, and an activation as a pandas table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.runtime.errors import InputError
from onnxlens.runtime.shorthand import Key, axes_of

if TYPE_CHECKING:
    from onnxlens.runtime.activations import ActivationCache

__all__ = ["dataframe", "html"]

_MOST_TOKENS = 40


def html(cache: ActivationCache) -> str:
    """What was read, with shapes and sizes, as an HTML table without styles or scripts."""
    from rich.filesize import decimal

    rows = []
    for name, value in cache.items():
        axes = axes_of(name)
        if axes is not None and not cache.has_batch_dim:
            axes = axes[1:]
        shape = ", ".join(
            f"{axis} {size}" if axis else str(size)
            for axis, size in zip(axes or ("",) * value.ndim, value.shape, strict=False)
        )
        cells = (name, shape.replace("_", " "), str(value.dtype), decimal(value.nbytes))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    batch, length = cache.tokens.shape
    facts = [
        f"{'folded view of ' if cache.is_folded else ''}{cache.model or 'a model without a name'}",
        f"{len(cache)} hook points, {decimal(cache.nbytes)}",
        f"{batch} {'row' if batch == 1 else 'rows'} of {length} tokens",
    ]
    if cache.positions is not None:
        facts.append(f"read at positions {', '.join(map(str, cache.positions))}")
    text = escape("; ".join(facts))
    if cache.str_tokens is not None:
        shown = "".join(f"<code>{escape(repr(token))}</code> " for token in cache.str_tokens[:_MOST_TOKENS])
        text += f"<br>{shown}{'…' if len(cache.str_tokens) > _MOST_TOKENS else ''}"
    heading = "".join(f"<th>{title}</th>" for title in ("hook point", "shape", "type", "size"))
    return (
        f"<div><b>ActivationCache</b> {text}"
        f"<table><thead><tr>{heading}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def dataframe(cache: ActivationCache, key: Key) -> Any:
    """One activation as a pandas DataFrame; see `ActivationCache.to_dataframe`."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise InputError("to_dataframe needs pandas, which is not installed: pip install pandas.") from error
    name, value = cache.full_name(key), cache[key]
    axes = axes_of(name) or tuple(f"axis_{number}" for number in range(value.ndim))
    if len(axes) == value.ndim + 1 and axes[0] == "batch":
        axes = axes[1:]
    # One row for each number: the entry of every axis, and the value.
    entries = dict(zip(axes, (index.reshape(-1) for index in np.indices(value.shape)), strict=True))
    entries.pop("one", None)
    columns: dict[str, np.ndarray] = {}
    for axis, entry in entries.items():
        if axis in ("pos", "query_pos") and cache.positions is not None:
            entry = np.asarray(cache.positions)[entry]
        columns[axis] = entry
        if axis in ("pos", "query_pos", "key_pos") and cache.str_tokens is not None and len(cache.tokens) == 1:
            columns[axis.replace("pos", "token")] = np.asarray(cache.str_tokens, object)[entry]
    return pandas.DataFrame({**columns, "value": value.reshape(-1)})
