"""The folder that an export writes, found and checked before any work, without PyTorch."""

from __future__ import annotations

from pathlib import Path

from onnxlens.export._paths import PathError, real_path
from onnxlens.export._staging import recover
from onnxlens.export._target import check_target
from onnxlens.runtime.errors import CheckpointError, OutputError

__all__ = ["destination"]


def destination(source: str | Path | None, target: str | Path | None, *, force: bool) -> Path:
    """Returns the folder to write, absolute, after cleaning up files that killed exports left beside it.

    Args:
        source: the checkpoint's folder or hub id; None for a model in memory.
        target: the folder; None for `models/` and the last part of the source's name.
        force: whether an existing bundle may be replaced.

    Raises:
        CheckpointError: the source is a path that cannot be used.
        OutputError: the target cannot be written.
    """
    name, local = "", None
    if source is not None:
        try:
            folder = real_path(source)
        except PathError as error:
            raise CheckpointError(f"Cannot read the checkpoint {source}: {error}.") from error
        local = folder if folder.is_dir() else None
        name = folder.name if local else str(source).split("/")[-1].removesuffix(".gguf")
    chosen = target if target is not None else Path("models") / name
    try:
        place = real_path(chosen)
    except PathError as error:
        raise OutputError(f"Cannot write {chosen}: {error}.") from error
    recover(place.parent)
    check_target(place, source=local, force=force, needed=0)
    return place
