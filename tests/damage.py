"""Damages bundles as an attacker would, who lets the manifest agree with what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxlens.runtime._bundle.bundle import sha256_of
from onnxlens.runtime._bundle.weights import WeightsFile

__all__ = ["edit_json", "sign"]


def edit_json(path: Path, **changes: Any) -> None:
    """Changes entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sign(folder: Path, name: str) -> None:
    """Lets the manifest agree with a file that was changed."""
    manifest = json.loads((folder / "onnxlens.json").read_text())
    manifest["files"][name] |= {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    if name.endswith("_data"):
        manifest["files"][name]["header_sha256"] = WeightsFile(folder / name).header_sha256
    (folder / "onnxlens.json").write_text(json.dumps(manifest))
