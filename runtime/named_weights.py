"""A model's weights by TransformerLens's names, as views of what the weights file holds by Hugging Face's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import InputError, suggestion

__all__ = ["NamedWeights", "UnknownWeightError"]

_ALIASES = {
    "W_E": "embed.W_E",
    "W_pos": "pos_embed.W_pos",
    "W_U": "unembed.W_U",
    "b_U": "unembed.b_U",
}
_STORED = {
    "embed.W_E": "wte.weight",
    "pos_embed.W_pos": "wpe.weight",
    "ln_final.w": "ln_f.weight",
    "ln_final.b": "ln_f.bias",
}
_STORED_IN_BLOCK = {
    "ln1.w": "ln_1.weight",
    "ln1.b": "ln_1.bias",
    "ln2.w": "ln_2.weight",
    "ln2.b": "ln_2.bias",
    "attn.b_O": "attn.c_proj.bias",
    "mlp.W_in": "mlp.c_fc.weight",
    "mlp.b_in": "mlp.c_fc.bias",
    "mlp.W_out": "mlp.c_proj.weight",
    "mlp.b_out": "mlp.c_proj.bias",
}
_BLOCK = (
    "ln1.w", "ln1.b",
    "attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "attn.b_Q", "attn.b_K", "attn.b_V", "attn.b_O",
    "ln2.w", "ln2.b",
    "mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out",
)  # fmt: skip
_OF_ALL_BLOCKS = {name.partition(".")[2]: name for name in _BLOCK if not name.startswith("ln")}


class UnknownWeightError(InputError, KeyError):
    """A KeyError too, so that `get` and `in` do what they do for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


class NamedWeights(Mapping[str, np.ndarray]):
    """Weights by TransformerLens's names and in its shapes, read-only.

    V vocabulary, D d_model, H heads, d d_head, M d_mlp:

    - `embed.W_E` [V, D], `pos_embed.W_pos` [positions, D]
    - in `blocks.N.attn`: `W_Q`, `W_K`, `W_V` [H, D, d], `W_O` [H, d, D], `b_Q`, `b_K`, `b_V` [H, d], `b_O` [D]
    - in `blocks.N.mlp`: `W_in` [D, M], `b_in` [M], `W_out` [M, D], `b_out` [D]
    - `w` and `b` [D] in `blocks.N.ln1`, `blocks.N.ln2` and `ln_final`
    - `unembed.W_U` [D, V], and `unembed.b_U` [V], which is zero: GPT-2 has none

    `W_E`, `W_pos`, `W_U` and `b_U` do, too. `W_Q`, `b_in` and so on without a block are those of all blocks, stacked:
    `W_Q` is [blocks, H, D, d], copied. All others are views of the memory-mapped file, where it stores float32.

    Args:
        stored: the weights by Hugging Face's names, without the leading `transformer.`.
        config: the model's shape.
    """

    def __init__(self, stored: Mapping[str, np.ndarray], config: ModelConfig) -> None:
        self._stored, self._config = stored, config

    def __getitem__(self, name: str) -> np.ndarray:
        full = _ALIASES.get(name, name)
        if full in _OF_ALL_BLOCKS:
            each = [self._weight(f"blocks.{n}.{_OF_ALL_BLOCKS[full]}") for n in range(self._config.n_layer)]
            value = np.stack(each)
        elif self._knows(full):
            value = self._weight(full).view()
        else:
            raise UnknownWeightError(self._unknown(name))
        value.flags.writeable = False
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in _ALIASES or name in _OF_ALL_BLOCKS or self._knows(name))

    def __iter__(self) -> Iterator[str]:
        yield from ("embed.W_E", "pos_embed.W_pos")
        for layer in range(self._config.n_layer):
            yield from (f"blocks.{layer}.{name}" for name in _BLOCK)
        yield from ("ln_final.w", "ln_final.b", "unembed.W_U", "unembed.b_U")

    def __len__(self) -> int:
        return 6 + self._config.n_layer * len(_BLOCK)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} weights of {self._config.n_layer} blocks)"

    def _knows(self, name: object) -> bool:
        # Without building all names, of which a large model has hundreds.
        if not isinstance(name, str):
            return False
        found = _in_block(name)
        if found is None:
            return name in _STORED or name in ("unembed.W_U", "unembed.b_U")
        return found[0] < self._config.n_layer and found[1] in _BLOCK

    def _weight(self, name: str) -> np.ndarray:
        """One weight by its full name, which is known."""
        found = _in_block(name)
        if found is not None:
            return self._weight_of_block(*found)
        if name == "unembed.W_U":
            tied = self._config.tie_word_embeddings
            return self._stored["wte.weight" if tied else "lm_head.weight"].T  # [D, V]
        if name == "unembed.b_U":
            return np.zeros(self._config.vocab_size, np.float32)
        return self._stored[_STORED[name]]

    def _weight_of_block(self, layer: int, part: str) -> np.ndarray:
        heads, width, model = self._config.n_head, self._config.d_head, self._config.n_embd
        if part in _STORED_IN_BLOCK:
            return self._stored[f"h.{layer}.{_STORED_IN_BLOCK[part]}"]
        if part == "attn.W_O":
            return self._stored[f"h.{layer}.attn.c_proj.weight"].reshape(heads, width, model)  # [H, d, D]
        # Queries, keys and values lie side by side in one matrix. Splitting its columns into heads copies nothing.
        which = "QKV".index(part[-1])
        columns = slice(which * model, (which + 1) * model)
        if part.startswith("attn.b_"):
            return self._stored[f"h.{layer}.attn.c_attn.bias"][columns].reshape(heads, width)  # [H, d]
        matrix = self._stored[f"h.{layer}.attn.c_attn.weight"][:, columns]  # [D, D]
        return matrix.reshape(model, heads, width).transpose(1, 0, 2)  # [D, H, d], then [H, D, d]

    def _unknown(self, name: object) -> str:
        last = self._config.n_layer - 1
        found = _in_block(name) if isinstance(name, str) else None
        if found is not None and found[0] > last and found[1] in _BLOCK:
            return (
                f"Unknown weight {name!r}: this model has blocks 0 to {last}. Did you mean 'blocks.{last}.{found[1]}'?"
            )
        known = [*self, *_ALIASES, *_OF_ALL_BLOCKS]
        # Case tells weights from biases, and is what is most easily got wrong.
        same = [other for other in known if other.lower() == str(name).lower()]
        near = suggestion(str(name)[:200], same or known)
        return f"Unknown weight {name!r}.{near} list(weights) has all names."


def _in_block(name: str) -> tuple[int, str] | None:
    """The block's number and the name inside it."""
    found = re.fullmatch(r"blocks\.(0|[1-9][0-9]{0,8})\.(.+)", name)
    return (int(found[1]), found[2]) if found else None
