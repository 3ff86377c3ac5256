"""Short names of hook points: `("pattern", 3)`, `("resid_post", -1)`, `("scale", 0, "ln1")`, `"embed"`, `"k6"`.

What a shorthand stands for is what it stands for in TransformerLens (`transformer_lens.utilities.get_act_name`); where
that would make up a name that no model has, here is an error.
"""

from __future__ import annotations

import re
from functools import lru_cache

from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import HookPointError, suggestion
from onnxlens.runtime.hooks import hook_points
from onnxlens.runtime.whole import is_whole

__all__ = ["Key", "KeyNotFoundError", "axes_of", "full_name", "is_shorthand"]

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


class KeyNotFoundError(HookPointError, KeyError):
    """A KeyError too, so that `get` and `in` do what they do for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


def full_name(key: Key, n_layer: int | None = None) -> str:
    """The hook point that a key stands for.

    Args:
        key: a full name, which is returned as it is; a shorthand; or a tuple of shorthand, block, and place in the
            block, of which the last can be left out where it is clear.
        n_layer: how many blocks the model has, without which a block cannot be counted from the end.

    Raises:
        KeyNotFoundError: the key stands for none.
    """
    if isinstance(key, str):
        if "." in key or key.startswith("hook_"):
            return key
        # TransformerLens's compact form: name, block, and perhaps place, such as k6 and scale4ln1.
        compact = re.fullmatch(r"([a-z_]+?)(\d{1,9})([a-z]\w*)?", key)
        return full_name((compact[1], int(compact[2]), compact[3]) if compact else (key,), n_layer)
    if not isinstance(key, tuple) or not 1 <= len(key) <= 3 or not isinstance(key[0], str):
        raise KeyNotFoundError(
            "A hook point is named by its name or by a tuple such as ('pattern', 3) or ('scale', 0, 'ln1'), "
            f"not {key!r}."
        )
    name = _OTHER_NAMES.get(key[0], key[0])
    layer, place = (*key[1:], None, None)[:2]
    whole, in_block = _places(name)
    if not whole and not in_block:
        near = suggestion(name[:50], _table()) or " 'onnxlens hooks' lists all hook points."
        raise KeyNotFoundError(f"{key[0]!r} is not short for any hook point.{near}")
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
    return in_block[str(place)].format(_block(layer, n_layer))


def is_shorthand(value: object) -> bool:
    """Whether this is a tuple of a short name and a block, such as `("pattern", 0)`, and not several names."""
    return isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str) and is_whole(value[1])


def axes_of(name: str) -> tuple[str, ...] | None:
    """What the axes of a hook point count, by its full name; None for a name that no model has."""
    return _axes().get(re.sub(r"^blocks\.\d+\.", "blocks.0.", name))


def _block(layer: object, n_layer: int | None) -> int:
    if not is_whole(layer):
        raise KeyNotFoundError(f"A block is a whole number, not {layer!r}.")
    layer = int(layer)
    if layer < 0 and n_layer is None:
        raise KeyNotFoundError(
            f"Block {layer} is counted from the end, and how many blocks the model has is not known here; name it by "
            "its number from the start."
        )
    if n_layer is not None and not -n_layer <= layer < n_layer:
        raise KeyNotFoundError(f"There is no block {layer}: this model has blocks 0 to {n_layer - 1}.")
    return layer + (n_layer or 0) * (layer < 0)


@lru_cache
def _axes() -> dict[str, tuple[str, ...]]:
    return {point.name: point.axes for point in hook_points(ModelConfig(n_layer=1))}


@lru_cache
def _table() -> dict[str, tuple[str, dict[str, str]]]:
    """For each short name the hook point outside of blocks, and those in a block by their place in it."""
    table: dict[str, tuple[str, dict[str, str]]] = {}
    for name in _axes():
        path, _, last = name.rpartition(".")
        short = last.removeprefix("hook_")
        whole, in_block = table.get(short, ("", {}))
        if path.startswith("blocks.0"):
            in_block = {**in_block, path.removeprefix("blocks.0").removeprefix("."): name.replace(".0.", ".{}.", 1)}
        else:
            whole = name
        table[short] = (whole, in_block)
    return table


def _places(name: str) -> tuple[str, dict[str, str]]:
    return _table().get(name, ("", {}))
