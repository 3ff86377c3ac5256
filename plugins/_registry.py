"""All plugins: their entries by kind and name, and which of them are broken and why."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from onnxlens.plugins._hookspecs import HOOKS
from onnxlens.plugins._loading import Entry, Loaded, load
from onnxlens.plugins._sources import built_in, checked_files, limited, outside
from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import PluginError, suggestion

__all__ = ["KINDS", "Broken", "Entry", "Registry"]

KINDS = tuple(HOOKS.values())


@dataclass(frozen=True)
class Broken:
    """A plugin or entry that cannot be used.

    Attributes:
        name: its name.
        distribution: the package that it comes from; two of them if they conflict.
        reason: why it cannot be used, a sentence.
    """

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"The plugin {self.name!r} ({self.distribution}) cannot be used: {self.reason}"


_Value = TypeVar("_Value")

# Plugins are loaded by one thread at a time, and a fork waits until loading has ended.
_loading = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)


class _LoadedOnce(Generic[_Value]):
    """Like `functools.cached_property`, but thread-safe: the first thread computes the value, and others wait."""

    def __init__(self, load_all: Callable[[Any], _Value]) -> None:
        self._load_all, self._name = load_all, load_all.__name__

    def __get__(self, registry: Registry, owner: object = None) -> _Value:
        with _loading:
            if self._name not in vars(registry):
                vars(registry)[self._name] = self._load_all(registry)
            found: _Value = vars(registry)[self._name]
            return found


class Registry:
    """The entries of all plugins, by kind and name.

    Built-in ones come first: they load no other plugin, and no plugin can take their names. Other plugins are loaded
    when one of them is first used.

    Args:
        plugins: Python files to use as plugins, besides those that are found.
        find: also load the plugins that are installed, and those in the user's folder, as far as the environment
            variable `ONNXLENS_PLUGINS` allows.

    Raises:
        PluginError: a file does not exist, or is not a Python file.
    """

    def __init__(self, plugins: Iterable[str | Path] = (), *, find: bool = True) -> None:
        files = [plugins] if isinstance(plugins, str | Path) else plugins
        if not isinstance(files, Iterable):
            raise PluginError(f"Plugins are named by the paths of their files, not by {quoted(files)}.")
        self._files = checked_files(files)
        self._find = find

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle: where plugins are, so that another process loads them itself."""
        return {"_files": self._files, "_find": self._find}

    @property
    def samplers(self) -> Mapping[str, Entry]:
        """All samplers by name."""
        return self.entries("sampler")

    @property
    def visualizers(self) -> Mapping[str, Entry]:
        """All visualizers by name."""
        return self.entries("visualizer")

    @property
    def commands(self) -> Mapping[str, Entry]:
        """All commands that plugins add to the command line, by name."""
        return self.entries("command")

    @property
    def families(self) -> Mapping[str, Entry]:
        """All model families that can be exported, by Hugging Face's `model_type`."""
        return self.entries("family")

    @property
    def broken(self) -> list[Broken]:
        """The plugins and entries that cannot be used, and why."""
        return list(self._outside.broken)

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        """The result of loading each plugin."""
        return (*self._built_in, *self._outside.loaded)

    @property
    def built_in(self) -> tuple[Entry, ...]:
        """The built-in plugins."""
        return tuple(entry for one in self._built_in for entry in one.entries)

    def entries(self, kind: str) -> Mapping[str, Entry]:
        """All entries of a kind by name, the built-in ones first."""
        found = {**self._built_in_entries[kind], **self._outside.entries[kind]}
        return MappingProxyType(found)

    def find(self, kind: str, name: str) -> Entry | None:
        """Returns the entry of a name, or None; plugins are only loaded if it is not built in.

        Raises:
            PluginError: the plugin that has it is broken; the text says why.
        """
        if kind == "visualizer":
            name = name.replace("-", "_")  # as commands are written
        if (entry := self._built_in_entries[kind].get(name)) is not None:
            return entry
        if (entry := self._outside.entries[kind].get(name)) is not None:
            return entry
        for broken in self._outside.causes.get((kind, name), ()):
            raise PluginError(str(broken))
        return None

    def get(self, kind: str, name: str) -> Entry:
        """Returns the entry of a name, like `find`.

        Raises:
            PluginError: there is none, or the plugin that has it is broken; the text says why.
        """
        if (entry := self.find(kind, name)) is not None:
            return entry
        if kind == "visualizer":
            name = name.replace("-", "_")
        known = self.entries(kind)
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        if not (hint := suggestion(shown, known, 1)):
            hint = f" There are {', '.join(known)}." if known else " There are none."
        raise PluginError(f"There is no {kind} {shown!r}.{hint} 'onnxlens plugins' lists all of them.{limited()}")

    def is_broken(self, kind: str, name: str) -> bool:
        """Whether a broken plugin has this name."""
        return bool(self._outside.causes.get((kind, name)))

    @_LoadedOnce
    def _built_in(self) -> tuple[Loaded, ...]:
        loaded = tuple(load(source, {}) for source in built_in())
        for one in loaded:
            if one.reason is not None:  # a fault of this package, not of a plugin
                raise PluginError(str(Broken(one.source.name, one.source.distribution, one.reason)))
        return loaded

    @_LoadedOnce
    def _built_in_entries(self) -> dict[str, dict[str, Entry]]:
        return _by_kind(entry for one in self._built_in for entry in one.entries)

    @_LoadedOnce
    def _outside(self) -> _Outside:
        from onnxlens._commands import NAMES

        sources, missing = outside(self._files, find=self._find)
        taken = {kind: frozenset(entries) for kind, entries in self._built_in_entries.items()}
        taken["command"] |= frozenset(NAMES)
        return _outside([load(source, taken) for source in sources], [Broken(*one) for one in missing])


@dataclass(frozen=True)
class _Outside:
    """The result of loading other people's plugins: entries by kind and name, and broken ones, also by their names."""

    loaded: tuple[Loaded, ...]
    entries: dict[str, dict[str, Entry]]
    broken: tuple[Broken, ...]
    causes: dict[tuple[str, str], list[Broken]]


def _outside(loaded: list[Loaded], missing: list[Broken]) -> _Outside:
    broken, causes = list(missing), defaultdict(list)
    for one in missing:
        for kind in KINDS:
            causes[kind, one.name].append(one)
    for plugin in loaded:
        if plugin.reason is not None:
            fault = Broken(plugin.source.name, plugin.source.distribution, plugin.reason)
            broken.append(fault)
            # If it failed early, the names of its entries are unknown; most are named like their plugin.
            for place in {*plugin.tried, *((kind, plugin.source.name) for kind in KINDS)}:
                causes[place].append(fault)
    claims: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for plugin in loaded:
        for entry in plugin.entries:
            claims[entry.kind, entry.name].append(entry)
    for (kind, name), rivals in claims.items():
        if len(rivals) > 1:
            owners = " and ".join(sorted({rival.distribution for rival in rivals}))
            several = f"{owners} each have a" if " and " in owners else f"{owners} has more than one"
            fault = Broken(name, owners, f"{several} {kind} of that name, so none is used; keep one of them.")
            broken.append(fault)
            causes[kind, name].insert(0, fault)
    alone = (rivals[0] for rivals in claims.values() if len(rivals) == 1)
    return _Outside(tuple(loaded), _by_kind(alone), tuple(broken), dict(causes))


def _by_kind(entries: Iterable[Entry]) -> dict[str, dict[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
    for entry in entries:
        found[entry.kind][entry.name] = entry
    return found
