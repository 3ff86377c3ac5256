"""Activation patching: finds the values of a clean run that restore a metric in a corrupted one.

Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal Mediation Analysis"; Meng et al.
2022, "Locating and Editing Factual Associations in GPT" (causal tracing); Wang et al. 2022, "Interpretability in the
Wild".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxlens._measuring import of_row
from onnxlens.analysis._sweeps import HEADS, STREAM, Text, Texts, heads_at, hooks, is_several, one_text, sweep
from onnxlens.metrics import AnyMetric
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["STREAM", "Patching", "PathPatching", "patch_activations", "patch_path"]

_Z = "blocks.{}.attn.hook_z"


@dataclass(frozen=True, kw_only=True)
class Patching(Result):
    """A metric of the corrupted text, with one value at a time from the clean one.

    Attributes:
        values: the metric after each patch, float64, with the axes that `axes` names; the mean over several texts.
        clean: the metric of the clean text; the mean over several texts.
        corrupted: the metric of the corrupted text; the mean over several texts.
        each: the metric of each text after each patch, [texts, ...].
        clean_each: the metric of each clean text, [texts].
        corrupted_each: the metric of each corrupted text, [texts].
        hook: what was patched, as a shorthand.
        axes: `("layer", "pos")`, `("layer", "head")` or `("layer", "pos", "head")`.
        span: how many neighbouring positions each entry of `pos` stands for; the last one can stand for fewer.
        clean_tokens: the clean text's token ids, [P]; of several texts a tuple of them.
        corrupted_tokens: those of the corrupted text.
    """

    values: np.ndarray
    clean: float
    corrupted: float
    each: np.ndarray
    clean_each: np.ndarray
    corrupted_each: np.ndarray
    hook: str
    axes: tuple[str, ...]
    span: int
    clean_tokens: np.ndarray | tuple[np.ndarray, ...]
    corrupted_tokens: np.ndarray | tuple[np.ndarray, ...]

    @property
    def recovered(self) -> np.ndarray:
        """The share of the difference between clean and corrupted that a patch restores: 0 for none, 1 for all.

        Raises:
            InputError: both texts have the same metric, so there is nothing to restore.
        """
        if self.clean == self.corrupted:
            raise InputError(f"Clean and corrupted text have the same metric, {self.clean:g}: nothing can be restored.")
        return (self.values - self.corrupted) / (self.clean - self.corrupted)

    def joined(self, tokens: Sequence[str]) -> list[str]:
        """The texts of tokens, [P], joined where tokens are patched together: one text for each entry of `pos`."""
        return ["".join(tokens[start : start + self.span]) for start in range(0, len(tokens), self.span)]


@dataclass(frozen=True, kw_only=True)
class PathPatching(Result):
    """What `patch_path` measured.

    Attributes:
        value: the metric of the clean text, with the path from sender to receiver as in the corrupted one.
        clean: the metric of the clean text.
        corrupted: the metric of the corrupted text.
    """

    value: float
    clean: float
    corrupted: float


def patch_activations(
    lens: Lens,
    clean: Text | Texts,
    corrupted: Text | Texts,
    metric: AnyMetric,
    *,
    hook: str = "resid_pre",
    by_position: bool = False,
    span: int = 1,
    layers: Sequence[int] | None = None,
) -> Patching:
    """Puts values of a clean run into a corrupted one, one at a time.

    Up to the first token that differs, both runs are the same, so nothing is run for those positions.

    Args:
        lens: the model.
        clean: a text, or its token ids; or several, which have equally many tokens unless heads are patched at all
            positions.
        corrupted: another one with as many tokens; or one for each clean text.
        metric: what is measured; see `onnxlens.metrics`. With several texts, it may name a token for each.
        hook: the hook point to patch: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`, `mlp.pre` or
            `mlp.post`, at each layer and position; or `q`, `k`, `v`, `z`, `result` or `pattern` of each head.
        by_position: for heads, patch each position by itself instead of all positions at once; for patterns, the
            positions of queries.
        span: how many neighbouring positions are patched together: more of them take fewer runs, with a coarser result.
        layers: the layers to patch, in this order; None for all.

    Raises:
        InputError: the texts have different numbers of tokens, or an argument cannot be used.
    """
    names = hooks(lens, hook, STREAM + HEADS, layers)
    if by_position and hook in STREAM:
        raise InputError(f"{hook!r} is patched at each position anyway; by_position is for heads.")
    if not is_integer(span) or span < 1:
        raise InputError(f"span must be a whole number of at least 1, not {span!r}.")
    if span > 1 and hook in HEADS and not by_position:
        raise InputError(
            f"span is for patches of some positions, and {hook!r} is patched at all at once: leave it out."
        )
    several = is_several(clean)
    pairs = _pairs(lens, clean, corrupted)
    if hook in STREAM or by_position:
        lengths = sorted({ids.shape[1] for ids, _ in pairs})
        if len(lengths) > 1:
            raise InputError(
                "Texts that are patched at each position must have equally many tokens; these have from "
                f"{lengths[0]} to {lengths[-1]}."
            )
    found = []
    for row, tokens in enumerate(pairs):
        one = of_row(metric, row, len(pairs), lens.tokenizer, lens.config.d_vocab)
        found.append(_patched(lens, tokens, one, names, is_head=hook in HEADS, by_position=by_position, span=span))
    each, clean_each, corrupted_each = (np.array(part) for part in zip(*found, strict=True))
    axes = ("layer", "pos") if hook in STREAM else ("layer", "pos", "head") if by_position else ("layer", "head")
    sides = [tuple(pair[side][0] for pair in pairs) for side in (0, 1)]
    return Patching(
        values=each.mean(axis=0),
        clean=float(clean_each.mean()),
        corrupted=float(corrupted_each.mean()),
        each=each,
        clean_each=clean_each,
        corrupted_each=corrupted_each,
        hook=hook,
        axes=axes,
        span=span,
        clean_tokens=sides[0] if several else sides[0][0],
        corrupted_tokens=sides[1] if several else sides[1][0],
    )


def _patched(
    lens: Lens,
    tokens: tuple[np.ndarray, np.ndarray],
    metric: AnyMetric,
    names: Sequence[str],
    *,
    is_head: bool,
    by_position: bool,
    span: int,
) -> tuple[np.ndarray, float, float]:
    """The metric of one corrupted text after each patch, of the clean one, and of the corrupted one."""
    _, cache = lens.run_with_cache(tokens[0], names_filter=names)
    length, heads = tokens[0].shape[1], heads_at(lens, names[0])
    starts = range(0, length, span)
    places = [{"positions": slice(start, min(start + span, length))} for start in starts]
    same = int(np.argmin(np.append(tokens[0][0] == tokens[1][0], False)))  # tokens before the first that differs
    where: list[dict[str, Any]]
    shape: tuple[int, ...]
    if not is_head:
        where, shape = places, (len(starts),)
    elif by_position:
        where, shape = [place | {"heads": h} for place in places for h in range(heads)], (len(starts), heads)
    else:
        where, shape = [{"heads": h} for h in range(heads)], (heads,)
    runs = [place for place in where if "positions" not in place or place["positions"].stop > same]
    changes = [[Intervention.patch(name, cache, **place)] for name in names for place in runs]
    corrupted_value, *found = sweep(lens, tokens[1], [[], *changes], metric)
    values = np.full((len(names), len(where)), corrupted_value)
    values[:, len(where) - len(runs) :] = np.reshape(found, (len(names), len(runs)))
    clean_value = float(sweep(lens, tokens[0], [[]], metric)[0])
    return values.reshape(len(names), *shape), clean_value, float(corrupted_value)


def _pairs(lens: Lens, clean: Text | Texts, corrupted: Text | Texts) -> list[tuple[np.ndarray, np.ndarray]]:
    """The token ids of each clean text and its corrupted one, [1, P] each."""
    if is_several(clean) != is_several(corrupted):
        raise InputError("Give two texts, or two lists of them; only one of clean and corrupted is a list.")
    if is_several(clean) and len(clean) != len(corrupted):
        raise InputError(
            f"patch_activations takes a corrupted text for each clean one, not {len(corrupted)} for {len(clean)}."
        )
    pairs: list[tuple[Any, Any]] = [(clean, corrupted)]
    if is_several(clean):
        pairs = list(zip(clean, corrupted, strict=True))
    return [_pair(lens, one, other, "patch_activations") for one, other in pairs]


def patch_path(
    lens: Lens,
    clean: Text,
    corrupted: Text,
    metric: AnyMetric,
    *,
    sender: tuple[int, int],
    receiver: tuple[int, int] | Literal["logits"],
    inputs: Sequence[str] = ("q",),
) -> PathPatching:
    """Patches the corrupted text along one path only, from one head to a later one (Wang et al. 2022, section 3.1).

    In a first run on the clean text, the sender's output is that of the corrupted run, and all other heads' are those
    of the clean one, so that the change reaches the receiver along the residual stream and through MLPs, but through no
    other head. The inputs that the receiver then reads are patched into a second run on the clean text.

    Args:
        lens: the model.
        clean: a text, or its token ids.
        corrupted: another one with as many tokens.
        metric: what is measured; see `onnxlens.metrics`.
        sender: layer and head.
        receiver: layer and head of a later layer; or `logits`, for the direct path to the output, MLPs on the way
            included.
        inputs: the inputs of the receiver to patch: `q`, `k`, `v`. Keys and values that several heads share change for
            all of them.

    Raises:
        InputError: the texts have different numbers of tokens, there is no such head, or the receiver is not later.
    """
    tokens = _pair(lens, clean, corrupted, "patch_path")
    to_logits = isinstance(receiver, str) and receiver == "logits"
    heads = [_head(lens, "sender", sender)] + ([] if to_logits else [_head(lens, "receiver", receiver)])
    if len(heads) == 2 and heads[1][0] <= heads[0][0]:
        raise InputError(
            f"The receiver must be in a later layer than the sender: {receiver!r} is not after {sender!r}."
        )
    if not inputs or set(inputs) - {"q", "k", "v"}:
        raise InputError(f"inputs must be some of 'q', 'k' and 'v', not {inputs!r}.")
    caches = [lens.run_with_cache(ids, names_filter=_Z.format("*"))[1] for ids in tokens]
    sent = [
        Intervention.patch(_Z.format("*"), caches[0]),
        Intervention.patch(_Z.format(heads[0][0]), caches[1], heads=heads[0][1]),
    ]
    if to_logits:
        received = sent
    else:
        layer, head = heads[1]
        names = [f"blocks.{layer}.attn.hook_{name}" for name in inputs]
        _, heard = lens.run_with_cache(tokens[0], names_filter=names, interventions=sent, stop_at_layer=layer + 1)
        shared = {name: lens.config.n_heads // heads_at(lens, name) for name in names}
        received = [Intervention.patch(name, heard, heads=head // shared[name]) for name in names]
    value, plain = sweep(lens, tokens[0], [received, []], metric)
    return PathPatching(
        value=float(value), clean=float(plain), corrupted=float(sweep(lens, tokens[1], [[]], metric)[0])
    )


def _pair(lens: Lens, clean: Text, corrupted: Text, what: str) -> tuple[np.ndarray, np.ndarray]:
    ids = one_text(lens, clean, what), one_text(lens, corrupted, what)
    if ids[0].shape != ids[1].shape:
        raise InputError(
            f"Clean and corrupted text must have the same number of tokens; they have {ids[0].shape[1]} and "
            f"{ids[1].shape[1]}: {_named(lens, ids[0])} and {_named(lens, ids[1])}."
        )
    return ids


def _head(lens: Lens, what: str, head: Any) -> tuple[int, int]:
    layers, heads = lens.config.n_layers, lens.config.n_heads
    pair = isinstance(head, tuple | list | np.ndarray) and len(head) == 2 and all(map(is_integer, head))
    if not pair or not (0 <= head[0] < layers and 0 <= head[1] < heads):
        raise InputError(
            f"The {what} must be a layer from 0 to {layers - 1} and a head from 0 to {heads - 1}, not {head!r}."
        )
    return int(head[0]), int(head[1])


def _named(lens: Lens, ids: np.ndarray) -> str:
    return ", ".join(map(quoted_token, lens.tokenizer.pieces(ids[0].tolist())))
