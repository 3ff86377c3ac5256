"""Describes plugins, for people and for machines."""

from __future__ import annotations

import inspect
import re
from typing import Any

from onnxlens.plugins._loading import Entry
from onnxlens.plugins._options import json_schema, option_names
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["Row", "documentation", "hook_points", "option_rows"]

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "minItems": "at least {} of them",
}
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a mapping",
    "null": "nothing",
}

Row = dict[str, Any]

# An example, where a visualizer is described without a model.
_EXAMPLE = ModelConfig(
    n_layers=12, n_heads=12, d_model=768, d_head=64, d_mlp=3072, d_vocab=50257, n_ctx=1024, act_fn="gelu_new", eps=1e-5
)


def documentation(entry: Entry) -> str:
    """A plugin's own docstring; "" if it has none."""
    if isinstance(entry.plugin, str):  # the docstring of a str is that of its class
        return ""
    text = getattr(entry.plugin, "__doc__", None)
    return inspect.cleandoc(text) if entry.summary and isinstance(text, str) else ""


def hook_points(entry: Entry, config: ModelConfig | None = None) -> list[str] | None:
    """The hook points that a visualizer names with its default options; None if it needs options or fails.

    Args:
        entry: the visualizer.
        config: the shape of the model; an example if left out.
    """
    if entry.kind != "visualizer":
        return []
    try:
        names = entry.plugin().hook_points(config or _EXAMPLE)
        return _shortened([name for name in names if isinstance(name, str)])
    except Exception:  # it has a required option, or fails: listing it must not fail, too
        return None


def option_rows(entry: Entry) -> list[Row]:
    """The options of a sampler or visualizer, each with `name`, `type`, `bounds`, `default`, `required`, `help`."""
    if entry.kind in ("command", "family"):
        return []
    schema = json_schema(entry.plugin)
    definitions = schema.get("$defs", {})
    rows = []
    for name in option_names(entry.plugin):
        one = schema["properties"][name]
        kinds = [_resolved(kind, definitions) for kind in one.get("anyOf", [one])]
        kinds.sort(key=lambda kind: kind.get("type") == "array")  # last: its elements' description ends with it
        bounds = {key: kind[key] for kind in [one, *kinds] for key in _BOUNDS if key in kind}
        rows.append(
            {
                "name": name,
                "type": " or ".join(map(_type, kinds)),
                "bounds": ", ".join(_BOUNDS[key].format(value) for key, value in bounds.items()),
                "default": one.get("default"),
                "required": name in schema.get("required", ()),
                "help": one.get("description", ""),
            }
        )
    return rows


def _resolved(schema: Row, definitions: Row) -> Row:
    found: Row = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
    return found


def _type(schema: Row) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"a list, each element {_type(items)}" if isinstance(items, dict) and items else "a list"
    return _TYPES.get(schema.get("type", ""), "anything")


def _shortened(names: list[str]) -> list[str]:
    """Names, with those that differ only in the block combined."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"^blocks\.\d+\.", "blocks.*.", name), []).append(name)
    return [group if len(set(members)) > 1 else members[0] for group, members in groups.items()]
