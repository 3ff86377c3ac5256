"""The options of a pass, and the checked plan that is made from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from onnxlens.runtime._activations.slices import Slice, positions_of
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._graphs.names import POSITIONS, ROWS, feed_input, join_input
from onnxlens.runtime._graphs.request import Logits, Request
from onnxlens.runtime._interventions.edits import Edits
from onnxlens.runtime._interventions.functions import ForwardHooks, Functions
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._running.joins import rows_present
from onnxlens.runtime._running.kv_cache import KVCache
from onnxlens.runtime._running.token_ids import check_ids
from onnxlens.runtime.errors import ContextLengthError, InputError

__all__ = ["PassKeywords", "PassOptions", "Plan", "ReadKeywords", "Text", "Touched", "check_text", "make_plan"]


@dataclass(frozen=True, eq=False)
class PassOptions:
    """What a pass computes besides running token ids through the model.

    Attributes:
        names_filter: hook points to read: names or globs, or a function of the name. None reads none.
        logits: at `all` positions, or at the `last` only, which is faster, or `none`.
        kv_cache: what an earlier pass returned; the ids continue from there.
        cache_rows: which row of the cache each row of the ids continues, [B]; None for the same ones. One row may be
            continued several times, or not at all.
        interventions: changes to make inside the graph.
        fwd_hooks: pairs of a hook point (name, glob or predicate) and a function of the activation and the hook, called
            when the pass reaches it, after the interventions at that point; see `Lens.run_with_hooks`.
        stop_at_layer: the block before which the pass ends, without logits; negative ones count from the end. What
            comes later is not computed.
        pos_slice: the positions to read; None for all. For scores and patterns, those of the queries. Where texts are
            padded, they must count from the end, so that they are the same in each text.
        keep_cache: whether the KV cache is wanted.
        feeds: values of hook points, [B, ...], to use instead of computing them. Nothing that only they need is
            computed.
        joins: rows that only begin at some block: their residual streams, by `blocks.N.hook_resid_pre`, [rows, P, D]
            each, perhaps none. They are the last rows of the ids, in the order of computation, and those before, for
            which `feeds` may be given, the first. For many changed runs of one text, which differ from some block on;
            such a pass returns logits only.
    """

    names_filter: NamesFilter | None = None
    logits: Logits = "all"
    kv_cache: KVCache | None = None
    cache_rows: npt.ArrayLike | None = None
    interventions: Iterable[Intervention] | Intervention | Edits | None = ()
    fwd_hooks: ForwardHooks = ()
    stop_at_layer: int | None = None
    pos_slice: Slice = None
    keep_cache: bool = True
    feeds: Mapping[str, np.ndarray] | None = None
    joins: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.logits not in ("all", "last", "none"):
            raise InputError(f"logits must be 'all', 'last' or 'none', not {self.logits!r}.")


class ReadKeywords(TypedDict, total=False):
    """`PassOptions` as keyword arguments, without changes; each may be left out."""

    names_filter: NamesFilter | None
    logits: Logits
    kv_cache: KVCache | None
    cache_rows: npt.ArrayLike | None
    stop_at_layer: int | None
    pos_slice: Slice
    keep_cache: bool
    feeds: Mapping[str, np.ndarray] | None
    joins: Mapping[str, np.ndarray] | None


class PassKeywords(ReadKeywords, total=False):
    """`PassOptions` as keyword arguments; each may be left out."""

    interventions: Iterable[Intervention] | Intervention | Edits | None
    fwd_hooks: ForwardHooks


@dataclass(frozen=True, eq=False)
class Text:
    """Token ids that were checked, and what they continue.

    Attributes:
        ids: [B, P] int64.
        mask: [B, T] int64 over past and new positions, 0 where one is padding.
        position_ids: of the new positions, [B, P] int64.
        past: the KV cache, which may be empty.
        rows: which row of the cache each row continues, [B] int64; None for the same ones.
    """

    ids: np.ndarray
    mask: np.ndarray
    position_ids: np.ndarray
    past: KVCache
    rows: np.ndarray | None

    @property
    def new_mask(self) -> np.ndarray:
        """The mask of the new positions, [B, P]."""
        return self.mask[:, len(self.past) :]


@dataclass(frozen=True, eq=False)
class Touched:
    """What a pass reads and changes, by hook point.

    Attributes:
        asked: what is read because it was asked for.
        residual: where a pass that stops early ends; None for a whole pass.
        edits: what is changed inside the graph.
        functions: what is called.
    """

    asked: tuple[str, ...]
    residual: str | None
    edits: Edits
    functions: Functions


@dataclass(frozen=True)
class Plan:
    """A checked pass that has not been run yet.

    Attributes:
        request: what is compiled for it.
        shapes: shape of each result, by name.
        inputs: inputs of the graph, without the KV cache.
        past: the KV cache.
        edits: what is changed inside the graph.
        functions: what is called at hook points.
        reads: the hook points that were asked for.
        residual: the hook point with which a pass ends that stops early; None for a whole pass.
    """

    request: Request
    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, np.ndarray]
    past: KVCache
    edits: Edits
    functions: Functions
    reads: tuple[str, ...]
    residual: str | None

    @property
    def is_divisible(self) -> bool:
        """Whether it can be computed in pieces, one after the other on the cache, since nothing is read or changed."""
        request = self.request
        touched = (request.reads, request.edits, request.calls, request.feeds, request.joins)
        return not any(touched) and request.logits != "all" and self.residual is None

    @property
    def positions(self) -> list[int] | None:
        """The positions that are read; None for all."""
        return self.inputs[POSITIONS].tolist() if POSITIONS in self.inputs else None

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes of each result."""
        return {name: 4 * math.prod(shape) for name, shape in self.shapes.items()}


def check_text(
    input_ids: npt.ArrayLike, attention_mask: npt.ArrayLike | None, options: PassOptions, config: ModelConfig
) -> Text:
    """Checks that ids, mask and cache fit together and the model.

    Args:
        input_ids: token ids, [B, P] or [P] for one row.
        attention_mask: [B, P], 0 where a token is padding; None for no padding.
        options: the pass's.
        config: the model's shape.

    Raises:
        InputError: they do not.
        ContextLengthError: more positions than the model has.
    """
    ids = check_ids(input_ids, config.d_vocab)
    past = options.kv_cache if options.kv_cache is not None else KVCache.empty(config, len(ids))
    rows = None if options.cache_rows is None else _check_rows(options.cache_rows, past)
    mask = _check_mask(attention_mask, ids, past, rows, config)
    position_ids = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, len(past) :]
    needed = int(position_ids.max()) + 1
    if needed > config.n_ctx:
        raise ContextLengthError(
            f"The text is {needed} tokens long, and this model has {config.n_ctx} positions; shorten it."
        )
    if options.logits == "last" and not mask[:, -1].all():
        row = int(np.argmin(mask[:, -1]))
        raise InputError(f"Row {row} ends with padding, so it has no logits at the last position; pad on the left.")
    return Text(ids, mask, position_ids, past, rows)


def make_plan(
    text: Text, touched: Touched, options: PassOptions, points: Sequence[HookPoint], config: ModelConfig
) -> Plan:
    """Turns what was checked into a request, its inputs, and the shapes of its results.

    Args:
        text: the token ids.
        touched: what is read and changed.
        options: the pass's.
        points: the model's hook points, in the order of computation.
        config: the model's shape.

    Raises:
        InputError: `pos_slice`, `feeds` or `joins` do not fit the text, or each other.
    """
    feeds, joins = options.feeds or {}, options.joins or {}
    names = [point.name for point in points]
    inputs = {"input_ids": text.ids, "attention_mask": text.mask, "position_ids": text.position_ids}
    inputs |= {feed_input(name): value for name, value in feeds.items()}
    rows_of_cache = text.rows
    present = None
    (rows, new), total = text.ids.shape, text.mask.shape[1]
    if joins:
        if touched.asked or touched.functions or options.keep_cache or touched.residual:
            raise InputError("A pass that rows join gives logits only: nothing can be read, called or kept.")
        present = rows_present(joins, names, text.mask, new, config)
        begin = present[names[0]]
        inputs |= {
            "input_ids": text.ids[:begin],
            "position_ids": text.position_ids[:begin],
            "attention_mask": text.mask[:1],
        }
        inputs |= {join_input(name): stream for name, stream in joins.items()}
        rows_of_cache = np.arange(rows) if rows_of_cache is None else rows_of_cache
    positions = positions_of(options.pos_slice, text.new_mask)
    if positions is not None:
        inputs[POSITIONS] = positions
    if rows_of_cache is not None:
        inputs[ROWS] = rows_of_cache
    inputs |= touched.edits.inputs(len(text.past), total, present)

    wanted = {*touched.asked, touched.residual}
    reads = tuple(name for name in names if name in wanted)
    request = Request(
        reads=reads,
        logits=options.logits if touched.residual is None else "none",
        edits=touched.edits.plan,
        calls=tuple(name for name in names if name in touched.functions),
        feeds=tuple(name for name in names if name in feeds),
        joins=tuple(name for name in names if name in joins),
        some_positions=positions is not None and bool(reads),
        some_rows=rows_of_cache is not None,
        keys_and_values=options.keep_cache and touched.residual is None,
    )

    at = {"all": new, "last": 1, "none": 0}[request.logits]
    shapes: dict[str, tuple[int, ...]] = {"logits": (rows, at, config.d_vocab)}
    for point in points:
        if point.name in wanted:
            shape = point.shape(config, rows, new, len(text.past))
            axis = point.position_axis
            shapes[point.name] = shape if positions is None else (*shape[:axis], len(positions), *shape[axis + 1 :])
    return Plan(request, shapes, inputs, text.past, touched.edits, touched.functions, touched.asked, touched.residual)


def _check_mask(
    attention_mask: npt.ArrayLike | None, ids: np.ndarray, past: KVCache, rows: np.ndarray | None, config: ModelConfig
) -> np.ndarray:
    """The mask over past and new positions, [B, T] int64."""
    if not past.fits(config):
        raise InputError("The cache is not one of this model: its layers, heads or widths are others.")
    past_mask = past.attention_mask if rows is None else past.attention_mask[rows]
    if len(past_mask) != len(ids):
        what = "The cache has" if rows is None else "cache_rows names"
        raise InputError(f"{what} {len(past_mask)} rows and input_ids has {len(ids)}.")
    new = np.ones_like(ids) if attention_mask is None else _array(attention_mask, "attention_mask")
    if new.shape != ids.shape:
        raise InputError(f"attention_mask has shape {list(new.shape)}, expected that of input_ids: {list(ids.shape)}.")
    if not np.isin(new, (0, 1)).all():
        raise InputError("attention_mask must hold 0 and 1 only.")
    return np.concatenate([past_mask, new.astype(np.int64)], axis=1)


def _check_rows(cache_rows: npt.ArrayLike, past: KVCache) -> np.ndarray:
    """The rows of a cache that a pass continues, [B] int64."""
    rows = _array(cache_rows, "cache_rows")
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or not ((rows >= 0) & (rows < past.batch)).all():
        raise InputError(f"cache_rows must be rows of the cache, 0 to {past.batch - 1}, not {cache_rows!r}.")
    return rows.astype(np.int64)


def _array(values: npt.ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"The rows of {name} have different lengths; pad shorter ones on the left.") from error
