"""Many changed runs of one text, as rows of a few batches."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from onnxlens._measuring import Measure
from onnxlens.metrics import AnyMetric
from onnxlens.runtime._activations.slices import sliced
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._interventions.places import axis_size
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.plan import ReadKeywords
from onnxlens.runtime.errors import InputError, suggestion

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = [
    "HEADS",
    "LAYERS",
    "STREAM",
    "Text",
    "Texts",
    "heads_at",
    "hooks",
    "is_several",
    "one_text",
    "one_token",
    "sweep",
]

Text = str | Sequence[int] | np.ndarray
Texts = Sequence[str] | Sequence[Sequence[int]] | Sequence[np.ndarray]

# Tokens in a pass: enough to be efficient, and few enough that the logits of all of them fit into memory.
_MOST = 1024
_MIXED = 512  # where runs start at different positions, and the later ones compute more than they need

_STREAM = "blocks.{}.hook_resid_pre"

# The hook points that analyses read and change, as shorthands: those of heads; those of positions; and both without the
# residual stream.
HEADS = ("q", "k", "v", "z", "result", "pattern")
LAYERS = ("attn_out", "mlp_out", "mlp.pre", "mlp.post")
STREAM = ("resid_pre", "resid_mid", "resid_post", *LAYERS)


def hooks(lens: Lens, hook: str, known: Sequence[str], layers: Sequence[int] | None = None) -> list[str]:
    """The hook points that a shorthand stands for, one for each layer, or for each of some layers.

    Raises:
        InputError: it is unknown, or there is no such layer.
    """
    if hook not in known:
        raise InputError(f"hook must be one of {', '.join(known)}, not {hook!r:.100}.{suggestion(str(hook), known)}")
    count = lens.config.n_layers
    chosen = range(count) if layers is None else list(layers)
    if not chosen or any(not is_integer(layer) or not 0 <= layer < count for layer in chosen):
        raise InputError(f"layers must be some of 0 to {count - 1}, not {layers!r:.100}.")
    part, _, name = hook.rpartition(".")
    inside = "attn." if hook in HEADS else f"{part}." if part else ""
    return [f"blocks.{layer}.{inside}hook_{name}" for layer in chosen]


def heads_at(lens: Lens, name: str) -> int:
    """How many heads a hook point has: fewer for keys and values that several heads share."""
    return axis_size("heads", lens.runner.bundle.description.points[name], lens.config)


def is_several(text: Text | Texts) -> TypeGuard[Texts]:
    """Whether these are several texts, or their token ids, in a list or as an array of rows."""
    if isinstance(text, np.ndarray):
        return text.ndim > 1 and len(text) > 1
    return isinstance(text, Sequence) and not isinstance(text, str) and len(text) > 0 and not is_integer(text[0])


def one_text(lens: Lens, text: Text, what: str) -> np.ndarray:
    """The token ids of one text, [1, P].

    Raises:
        InputError: there are several texts, or the ids cannot be used.
    """
    ids = lens.to_tokens(text)  # type: ignore[arg-type]  # it takes ids, too
    if len(ids) != 1:
        raise InputError(f"{what} takes one text at a time, not {len(ids)}.")
    return ids


def one_token(lens: Lens, token: int | str) -> int:
    """The id of a token, given by its id or text.

    Raises:
        InputError: it is not an id, or not one token.
    """
    if isinstance(token, str):
        return lens.runner.bundle.facts.token(token)
    if not is_integer(token) or not 0 <= token < lens.config.d_vocab:
        raise InputError(f"A token is a text, or an id from 0 to {lens.config.d_vocab - 1}, not {token!r}.")
    return token


def sweep(lens: Lens, ids: np.ndarray, changes: Sequence[Sequence[Intervention]], metric: AnyMetric) -> np.ndarray:
    """Measures a text under each of many changes.

    Blocks and positions before a change are the same without it, so they are computed once: each run joins a pass at
    the block that it changes first, and a pass starts at the first position that is changed in it.

    Args:
        lens: the model.
        ids: the text, [1, P].
        changes: for each run the interventions to make in it, which name no rows; values are those of one row.
        metric: what is measured; see `onnxlens.metrics`.

    Returns:
        The metric of each run, [runs] float64.

    Raises:
        InputError: an intervention does not fit, or the metric names an unknown token.
    """
    length = ids.shape[1]
    blocks, starts = [0] * len(changes), [0] * len(changes)
    has_common = len(changes) > 1 and not lens.is_changed
    if has_common:
        blocks = [_first_block(lens, change) for change in changes]
    if has_common and not Measure(metric, lens.tokenizer, lens.config.d_vocab, 1).needs_all_positions:
        starts = [_first_position(change, length) for change in changes]
    streams = {block: _STREAM.format(block) for block in sorted(set(blocks) - {0})}
    common = None
    if streams or any(starts):
        common = lens.run(ids, names_filter=[*streams.values()] or None, logits="none", keep_cache=any(starts))
    found = np.empty(len(changes))
    for runs in _passes(blocks, starts, length):
        first, begun = min(starts[run] for run in runs), blocks[runs[0]]
        options: ReadKeywords = {"keep_cache": False}
        if common is not None:
            rows = Counter(blocks[run] for run in runs)
            joining_rows = {
                name: np.repeat(common.activations[name][:, first:], rows[block], axis=0)
                for block, name in streams.items() if block >= begun
            }  # fmt: skip
            if begun:
                options["feeds"] = {streams[begun]: joining_rows.pop(streams[begun])}
            options |= {"joins": joining_rows, "cache_rows": np.zeros(len(runs), np.int64)}
        if common is not None and common.kv_cache is not None:
            options["kv_cache"] = common.kv_cache.until(first)
        chosen = [[change.at_rows(row) for change in changes[run]] for row, run in enumerate(runs)]
        found[runs] = _measured(lens, np.repeat(ids[:, first:], len(runs), axis=0), chosen, metric, options)
    return found


def _first_block(lens: Lens, changes: Sequence[Intervention]) -> int:
    """The first block that the changes can affect."""
    names = lens.runner.hook_names
    starts = [names.index(_STREAM.format(block)) for block in range(lens.config.n_layers)]
    changed = [names.index(name) for change in changes for name in lens.runner.select(change.hook)]
    return max(0, bisect_right(starts, min(changed, default=len(names))) - 1)


def _first_position(changes: Sequence[Intervention], length: int) -> int:
    """The first position that the changes can affect; at most the last one."""
    firsts = [length - 1]
    for change in changes:
        places = list(change.positions) if isinstance(change.positions, tuple) else change.positions
        firsts.append(int(np.min(sliced(np.arange(length), places, 0, "positions"))))
    return min(firsts)


def _passes(blocks: Sequence[int], starts: Sequence[int], length: int) -> list[list[int]]:
    """Which runs share a pass, in the order of their blocks.

    Each pass has runs of as many blocks as it can, so that most passes are the same graph; those that are not are
    sorted, so that no graph is opened twice.

    Args:
        blocks: where each run starts.
        starts: the first position of each. All runs of a pass start at the first one of them.
        length: of the text.
    """
    turns: Counter[tuple[int, int]] = Counter()
    order = []
    for run, place in enumerate(zip(blocks, starts, strict=True)):
        order.append((-starts[run], turns[place], blocks[run], run))
        turns[place] += 1
    passes: list[list[int]] = []
    for *_, run in sorted(order):
        most = _MOST if passes and starts[passes[-1][0]] == starts[run] else _MIXED
        if not passes or (len(passes[-1]) + 1) * (length - starts[run]) > most:
            passes.append([])
        passes[-1].append(run)
    passes = [sorted(runs, key=lambda run: (blocks[run], run)) for runs in passes]
    return sorted(passes, key=lambda runs: sorted({blocks[run] for run in runs}))


def _measured(
    lens: Lens,
    batch: np.ndarray,
    changes: Sequence[Sequence[Intervention]],
    metric: AnyMetric,
    options: ReadKeywords,
) -> np.ndarray:
    measure = Measure(metric, lens.tokenizer, lens.config.d_vocab, len(batch))
    # Position by position, so that equal changes of many rows are neighbours and become one edit.
    deep = max(map(len, changes), default=0)
    ordered = [change[depth] for depth in range(deep) for change in changes if depth < len(change)]
    options = {**options, "logits": "all" if measure.needs_all_positions else "last"}
    output = lens.run(batch, interventions=ordered, **options)
    seen = batch[:, -output.logits.shape[1] :]
    return measure.value(output.logits, seen, np.ones_like(seen))
