"""Loads one plugin: all that it registers, or an error that says why nothing of it is used."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from onnxlens.plugins import hookspecs
from onnxlens.plugins.checks import check
from onnxlens.plugins.failures import reason_of
from onnxlens.plugins.hookspecs import API_VERSION, HOOKS, OLDEST_API_VERSION, PROJECT
from onnxlens.plugins.sources import Source
from onnxlens.runtime.errors import PluginError
from onnxlens.runtime.process_wide import ProcessWide

__all__ = ["Entry", "Loaded", "load", "quiet"]

_VERSION = "ONNXLENS_PLUGIN_API"


@dataclass(frozen=True)
class Entry:
    """Something that a plugin adds.

    Attributes:
        kind: `sampler`, `visualizer`, `command` or `family`.
        name: what it is used by.
        plugin: the class, or the command of click; of a command or family also the text `module:attribute`.
        distribution: where it is from, such as `onnxlens 0.1.0`.
        summary: the first line of its documentation.
    """

    kind: str
    name: str
    plugin: Any
    distribution: str
    summary: str


@dataclass(frozen=True)
class Loaded:
    """What came of loading a plugin.

    Attributes:
        source: the plugin.
        entries: what it adds; nothing if there is a reason.
        tried: kinds and names that it tried to register, also where it failed.
        reason: why it cannot be used; None if it can.
        seconds: how long loading took.
    """

    source: Source
    entries: tuple[Entry, ...]
    tried: tuple[tuple[str, str], ...]
    reason: str | None
    seconds: float


def load(source: Source, taken: Mapping[str, frozenset[str]]) -> Loaded:
    """Loads a plugin by itself, so that its errors are its own.

    What it prints while loading goes to standard error, so that what a command prints for machines stays whole.

    Args:
        source: the plugin.
        taken: names by kind that it must not take.
    """
    desk = _Desk(source, taken)
    reason = None
    began = time.perf_counter()
    try:
        with quiet(), _staying():
            plugin = source.load()
            _check_version(plugin)
            _check_hooks(plugin)
            _call_hooks(plugin, desk, source.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit
        reason = reason_of(error)
    if desk.error is not None:  # also where the plugin caught it
        reason = reason_of(desk.error)
    desk.closed = True
    entries = () if reason else tuple(desk.entries)
    return Loaded(source, entries, tuple(desk.tried), reason, time.perf_counter() - began)


class _Desk:
    """Where a plugin registers."""

    def __init__(self, source: Source, taken: Mapping[str, frozenset[str]]) -> None:
        self.entries: list[Entry] = []
        self.tried: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.closed = False
        self._source, self._taken = source, taken

    def register(self, kind: str) -> Callable[[str, Any], None]:
        """The function that registers things of a kind."""

        def register(name: str, plugin: Any) -> None:
            if self.closed:
                raise PluginError("Plugins register when they are loaded, not later.")
            try:
                if isinstance(name, str):
                    self.tried.append((kind, name))
                self.entries.append(self._entry(kind, name, plugin))
            except Exception as error:
                self.error = self.error or error
                raise

        return register

    def _entry(self, kind: str, name: str, plugin: Any) -> Entry:
        summary = check(kind, name, plugin)
        if name in self._taken.get(kind, ()):
            raise PluginError(f"The name {name!r} is taken by a {kind} that is built in; choose another one.")
        if any((kind, name) == (entry.kind, entry.name) for entry in self.entries):
            raise PluginError(f"It registers the {kind} {name!r} twice.")
        return Entry(kind, name, plugin, self._source.distribution, summary)


@contextmanager
def _redirected() -> Iterator[None]:
    with redirect_stdout(sys.stderr):
        # In a notebook, or where output is captured, the process's own output is somebody else's.
        if sys.__stdout__ is None or sys.__stderr__ is None or sys.stderr is not sys.__stderr__:
            yield
            return
        try:
            sys.__stdout__.flush()
            kept = os.dup(1)
        except (OSError, ValueError):  # it is closed
            yield
            return
        try:
            os.dup2(2, 1)
            yield
        finally:
            with suppress(OSError, ValueError):  # what cannot be written must not keep us from going back
                sys.__stdout__.flush()
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def _left_and_returned() -> Iterator[None]:
    try:
        folder = Path.cwd()
    except OSError:  # it was removed
        yield
        return
    try:
        yield
    finally:
        os.chdir(folder)


# Sends what is printed to standard error; also what libraries and other programs print, where that is possible. It does
# so for all threads, since there is one standard output.
quiet = ProcessWide(_redirected)

# Comes back to the folder of before, so that other plugins, and the command, find their files.
_staying = ProcessWide(_left_and_returned)


def _check_version(plugin: object) -> None:
    module = plugin if inspect.ismodule(plugin) else sys.modules.get(getattr(plugin, "__module__", ""))
    stated = getattr(plugin, _VERSION, getattr(module, _VERSION, None))
    if stated is None:
        raise PluginError(
            "It does not say which version of the plugin interface it was written for; put "
            f"{_VERSION} = {API_VERSION} at the top of its module."
        )
    if type(stated) is not int:
        raise PluginError(f"{_VERSION} must be a whole number, such as {API_VERSION}, not {stated!r}.")
    if stated > API_VERSION:
        raise PluginError(
            f"It was written for version {stated} of the plugin interface, and this onnxlens has version "
            f"{API_VERSION}; install a newer onnxlens."
        )
    if stated < OLDEST_API_VERSION:
        supported = (
            f"version {API_VERSION}"
            if OLDEST_API_VERSION == API_VERSION
            else f"versions {OLDEST_API_VERSION} to {API_VERSION}"
        )
        raise PluginError(
            f"It was written for version {stated} of the plugin interface, which is retired: this onnxlens has "
            f"{supported}; install a newer version of the plugin."
        )


def _check_hooks(plugin: object) -> None:
    """Refuses what is meant as a hook and would never be called."""
    marked = set()
    for name in dir(plugin):
        value = inspect.getattr_static(plugin, name, None)
        function = getattr(value, "__func__", value)
        options = getattr(function, f"{PROJECT}_impl", None)
        if not inspect.isfunction(function):
            continue
        if isinstance(options, dict):
            hook = options.get("specname") or name
            if hook in HOOKS:
                marked.add(hook)
            elif not options.get("optionalhook"):
                raise PluginError(f"There is no hook {hook!r}; {_hooks()}.{_meant(hook)}")
            if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
                raise PluginError(f"The hook {hook!r} must be a plain function, without yield and async.")
        elif function.__module__ == getattr(plugin, "__name__", type(plugin).__module__):
            # Not everything that registers is a hook; but what is called as one, or almost, is meant as one.
            if name in HOOKS:
                raise PluginError(f"The function {name!r} is not marked as a hook; put @hookimpl above it.")
            if name.startswith("register") and _meant(name):
                raise PluginError(f"There is no hook {name!r}; {_hooks()}.{_meant(name)}")
    if not marked:
        raise PluginError(f"It has no hook, so it adds nothing; {_hooks()}, with @hookimpl above it.")


def _hooks() -> str:
    return f"the hooks are {', '.join(HOOKS)}"


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name[:100], HOOKS, n=1, cutoff=0.8)
    return f" Did you mean {near[0]!r}?" if near else ""


def _call_hooks(plugin: object, desk: _Desk, name: str) -> None:
    # A manager of its own: whatever a plugin does to it, the next one is not concerned.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # pluggy's own text names plugin and module, and the fault in its last line.
        raise PluginError(f"A hook of it cannot be called: {lines[-1].rstrip('.')}.") from error
    for hook, kind in HOOKS.items():
        getattr(manager.hook, hook)(register=desk.register(kind))
