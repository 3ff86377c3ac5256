"""Finds bundles by name."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from onnxlens.runtime._bundle.manifest import MANIFEST
from onnxlens.runtime._bundle.other_exports import other_export
from onnxlens.runtime._user_folders import data_folder
from onnxlens.runtime.errors import BundleError, suggestion

__all__ = ["SHIPPED", "Found", "find", "installed", "places"]

Place = Literal["here", "user", "shipped"]

SHIPPED = "tiny"


@dataclass(frozen=True)
class Found:
    """A bundle that was found: its name, its folder, and the place that holds it."""

    name: str
    path: Path
    place: Place


def places() -> dict[Place, Path]:
    """Where bundles are looked for, in order: `models/` here, the user's data folder, the installed package.

    The data folder is left out where it is not known.
    """
    data = data_folder()
    user: dict[Place, Path] = {"user": data / "models"} if data else {}
    return {"here": Path("models"), **user, "shipped": Path(str(files("onnxlens.models")))}


def installed() -> list[Found]:
    """All bundles that are found; where two have the same name, the one in the earlier place."""
    found: dict[str, Found] = {}
    known = places()
    for place, folder in known.items():
        for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
            name, path = manifest.parent.name, manifest.parent.resolve()
            if not name.startswith("."):
                # A checkout's own models/ folder is the shipped one, too.
                shipped = path.parent == known["shipped"].resolve()
                found.setdefault(name, Found(name, path, "shipped" if shipped else place))
    return list(found.values())


def find(name: str | Path | None = None) -> Path:
    """Returns the folder of a bundle.

    Args:
        name: a path, a name under `models/`, a name in the user's data folder, or that of the model that ships, which
            None stands for, too.

    Raises:
        BundleError: there is no such bundle; the text lists the existing ones.
    """
    if name is None:
        return places()["shipped"] / SHIPPED
    if not isinstance(name, str | os.PathLike) or isinstance(name, bytes) or not str(name):
        raise BundleError(f"A model is named by its name or path, such as 'tiny' or 'models/mine', not {name!r:.100}.")
    try:
        path = Path(name).expanduser()
        is_bundle, exists = (path / MANIFEST).is_file(), path.exists()
    except (OSError, RuntimeError, ValueError):  # too long a name, or another user's home that is not there
        is_bundle = exists = False
    if is_bundle:
        return path
    known = {found.name: found.path for found in installed()}
    if str(name) in known:
        return known[str(name)]
    if exists:
        raise BundleError(_no_bundle(path))
    listed = f"known models: {', '.join(known)}" if known else "no models are installed"
    raise BundleError(
        f"There is no model {str(name)!r}; {listed}.{suggestion(str(name), known)} "
        "Give one of these, or a bundle's path, or make one with 'onnxlens export'."
    )


def _no_bundle(path: Path) -> str:
    """The reason why a path cannot be opened as a bundle, and what to do."""
    around = next((folder for folder in path.absolute().parents if (folder / MANIFEST).is_file()), None)
    if around is not None and path.absolute().relative_to(around).parts[0] in (MANIFEST, "onnx"):
        return f"{path} is part of a bundle; give the bundle's folder, {shlex.quote(str(around))}."
    if not path.is_dir():
        return f"{path} is a file, and a bundle is a folder with {MANIFEST} in it."
    if (said := other_export(path)) is not None:
        return said
    if (path / "config.json").is_file():
        command = f"onnxlens export {shlex.quote(str(path))} FOLDER"
        return f"{path} is a checkpoint, not a bundle: it has no {MANIFEST}. Make a bundle of it: {command}"
    return f"{path} is not a bundle: it has no {MANIFEST}."
