"""Finds plugins: built-in ones, named files, files in the user's folder, installed packages."""

from __future__ import annotations

import itertools
import os
import re
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, distributions, entry_points, version
from pathlib import Path

from onnxlens.plugins._hookspecs import PROJECT
from onnxlens.runtime._user_folders import config_folder
from onnxlens.runtime.errors import PluginError, suggestion

__all__ = ["BUILT_IN", "LIMIT", "Source", "built_in", "checked_files", "drop_in_folder", "limited", "outside"]

LIMIT = "ONNXLENS_PLUGINS"  # the environment variable that limits which plugins are loaded
BUILT_IN = (
    "onnxlens.plugins.samplers.builtin",
    "onnxlens.plugins.visualizers.builtin",
    "onnxlens.export.families.builtin",
)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Source:
    """A plugin that was found and not yet loaded.

    Attributes:
        name: the name of an entry point, or of a file without its ending.
        distribution: its origin, for people: `onnxlens 0.1.0`, or `the file my_view.py`.
        load: imports it.
        aliases: other names for it in `ONNXLENS_PLUGINS`.
        path: its file; None for a module.
    """

    name: str
    distribution: str
    load: Callable[[], object]
    aliases: tuple[str, ...] = ()
    path: Path | None = None


def built_in() -> list[Source]:
    """The built-in plugins."""
    distribution = f"onnxlens {version('onnxlens')}"
    return [Source(name.split(".")[2], distribution, lambda name=name: import_module(name)) for name in BUILT_IN]  # type: ignore[misc]


def outside(files: Iterable[Path], *, find: bool = True) -> tuple[list[Source], list[tuple[str, str, str]]]:
    """The plugins that are not built in.

    Args:
        files: the named files.
        find: also look for installed ones and those in the user's folder, as far as `ONNXLENS_PLUGINS` lets them.

    Returns:
        The plugins found; and name, origin and reason of those that were expected but not found.
    """
    files = list(files)
    named, limit = [_file(path) for path in files], os.environ.get(LIMIT)
    if limit is not None and not limit.strip():
        return named, []
    if not find:
        return named, []
    found, broken = _installed()
    dropped, unreadable = _dropped_in()
    paths = {path.resolve() for path in files}
    dropped = [source for source in dropped if source.path not in paths]  # a file that was also named counts once
    found, broken = [*dropped, *found], [*unreadable, *broken]
    if limit is None:
        return [*named, *found], broken
    wanted = {_normal(word): word.strip() for word in limit.split(",") if word.strip()}
    kept = [source for source in found if {_normal(source.name), *map(_normal, source.aliases)} & wanted.keys()]
    known = {_normal(alias) for source in [*found, *named] for alias in (source.name, *source.aliases)}
    for word, name in wanted.items():
        if word not in known:
            near = suggestion(name[:100], [source.name for source in found])
            broken.append((name, LIMIT, f"{LIMIT} names it, and there is no such plugin.{near}"))
    return [*named, *kept], broken


def checked_files(files: Iterable[str | Path]) -> list[Path]:
    """The files, if they exist and can be plugins.

    Raises:
        PluginError: one does not exist or is not a Python file, or `ONNXLENS_PLUGINS` turns plugins off.
    """
    found: list[Path] = []
    for file in files:
        try:
            path = Path(file).expanduser()
            is_file, exists, real = path.is_file(), path.exists(), path.resolve()
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise PluginError(f"A plugin is a Python file, and {file!r} cannot be one: {error}.") from error
        if not is_file:
            what = "is not a file" if exists else "does not exist"
            raise PluginError(f"The plugin {file} {what}; give the path of a Python file, such as ./my_view.py.")
        if path.suffix != ".py":
            raise PluginError(f"A plugin is a Python file, and {file} does not end with .py.")
        if os.environ.get(LIMIT, "on").strip() == "":
            raise PluginError(
                f"{LIMIT} is empty, which turns plugins off, but {file} was named as one; unset {LIMIT}, or do not "
                "name the file."
            )
        if real not in (one.resolve() for one in found):  # a file that is named twice is one plugin
            found.append(path)
    return found


def limited() -> str:
    """A sentence about the plugins that `ONNXLENS_PLUGINS` leaves out; "" if it is not set."""
    limit = os.environ.get(LIMIT)
    if limit is None:
        return ""
    named = f"is {limit!r}, so no others are loaded" if limit.strip() else "is empty, so no plugins are loaded"
    return f" {LIMIT} {named}."


def drop_in_folder() -> Path | None:
    """The user's folder whose Python files are plugins; None if it is not known."""
    folder = config_folder()
    return folder / "plugins" if folder else None


def _dropped_in() -> tuple[list[Source], list[tuple[str, str, str]]]:
    folder = drop_in_folder()
    try:
        if folder is None or not folder.is_dir():
            return [], []
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".py" and path.is_file())
    except OSError as error:
        return [], [("plugins", f"the folder {folder}", f"it cannot be read: {error.strerror or error}.")]
    return [_file(path) for path in paths if not path.name.startswith(("_", "."))], []


def _file(path: Path) -> Source:
    real = path.resolve()
    return Source(path.stem, f"the file {path}", lambda: _run(path, real), path=real)


def _run(path: Path, real: Path) -> types.ModuleType:
    """Imports a file under a unique module name, without writing bytecode; errors name it as given."""
    module = types.ModuleType(f"onnxlens_plugin_{next(_numbers)}_{re.sub(r'[^a-zA-Z0-9_]', '_', path.stem)}")
    module.__file__ = str(real)
    code = compile(real.read_bytes(), str(path), "exec")
    sys.modules[module.__name__] = module  # dataclasses look their modules up there
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _installed() -> tuple[list[Source], list[tuple[str, str, str]]]:
    try:
        return [_entry(point) for point in _points(entry_points(group=PROJECT))], []
    except Exception:  # the metadata of some package is damaged; the next lines find out which
        found: list[Source] = []
        broken = []
        for distribution in distributions():
            try:
                points = _points(point for point in distribution.entry_points if point.group == PROJECT)
                found += [_entry(point) for point in points]
            except Exception as error:
                reason = f"its metadata cannot be read: {type(error).__name__}: {error}."
                path = str(getattr(distribution, "_path", "an installed package"))
                broken.append((Path(path).stem, path, reason))
        return found, broken


def _points(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    return sorted(points, key=lambda point: (point.name, point.value))


def _entry(point: EntryPoint) -> Source:
    package = point.dist
    if package is None:
        return Source(point.name, f"an unknown package ({point.value})", point.load)
    return Source(point.name, f"{package.name} {package.version}", point.load, (package.name,))


def _normal(name: str) -> str:
    """A name in normalized form, as packaging defines it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
