"""A model's weights by TransformerLens's names, as views of what the weights file holds."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.hooks import sizes
from onnxlens.runtime.errors import InputError, suggestion

__all__ = ["NamedWeights", "UnknownWeightError", "WeightsByName", "in_block"]


class UnknownWeightError(InputError, KeyError):
    """A KeyError too, so that `get` and `in` work as for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


class WeightsByName(Mapping[str, np.ndarray], ABC):
    """Weights by TransformerLens's names and in its shapes, read-only.

    V vocabulary, D d_model, H heads, d d_head, M d_mlp:

    - `embed.W_E` [V, D]
    - in `blocks.N.attn`: `W_Q`, `W_K`, `W_V` [H, D, d], `W_O` [H, d, D], `b_Q`, `b_K`, `b_V` [H, d], `b_O` [D]
    - in `blocks.N.mlp`: `W_in` [D, M], `b_in` [M], `W_out` [M, D], `b_out` [D]
    - `w` and `b` [D] in `blocks.N.ln1`, `blocks.N.ln2` and `ln_final`
    - `unembed.W_U` [D, V], and `unembed.b_U` [V], which is zero where the model has none

    and what else the model has, such as `pos_embed.W_pos` [positions, D].

    The last part of a name is enough where it is clear, such as `W_E`. `W_Q`, `b_in` and so on without a block are
    those of all blocks, stacked: `W_Q` is [blocks, H, D, d], copied. All others are views of the memory-mapped file,
    where it stores float32.

    Args:
        names: the full name of each.
        n_layers: number of blocks.
    """

    def __init__(self, names: Iterable[str], n_layers: int) -> None:
        self._names, self._n_layers = dict.fromkeys(names), n_layers
        short = {name.rpartition(".")[2]: name for name in self._names if _is_matrix_or_bias(name)}
        self._aliases = {last: name for last, name in short.items() if in_block(name) is None}
        self._of_all_blocks = {last: found[1] for last, name in short.items() if (found := in_block(name))}

    @abstractmethod
    def _weight(self, name: str) -> np.ndarray:
        """One weight by its full name, which is known."""

    def __getitem__(self, name: str) -> np.ndarray:
        full = self._aliases.get(name, name)
        if full in self._of_all_blocks:
            each = (f"blocks.{layer}.{self._of_all_blocks[full]}" for layer in range(self._n_layers))
            value = np.stack([self._weight(one) for one in each])
        elif full in self._names:
            value = self._weight(full).view()
        else:
            raise UnknownWeightError(self._unknown(name))
        value.flags.writeable = False
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._aliases or name in self._of_all_blocks

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} weights of {self._n_layers} blocks)"

    def _unknown(self, name: object) -> str:
        last = self._n_layers - 1
        found = in_block(name) if isinstance(name, str) else None
        if found is not None and found[0] > last and f"blocks.{last}.{found[1]}" in self._names:
            return (
                f"Unknown weight {name!r}: this model has blocks 0 to {last}. Did you mean 'blocks.{last}.{found[1]}'?"
            )
        known = [*self, *self._aliases, *self._of_all_blocks]
        # Only case tells weights from biases, so it is the likeliest mistake.
        same = [other for other in known if other.lower() == str(name).lower()]
        near = suggestion(str(name)[:200], same or known)
        return f"Unknown weight {name!r}.{near} list(weights) has all names."


class NamedWeights(WeightsByName):
    """Weights as views of the weights file.

    Args:
        stored: the tensors of the weights file, by their names in it.
        model: says which of them each weight is.
    """

    def __init__(self, stored: Mapping[str, np.ndarray], model: ModelDescription) -> None:
        super().__init__(model.weights, model.cfg.n_layers)
        self._stored, self._model = stored, model

    def _weight(self, name: str) -> np.ndarray:
        view = self._model.weights[name]
        if view.tensor is None:
            return np.zeros([sizes(self._model.cfg)[axis] for axis in view.axes], np.float32)
        return view.of(self._stored[view.tensor])


def _is_matrix_or_bias(name: str) -> bool:
    """Whether the last part of a name is enough to name it, as that of `ln_final.w` is not."""
    return name.rpartition(".")[2].startswith(("W_", "b_"))


def in_block(name: str) -> tuple[int, str] | None:
    """The block's number and the name inside it."""
    found = re.fullmatch(r"blocks\.(0|[1-9][0-9]{0,8})\.(.+)", name)
    return (int(found[1]), found[2]) if found else None
