"""Checks what plugins register: names, classes, commands and options."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import keyword
import re
import sys
from pathlib import Path
from typing import Any

from onnxlens.plugins._options import Options, json_schema, option_names
from onnxlens.runtime.errors import OnnxLensError, PluginError

__all__ = ["RESERVED_OPTIONS", "check", "check_name", "summary_of"]

# Options that every visualizer has on the command line.
RESERVED_OPTIONS = frozenset({"help", "json", "model", "open", "output", "provider", "text", "threads"})

_LONGEST_NAME = 50
_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # module:attribute


def check(kind: str, name: object, plugin: Any) -> str:
    """Checks a sampler, visualizer, command or family before it is registered; returns the first line of its docstring.

    Raises:
        PluginError: it cannot be registered; the text says why.
    """
    check_name(kind, name)
    if kind == "command":
        return _check_command(str(name), plugin)
    if kind == "family":
        return _check_family(str(name), plugin)
    from onnxlens.plugins._sampling.sampler import Sampler
    from onnxlens.plugins._viewing.visualizer import Visualizer

    base = Sampler if kind == "sampler" else Visualizer
    if not inspect.isclass(plugin) or not issubclass(plugin, base):
        hint = "; register the class, not an object of it" if isinstance(plugin, base) else ""
        raise PluginError(
            f"A {kind} is a class that derives from onnxlens.plugins.{base.__name__}, and what was registered as "
            f"{name!r} is {_what(plugin)}{hint}."
        )
    _check_whole(kind, name, plugin)
    _check_options(kind, str(name), plugin)
    return summary_of(plugin)


def check_name(kind: str, name: object) -> None:
    """Checks a name.

    Raises:
        PluginError: the name is not allowed.
    """
    has_hyphens = kind in ("command", "family")
    letters = "a-z0-9_-" if has_hyphens else "a-z0-9_"
    if (
        not isinstance(name, str)
        or not re.fullmatch(f"[a-z][{letters}]*", name)
        or len(name) > _LONGEST_NAME
        or keyword.iskeyword(name)
    ):
        dashes = "hyphens and underscores" if has_hyphens else "underscores"
        shown = name if not isinstance(name, str) or len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        raise PluginError(
            f"{shown!r} is not a name for a {kind}: use at most {_LONGEST_NAME} small letters, digits and {dashes}, "
            "beginning with a letter, and no keyword of Python."
        )


def summary_of(plugin: object) -> str:
    """The first line of a docstring."""
    text = plugin.__dict__.get("__doc__") if inspect.isclass(plugin) else getattr(plugin, "__doc__", None)
    first = inspect.cleandoc(text).partition("\n")[0] if isinstance(text, str) else ""
    # A dataclass without a docstring gets its signature as one.
    return "" if inspect.isclass(plugin) and first.startswith(f"{plugin.__name__}(") else first


def _check_options(kind: str, name: str, plugin: type[Options]) -> None:
    if "__dataclass_fields__" not in vars(plugin):
        raise PluginError(
            f"The {kind} {name!r} ({plugin.__name__}) is not a dataclass; put @dataclass above it, so that its fields "
            "are options."
        )
    try:
        properties = json_schema(plugin).get("properties", {})
    except OnnxLensError:
        raise
    except Exception as error:  # an error of msgspec, or of an annotation with an unknown name
        raise PluginError(
            f"The options of the {kind} {name!r} ({plugin.__name__}) have types that cannot be checked: "
            f"{' '.join(str(error).split()).rstrip('.')}."
        ) from error
    if kind == "visualizer" and (reserved := RESERVED_OPTIONS.intersection(option_names(plugin))):
        raise PluginError(
            f"The visualizer {name!r} cannot have an option {min(reserved)!r}: every visualizer has one of that name "
            "on the command line; choose another name."
        )
    for option in option_names(plugin) if kind == "visualizer" else ():
        if option.startswith("no_") and properties.get(option[3:], {}).get("type") == "boolean":
            raise PluginError(
                f"The visualizer {name!r} cannot have the options {option[3:]!r} and {option!r}: on the command line, "
                f"--no-{option[3:]} turns the first one off; choose another name for one of them."
            )


def _check_family(name: str, family: object) -> str:
    if isinstance(family, str):
        _check_place("family", name, family, "a class")
        return _summary_at(family)
    # A plugin with such a class has imported this module already, and with it PyTorch.
    base = getattr(sys.modules.get("onnxlens.export.families.base"), "Family", None)
    if base is None or not inspect.isclass(family) or not issubclass(family, base):
        raise PluginError(
            f"A family is a class that derives from onnxlens.export.families.Family, or its place as "
            f"'module:attribute', and what was registered as {name!r} is {_what(family)}."
        )
    _check_whole("family", name, family)
    return summary_of(family)


def _check_whole(kind: str, name: object, plugin: type) -> None:
    """Checks that a class implements all abstract methods of its base."""
    if missing := getattr(plugin, "__abstractmethods__", None):
        raise PluginError(f"The {kind} {name!r} ({plugin.__name__}) lacks {', '.join(sorted(missing))}.")


def _check_place(kind: str, name: str, place: str, what: str) -> None:
    """Checks a text that names an object to import when it is used."""
    if not _PLACE.fullmatch(place):
        raise PluginError(f"The {kind} {name!r} must be {what}, or its place as 'module:attribute', not {place!r}.")


def _summary_at(place: str) -> str:
    """The first line of a class's docstring, found without importing it; "" if it is not found."""
    module, _, attribute = place.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(str(spec.origin)).read_bytes()) if spec is not None else None
    except (ImportError, OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _check_command(name: str, command: object) -> str:
    import click

    if isinstance(command, str):
        _check_place("command", name, command, "a click command")
        return ""
    if not isinstance(command, click.Command):
        raise PluginError(
            f"The command {name!r} must be a click command, or its place as 'module:attribute', not {_what(command)}."
        )
    return command.get_short_help_str(100)


def _what(value: object) -> str:
    return f"the class {value.__name__}" if inspect.isclass(value) else f"an object of {type(value).__name__}"
