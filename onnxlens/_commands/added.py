"""Commands that plugins add."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import click

from onnxlens._commands.options import plugins

__all__ = ["find"]


def find(context: click.Context, name: str) -> click.Command | None:
    """A plugin's command, or None where there is none of that name.

    Raises:
        PluginError: it is broken.
    """
    from onnxlens.plugins._failures import named_in_errors
    from onnxlens.plugins._loading import quiet
    from onnxlens.runtime.errors import PluginError

    known = plugins(context)
    if name not in known.commands:
        if known.is_broken("command", name):
            known.get("command", name)  # which raises an error that says why
        return None
    entry = known.get("command", name)
    command = entry.plugin
    if isinstance(command, str):
        module, _, attribute = command.partition(":")
        with named_in_errors(f"The command {name!r} ({entry.distribution})"), quiet():
            command = getattr(importlib.import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise PluginError(
            f"The command {name!r} ({entry.distribution}) did not resolve to a click command: {entry.plugin}."
        )
    command.invoke = _blaming(command.invoke, f"The command {name!r} ({entry.distribution})")  # type: ignore[method-assign, assignment]
    return command


def _blaming(invoke: Callable[[click.Context], Any], who: str) -> Callable[[click.Context], Any]:
    """Runs a command and names its plugin in errors, except those with which click and the system end commands."""
    from onnxlens.plugins._failures import named_in_errors

    def invoked(context: click.Context) -> Any:
        try:
            return invoke(context)
        except (click.ClickException, click.Abort, click.exceptions.Exit, SystemExit, BrokenPipeError):
            raise
        except BaseException as error:
            with named_in_errors(who):
                raise error

    return invoked
