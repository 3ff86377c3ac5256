"""Finds the files with a checkpoint's weights: one, or several that an index names."""

from __future__ import annotations

from pathlib import Path

from onnxlens.export._configuration_files import read_object
from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import CheckpointError

__all__ = ["INDEX", "WHOLE", "shards", "weight_files"]

WHOLE = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
INDEX = ".index.json"  # after the name of the single file


def weight_files(folder: Path) -> list[Path]:
    """Finds the files that hold the weights.

    Raises:
        CheckpointError: there are none, or one that the index names is missing.
    """
    for name in WHOLE:
        if (folder / name).is_file():
            return [folder / name]
        for shard in (found := shards(folder, name)):
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder / (name + INDEX)} names {shard!r}, which is not in the folder.")
        if found:
            return [folder / shard for shard in found]
    raise CheckpointError(f"{folder} has no weights: neither {WHOLE[0]} nor {WHOLE[1]}, nor an index of their parts.")


def shards(folder: Path, whole: str) -> list[str]:
    """The names of the files into which a file of weights was split; none if there is no index.

    Raises:
        CheckpointError: the index is damaged, or names a file outside the folder.
    """
    index = folder / (whole + INDEX)
    if not index.is_file():
        return []
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{index} has no 'weight_map'.")
    for name in files.values():
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != Path(whole).suffix:
            raise CheckpointError(
                f"{index} names {quoted(name)}; expected the name of a {Path(whole).suffix} file beside it."
            )
    return sorted(set(files.values()))
