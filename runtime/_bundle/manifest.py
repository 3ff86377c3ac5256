"""The manifest of a bundle, `onnxlens.json`: what is in it, where it came from, and how it was proven.

`docs/onnxlens.schema.json` is its published JSON schema; `docs/bundle-format.md` explains it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from onnxlens.runtime._bundle.json_file import JsonFileError, read_json
from onnxlens.runtime._bundle.other_exports import other_export
from onnxlens.runtime._bundle.weights import STORAGES
from onnxlens.runtime._escape import cut, quoted
from onnxlens.runtime.errors import BundleError

__all__ = ["FORMAT_VERSION", "MANIFEST", "FileRecord", "Manifest"]

MANIFEST = "onnxlens.json"
FORMAT_VERSION = 2

_LIMIT = 20_000_000  # bytes; that of a model of 48 blocks takes half a million
_MOST_FILES = 100


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of a bundle: its size in bytes, its SHA-256, and for the weights file that of its header alone."""

    size: int
    sha256: str
    header_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `onnxlens.json` says.

    Attributes:
        format_version: the version of the bundle format.
        name: the bundle's name at export.
        source: where the checkpoint came from: `kind` (hub, folder or memory) and what identifies it.
        made_with: versions of the packages that made the bundle.
        precision: the data type of all computation.
        storage: the data type in which matrices and embeddings are stored; vectors are always float32.
        parameters: how many numbers the weights are; a tied embedding counts once.
        cfg: the model's shape and kind; see `ModelConfig`.
        residual_stream: the hook points of the residual stream; see `ResidualStream`.
        normalizations: the normalisations that read it, by name; see `Normalization`.
        weights: for each weight, by TransformerLens's name, which stored tensor it is, and how; see `WeightView`.
        hook_points: the hook points, in the order of computation; see `HookPoint`.
        files: every other file of the bundle, by its path inside it.
        verification: how the graphs were compared with PyTorch, and the errors found.
    """

    format_version: int = FORMAT_VERSION
    name: str
    source: dict[str, Any]
    made_with: dict[str, str]
    precision: str
    storage: str
    parameters: int
    cfg: dict[str, Any]
    residual_stream: dict[str, list[str]]
    normalizations: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]
    hook_points: list[dict[str, Any]]
    files: dict[str, FileRecord]
    verification: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Writes `onnxlens.json` into a folder."""
        entries = asdict(self)
        for record in entries["files"].values():
            if record["header_sha256"] is None:
                del record["header_sha256"]
        text = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads and checks a bundle's manifest.

        Raises:
            BundleError: the folder is not a bundle, or the manifest is damaged or of a newer format.
        """
        path = folder / MANIFEST
        if not path.is_file():
            if folder.is_dir() and (said := other_export(folder)) is not None:
                raise BundleError(said)
            what = "is not a bundle: it has no onnxlens.json" if folder.is_dir() else "does not exist"
            raise BundleError(f"{folder} {what}. Make a bundle with 'onnxlens export SOURCE {folder}'.")
        try:
            entries = read_json(path, _LIMIT, nan=False)
            version = entries["format_version"]
            if type(version) is not int or version < 1:
                raise ValueError(f"unknown format version: {quoted(version)}")
        except (JsonFileError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, JsonFileError) else "it states no format version"
            raise BundleError(
                f"The manifest {path} is damaged and cannot be read ({reason}). Export the model again."
            ) from error
        if version < FORMAT_VERSION:
            raise BundleError(
                f"The bundle {folder} has format version {version}, which does not describe its model, and this "
                f"onnxlens reads version {FORMAT_VERSION}. Export the model again."
            )
        if version > FORMAT_VERSION:
            raise BundleError(
                f"The bundle {folder} has format version {version}; this onnxlens reads version {FORMAT_VERSION}. "
                "Update onnxlens with 'pip install -U onnxlens'."
            )
        try:
            known = {field.name: entries[field.name] for field in fields(cls)}
            known["files"] = {str(name): FileRecord(**record) for name, record in known["files"].items()}
            manifest = cls(**known)
            _check_types(manifest)
        except (KeyError, TypeError, AttributeError) as error:
            detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else cut(str(error), 300)
            raise BundleError(f"The manifest {path} is damaged ({detail}). Export the model again.") from error
        return manifest


def _check_types(manifest: Manifest) -> None:
    expected = {"name": str, "source": dict, "made_with": dict, "precision": str, "parameters": int,
                "cfg": dict, "residual_stream": dict,
                "normalizations": dict, "weights": dict,
                "hook_points": list, "files": dict, "verification": dict}  # fmt: skip
    if manifest.storage not in STORAGES:
        raise TypeError(f"'storage' must be {' or '.join(STORAGES)}, not {quoted(manifest.storage)}")
    for name, kind in expected.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"'{name}' must be a {kind.__name__}")
    if not all(isinstance(entry, dict) for entry in manifest.hook_points):
        raise TypeError("'hook_points' must be a list of dicts")
    if len(manifest.files) > _MOST_FILES:
        raise TypeError(f"'files' names {len(manifest.files)}, and a bundle has at most {_MOST_FILES}")
    for name, record in manifest.files.items():
        if type(record.size) is not int or record.size < 0 or not isinstance(record.sha256, str):
            raise TypeError(f"the record of {quoted(name)} is not a size and a SHA-256")
        if not name or name == "." or PurePosixPath(name).as_posix() != name:  # one file must not have several names
            raise TypeError(f"the path {quoted(name)} is not written in its shortest form")
