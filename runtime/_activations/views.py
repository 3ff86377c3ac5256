"""Results as HTML for notebooks, without styles or scripts, and an activation as a pandas table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.runtime._bundle.shorthand import Key
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["bar", "dataframe", "html", "paragraph", "table", "token_list"]

_MOST_TOKENS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of texts, which are escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(headings, 'th')}</thead><tbody>{body}</tbody></table>"


def token_list(tokens: Sequence[str]) -> str:
    """The first tokens of a text as HTML, each in quotes."""
    shown = "".join(f"<code>{escape(quoted_token(token))}</code> " for token in tokens[:_MOST_TOKENS])
    return f"{shown}…" if len(tokens) > _MOST_TOKENS else shown


def paragraph(prompt: str, text: str) -> str:
    """A text and its continuation as HTML, which keeps their line breaks; the prompt is bold."""
    return f'<pre style="white-space: pre-wrap"><b>{escape(prompt)}</b>{escape(text)}</pre>'


def bar(share: float, width: int = 24) -> str:
    """A bar of block characters that fills its width for a share of 1."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def html(cache: ActivationCache) -> str:
    """What was read, with shapes and sizes, as an HTML table without styles or scripts."""
    from rich.filesize import decimal

    rows = []
    for name, value in cache.items():
        axes = cache.axes(name)
        if axes is not None and not cache.has_batch_dim:
            axes = axes[1:]
        shape = ", ".join(
            f"{axis} {size}" if axis else str(size)
            for axis, size in zip(axes or ("",) * value.ndim, value.shape, strict=False)
        )
        rows.append((name, shape.replace("_", " "), str(value.dtype), decimal(value.nbytes)))
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
        pieces = cache.str_tokens
        if cache.facts is not None and cache.facts.tokenizer is not None and len(cache.tokens) == 1:
            tokenizer = cache.facts.tokenizer()
            pieces = [tokenizer.piece(int(one), text) for one, text in zip(cache.tokens[0], pieces, strict=False)]
        text += f"<br>{token_list(pieces)}"
    return f"<div><b>ActivationCache</b> {text}{table(('hook point', 'shape', 'type', 'size'), rows)}</div>"


def dataframe(cache: ActivationCache, key: Key) -> Any:
    """One activation as a pandas DataFrame; see `ActivationCache.to_dataframe`."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise InputError("to_dataframe needs pandas, which is not installed: pip install pandas.") from error
    name, value = cache.full_name(key), cache[key]
    axes = cache.axes(name) or tuple(f"axis_{number}" for number in range(value.ndim))
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
