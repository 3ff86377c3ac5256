"""Loads one plugin: everything that it registers, or the reason why it cannot be used."""

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

from onnxlens.plugins import _hookspecs as hookspecs
from onnxlens.plugins._checks import check
from onnxlens.plugins._failures import reason_of
from onnxlens.plugins._hookspecs import API_VERSION, HOOKS, OLDEST_API_VERSION, PROJECT
from onnxlens.plugins._sources import Source
from onnxlens.runtime._process_wide import ProcessWide
from onnxlens.runtime.errors import PluginError

__all__ = ["Entry", "Loaded", "load", "quiet"]

_VERSION = "ONNXLENS_PLUGIN_API"


@dataclass(frozen=True)
class Entry:
    """A sampler, visualizer, command or family of a plugin.

    Attributes:
        kind: `sampler`, `visualizer`, `command` or `family`.
        name: the name by which it is used.
        plugin: the class or click command; for a command or family, also the text `module:attribute`.
        distribution: the package that it comes from, such as `onnxlens 0.1.0`.
        summary: the first line of its docstring.
    """

    kind: str
    name: str
    plugin: Any
    distribution: str
    summary: str


@dataclass(frozen=True)
class Loaded:
    """The result of loading a plugin.

    Attributes:
        source: the plugin.
        entries: its entries; empty if there is a reason.
        tried: kinds and names that it tried to register, even if that failed.
        reason: why it cannot be used; None if it can.
        seconds: how long loading took.
    """

    source: Source
    entries: tuple[Entry, ...]
    tried: tuple[tuple[str, str], ...]
    reason: str | None
    seconds: float


def load(source: Source, taken: Mapping[str, frozenset[str]]) -> Loaded:
    """Loads one plugin in isolation, so that its errors affect no other.

    Anything it prints while loading goes to standard error, so that commands' JSON output stays intact.

    Args:
        source: the plugin.
        taken: names by kind that are taken.
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
    if desk.error is not None:  # even if the plugin caught it
        reason = reason_of(desk.error)
    desk.closed = True
    entries = () if reason else tuple(desk.entries)
    return Loaded(source, entries, tuple(desk.tried), reason, time.perf_counter() - began)


class _Desk:
    """Collects the registrations of a plugin."""

    def __init__(self, source: Source, taken: Mapping[str, frozenset[str]]) -> None:
        self.entries: list[Entry] = []
        self.tried: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.closed = False
        self._source, self._taken = source, taken

    def register(self, kind: str) -> Callable[[str, Any], None]:
        """Returns the function that registers plugins of a kind."""

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
        # In a notebook, or while output is captured, the process's own output is not this one.
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
            with suppress(OSError, ValueError):  # a failed flush must not keep output redirected
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


# Redirects standard output to standard error, for libraries and other programs, too, where possible. This holds for all
# threads, since they share standard output.
quiet = ProcessWide(_redirected)

# Returns to the working folder, so that other plugins and the command find their files.
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
    """Refuses functions that are meant as hooks but would never be called."""
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
            # Only functions named like hooks, or almost, are taken as meant to be hooks.
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
    # A plugin manager for each plugin, so that a plugin cannot affect the next one.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # pluggy's own text names plugin and module, and the fault in its last line.
        raise PluginError(f"One of its hooks cannot be called: {lines[-1].rstrip('.')}.") from error
    for hook, kind in HOOKS.items():
        getattr(manager.hook, hook)(register=desk.register(kind))
