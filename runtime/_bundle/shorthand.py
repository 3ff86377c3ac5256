"""Short names of hook points: `("pattern", 3)`, `("resid_post", -1)`, `("scale", 0, "ln1")`, `"embed"`, `"k6"`.

Shorthands mean what they mean in TransformerLens (`transformer_lens.utilities.get_act_name`). Where that would make up
a name that no model has, this raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime.errors import HookPointError, suggestion

__all__ = ["Key", "KeyNotFoundError", "full_name", "is_shorthand"]

Key = str | tuple[str | int | None, ...]

_OTHER_NAMES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "query": "q",
    "key": "k",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_post": "post",
}
_OTHER_PLACES = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}

# The names that TransformerLens has for decoders, where no model says which of them it has.
_IN_BLOCK = {
    "": ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"),
    "ln1.": ("scale", "normalized"),
    "attn.": ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z", "result"),
    "ln2.": ("scale", "normalized"),
    "mlp.": ("pre", "pre_linear", "post"),
}
_NAMES = (
    *("hook_embed", "hook_pos_embed"),
    *(f"blocks.0.{place}hook_{name}" for place, names in _IN_BLOCK.items() for name in names),
    *("ln_final.hook_scale", "ln_final.hook_normalized"),
)


class KeyNotFoundError(HookPointError, KeyError):
    """A KeyError too, so that `get` and `in` work as for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


def full_name(key: Key, n_layers: int | None = None, names: Iterable[str] | None = None) -> str:
    """The hook point that a key stands for.

    Args:
        key: a full name, which is returned as it is; a shorthand; or a tuple of shorthand, block, and place in the
            block, of which the last can be left out where it is clear.
        n_layers: how many blocks the model has, without which a block cannot be counted from the end; None to count
            those in `names`.
        names: the model's hook points; None for all that TransformerLens has for decoders.

    Raises:
        KeyNotFoundError: the key names no hook point.
    """
    if isinstance(key, str):
        if "." in key or key.startswith("hook_"):
            return key
        # TransformerLens's compact form: name, block, and perhaps place, such as k6 and scale4ln1.
        compact = re.fullmatch(r"([a-z_]+?)(\d{1,9})([a-z]\w*)?", key)
        return full_name((compact[1], int(compact[2]), compact[3]) if compact else (key,), n_layers, names)
    if not isinstance(key, tuple) or not 1 <= len(key) <= 3 or not isinstance(key[0], str):
        raise KeyNotFoundError(
            "A hook point is named by its name or by a tuple such as ('pattern', 3) or ('scale', 0, 'ln1'), "
            f"not {key!r}."
        )
    table, layers = _table(_NAMES if names is None else tuple(names))
    if n_layers is None and names is not None:
        n_layers = layers
    name = _OTHER_NAMES.get(key[0], key[0])
    layer, place = (*key[1:], None, None)[:2]
    whole, in_block = table.get(name, ("", {}))
    if not whole and not in_block:
        of = " of this model" if names is not None else ""
        near = suggestion(name[:50], table) or " 'onnxlens hooks' lists all hook points."
        raise KeyNotFoundError(f"{key[0]!r} is not short for any hook point{of}.{near}")
    if layer is None:
        if not whole:
            raise KeyNotFoundError(f"{key[0]!r} is in every block; name one, such as ({key[0]!r}, 0).")
        return whole
    if not in_block:
        raise KeyNotFoundError(f"{key[0]!r} is of the whole model, not of a block; leave out the {layer!r}.")
    place = _OTHER_PLACES.get(place, place) if isinstance(place, str) else place
    if place is None and len(in_block) == 1:
        place = next(iter(in_block))
    if place not in in_block:
        known = " and ".join(f"({key[0]!r}, {layer!r}, {known!r})" for known in in_block)
        raise KeyNotFoundError(
            f"{key!r} names no hook point; there {'is' if len(in_block) == 1 else 'are'} {known} in the block."
        )
    return in_block[str(place)].format(_block(layer, n_layers))


def is_shorthand(value: object) -> bool:
    """Whether this is a tuple of a short name and a block, such as `("pattern", 0)`, and not several names."""
    return isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str) and is_integer(value[1])


def _block(layer: object, n_layers: int | None) -> int:
    if not is_integer(layer):
        raise KeyNotFoundError(f"A block is a whole number, not {layer!r}.")
    layer = int(layer)
    if layer < 0 and n_layers is None:
        raise KeyNotFoundError(
            f"Block {layer} is counted from the end, and how many blocks the model has is not known here; name it by "
            "its number from the start."
        )
    if n_layers is not None and not -n_layers <= layer < n_layers:
        raise KeyNotFoundError(f"There is no block {layer}: this model has blocks 0 to {n_layers - 1}.")
    return layer + (n_layers or 0) * (layer < 0)


@lru_cache(maxsize=8)
def _table(names: tuple[str, ...]) -> tuple[dict[str, tuple[str, dict[str, str]]], int]:
    """For each short name the hook point outside of blocks, and those in a block by their place; the blocks' number."""
    table: dict[str, tuple[str, dict[str, str]]] = {}
    layers = 0
    for name in names:
        block = re.fullmatch(r"blocks\.(\d+)\.(?:(.+)\.)?([^.]+)", name)
        short = name.rpartition(".")[2].removeprefix("hook_")
        whole, in_block = table.get(short, ("", {}))
        if block is None:
            table[short] = (name, in_block)
        else:
            layers = max(layers, int(block[1]) + 1)
            place = block[2] or ""
            if place not in in_block:
                in_block = {**in_block, place: name.replace(f".{block[1]}.", ".{}.", 1)}
            table[short] = (whole, in_block)
    return table, layers
