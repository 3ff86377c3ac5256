"""Activations that were read: a mapping from hook point to array, with the tokens they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np

from onnxlens.runtime.edits import Applied
from onnxlens.runtime.errors import HookPointError, OutputError, suggestion
from onnxlens.runtime.files import umask
from onnxlens.runtime.hooks import HookPoint

__all__ = ["ActivationCache", "stitch"]

# What the keys that an earlier step could not see hold in a full pass: the causal mask's values.
_UNSEEN = {"hook_attn_scores": -np.inf, "hook_pattern": 0.0}


class _NotReadError(HookPointError, KeyError):
    """A KeyError too, so that `get` and `in` do what they do for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


class ActivationCache(Mapping[str, np.ndarray]):
    """Activations by hook point name.

    Args:
        activations: arrays in the shapes of the hook table, batch first.
        tokens: the token ids that were run, [B, P].
        attention_mask: [B, P], 0 where a token is padding; None for no padding.
        model: the bundle's name.
        applied: what interventions changed where.

    Attributes:
        tokens: [B, P] int64.
        attention_mask: [B, P] int64. Values at padding positions mean nothing.
        model: the bundle's name.
        applied: what interventions changed where.
    """

    def __init__(
        self,
        activations: Mapping[str, np.ndarray],
        tokens: np.ndarray,
        attention_mask: np.ndarray | None = None,
        model: str = "",
        applied: Sequence[Applied] = (),
    ) -> None:
        self._activations = dict(activations)
        self.tokens = tokens
        self.attention_mask = np.ones_like(tokens) if attention_mask is None else attention_mask
        self.model = model
        self.applied = tuple(applied)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._activations[name]
        except KeyError:
            near = suggestion(str(name), self._activations)
            raise _NotReadError(
                f"{name!r} was not read; this cache holds {len(self)} hook points.{near} "
                "Name it in names_filter to read it."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._activations

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        from rich.filesize import decimal

        return f"ActivationCache({len(self)} hook points, {decimal(self.nbytes)}, tokens {self.tokens.shape})"

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in self._activations.values())

    def save(self, path: str | Path, *, str_tokens: Sequence[str] | None = None) -> None:
        """Writes everything to a safetensors file, with model and tokens in its header.

        An existing file is replaced, and only once the new one is whole.

        Args:
            path: the file to write.
            str_tokens: the tokens as text, for a reader without the tokenizer.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        try:
            path = Path(path).expanduser().resolve()  # through a symbolic link, which stays
        except RuntimeError as error:  # a loop of links, or ~nobody
            raise OutputError(f"Cannot write {path}: {error}.") from error
        header = {"format": "onnxlens.trace.1", "model": self.model, "hook_points": json.dumps(list(self))}
        if str_tokens is not None:
            header["str_tokens"] = json.dumps(list(str_tokens))
        tensors = {name: np.ascontiguousarray(array) for name, array in self._activations.items()}
        tensors |= {"tokens": self.tokens, "attention_mask": self.attention_mask}
        scratch = path.parent / f".{uuid4().hex}.onnxlens"
        try:
            if path.is_dir():
                raise OutputError(f"Cannot write {path}: it is a folder; name a file in it.")
            if path.exists() and not path.is_file():
                raise OutputError(f"Cannot write {path}: it is not a regular file.")  # /dev/null must not be replaced
            if not path.parent.is_dir():
                raise OutputError(f"Cannot write {path}: there is no folder {path.parent}.")
            try:
                save_file(tensors, scratch, metadata=header)
                scratch.chmod(0o666 & ~umask())  # safetensors lets in the owner only
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OutputError(f"Cannot write {path}: {reason}.") from error


def stitch(points: Sequence[HookPoint], steps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins what consecutive passes on one KV cache read to what a single pass over all positions would read.

    Args:
        points: the hook points that were read.
        steps: the activations of each pass, in order.
    """
    return {point.name: _stitch_one(point, [step[point.name] for step in steps]) for point in points}


def _stitch_one(point: HookPoint, parts: list[np.ndarray]) -> np.ndarray:
    if "key_pos" not in point.axes:
        return np.concatenate(parts, axis=point.axes.index("pos"))
    keys = parts[-1].shape[-1]
    fill = _UNSEEN[point.name.rpartition(".")[2]]
    widened = [np.pad(part, [(0, 0)] * 3 + [(0, keys - part.shape[-1])], constant_values=fill) for part in parts]
    return np.concatenate(widened, axis=point.axes.index("query_pos"))
