"""The part of a model that needs no run: its text, its shape and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast, overload

import numpy as np

from onnxlens._modules import Module
from onnxlens._transformerlens import attribute_error
from onnxlens.runtime._activations.factored_matrix import FactoredMatrix, composition_scores
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.cfg import TransformerLensConfig
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.token_ids import check_ids
from onnxlens.runtime.errors import InputError

__all__ = ["Ids", "Model", "is_batch", "one_row"]

Ids = Sequence[int] | np.ndarray

_IDS_AS_THEY_ARE = "prepend_bos is for texts; put the token in front of token ids yourself."


class _Weight:
    """An attribute that is the weight of the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Model, owner: type | None = None) -> np.ndarray:
        if model is None:
            return self  # the class itself was asked
        try:
            return model.weights[self._name]
        except KeyError as error:
            raise AttributeError(str(error)) from error


class Model:
    """A bundle's text, shape and weights, under TransformerLens's names.

    Weights of all blocks are stacked: L blocks, H heads, D d_model, d d_head, M d_mlp, V vocabulary.

    Args:
        bundle: the bundle.

    Attributes:
        bundle: the same.
        tokenizer: the bundle's tokenizer.
        W_E: [V, D], the token embedding.
        W_pos: [positions, D], the position embedding; only where positions are learned.
        W_U: [D, V], the unembedding.
        b_U: [V], its bias.
        W_Q: [L, H, D, d]; `W_K` and `W_V` likewise, or [L, K, D, d] for K heads that several heads share.
        W_O: [L, H, d, D].
        b_Q: [L, H, d]; `b_K` and `b_V` likewise, with the heads of `W_K` and `W_V`.
        b_O: [L, D].
        W_gate: [L, D, M], and `b_gate` [L, M]; only where the MLPs have gates.
        W_in: [L, D, M].
        b_in: [L, M].
        W_out: [L, M, D].
        b_out: [L, D].
    """

    W_E, W_pos, W_U, b_U = _Weight(), _Weight(), _Weight(), _Weight()  # noqa: N815
    W_Q, W_K, W_V, W_O = _Weight(), _Weight(), _Weight(), _Weight()
    b_Q, b_K, b_V, b_O = _Weight(), _Weight(), _Weight(), _Weight()  # noqa: N815
    W_in, b_in, W_out, b_out = _Weight(), _Weight(), _Weight(), _Weight()
    W_gate, b_gate = _Weight(), _Weight()

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.tokenizer = bundle.tokenizer

    if not TYPE_CHECKING:  # so that a type checker still reports unknown attributes

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and "bundle" in vars(self):
                if any(weight.startswith(f"{name}.") for weight in self.weights):
                    return Module(self.weights, name)
                if hasattr(type(self), name):  # a weight that models of another kind have
                    raise AttributeError(
                        f"The model {self.bundle.name!r} has no {name!r}; lens.weights lists those that it has."
                    )
                raise attribute_error(type(self).__name__, name, dir(self))
            raise AttributeError(name)

    @property
    def config(self) -> ModelConfig:
        """The model's shape and kind, as its bundle describes them."""
        return self.bundle.config

    @property
    def cfg(self) -> TransformerLensConfig:
        """The model's shape and kind, by TransformerLens's names."""
        return TransformerLensConfig.of(self.config, self.bundle.name)

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The weights by TransformerLens's names and in its shapes, such as `blocks.0.attn.W_Q`; read-only."""
        return self.bundle.named_weights

    @property
    def blocks(self) -> tuple[Module, ...]:
        """The blocks, whose weights are attributes: `lens.blocks[3].attn.W_Q`."""
        return tuple(Module(self.weights, f"blocks.{layer}") for layer in range(self.config.n_layers))

    @property
    def W_E_pos(self) -> np.ndarray:  # noqa: N802
        """Token and position embeddings, one below the other, [V + positions, D]."""
        return np.concatenate([self.W_E, self.W_pos])

    @property
    def QK(self) -> FactoredMatrix:  # noqa: N802
        """The QK circuit of each head, which says what it attends to, `W_Q @ W_K.T`, [L, H, D, D]."""
        return FactoredMatrix(self.W_Q, self._for_each_head(self.W_K).swapaxes(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:  # noqa: N802
        """The OV circuit of each head, which says what it moves, `W_V @ W_O`, [L, H, D, D]."""
        return FactoredMatrix(self._for_each_head(self.W_V), self.W_O)

    def _for_each_head(self, weight: np.ndarray) -> np.ndarray:
        """A weight of the heads for keys and values, [L, K, ...], for each head that uses them, [L, H, ...]."""
        return np.repeat(weight, self.config.n_heads // weight.shape[1], axis=1)

    @property
    def all_head_labels(self) -> list[str]:
        """The names of all heads, `L0H0` and so on."""
        return [f"L{layer}H{head}" for layer in range(self.config.n_layers) for head in range(self.config.n_heads)]

    def all_composition_scores(self, mode: Literal["Q", "K", "V"]) -> np.ndarray:
        """Returns how much each head's output is read by each later head.

        Args:
            mode: what reads the output: queries, keys or values.

        Returns:
            [L, H, L, H]: writing layer and head, then reading layer and head; 0 where the reader is not in a later
            layer. The score is the norm of the product over the product of the norms (Elhage et al., "A Mathematical
            Framework for Transformer Circuits", 2021).

        Raises:
            InputError: there is no such mode.
        """
        readers = {"Q": lambda: self.QK, "K": lambda: self.QK.T, "V": lambda: self.OV}
        if mode not in readers:
            raise InputError(f"mode must be 'Q', 'K' or 'V', not {mode!r:.100}.")
        scores = composition_scores(self.OV, readers[mode]())  # [L, H, L, H]
        layers = np.arange(self.config.n_layers)
        later = layers[:, np.newaxis, np.newaxis, np.newaxis] < layers[:, np.newaxis]
        return np.where(later, scores, 0)

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> np.ndarray:
        """Returns the sum of all biases that were added to the residual stream before a block, [D].

        Args:
            layer: the block, 0 to the number of blocks.
            mlp_input: include the bias of the block's own attention.
            include_mlp_biases: include those of MLPs.

        Raises:
            InputError: there is no such block.
        """
        last = self.config.n_layers - (1 if mlp_input else 0)
        if not is_integer(layer) or not 0 <= layer <= last:
            raise InputError(f"layer must be a whole number from 0 to {last}, not {layer!r:.100}.")
        total: np.ndarray = self.b_O[: layer + bool(mlp_input)].sum(0)
        if include_mlp_biases:
            total = total + self.b_out[:layer].sum(0)
        return total

    def to_tokens(self, text: str | Sequence[str], prepend_bos: bool = False) -> np.ndarray:
        """Returns the token ids of a text, [1, P], or of several, [B, P], shorter ones padded on the left.

        Args:
            text: a text, or several.
            prepend_bos: put the beginning-of-text token in front of each.

        Raises:
            InputError: a text is not valid Unicode, or the model has no such token.
        """
        return self._batch(text, prepend_bos)[0]

    # A str is a sequence of str, too; the first overload that fits is taken.
    @overload
    def to_str_tokens(self, text: str | Ids, prepend_bos: bool = False) -> list[str]: ...  # type: ignore[overload-overlap]
    @overload
    def to_str_tokens(self, text: Sequence[str], prepend_bos: bool = False) -> list[list[str]]: ...

    def to_str_tokens(self, text: str | Ids | Sequence[str], prepend_bos: bool = False) -> list[str] | list[list[str]]:
        """Returns the text of each token of a text, or of one row of ids; for several texts a list of these.

        A part of a UTF-8 character becomes U+FFFD; an id that only the model knows (some pad their vocabulary) becomes
        the id in brackets.

        Args:
            text: a text, several, or token ids.
            prepend_bos: put the beginning-of-text token in front of each text.

        Raises:
            InputError: an id is out of range, or there are several rows of them.
        """
        if is_batch(text):
            return [self.tokenizer.str_tokens(self._encode(one, prepend_bos)) for one in text]
        return self.tokenizer.str_tokens(self._row(cast("str | Ids", text), prepend_bos))

    def to_string(self, ids: Ids) -> str:
        """Returns the text of one row of token ids.

        Raises:
            InputError: an id is out of range, or there are several rows of them.
        """
        return self.tokenizer.decode(one_row(ids))

    def to_single_token(self, text: str) -> int:
        """Returns the id of a text that is exactly one token.

        Raises:
            InputError: it is not exactly one token; the error lists the tokens.
        """
        return self.bundle.facts.token(text)

    def to_single_str_token(self, int_token: int) -> str:
        """Returns the text of one token.

        Raises:
            InputError: this is not a token of the model.
        """
        return self.tokenizer.str_tokens([int_token])[0]

    def get_token_position(
        self,
        single_token: str | int,
        input: str | Ids,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool = False,
    ) -> int:
        """Returns the position of a token in a text.

        Args:
            single_token: the token, by its text or id.
            input: the text, or its token ids.
            mode: which occurrence to return: `first` or `last`.
            prepend_bos: count the beginning-of-text token in front of the text.

        Raises:
            InputError: the token is not in the text, or is not one token; or there is no such mode.
        """
        if mode not in ("first", "last"):
            raise InputError(f"mode must be 'first' or 'last', not {mode!r:.100}.")
        token = self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        row = self._row(input, prepend_bos)
        positions = [position for position, other in enumerate(row) if other == token]
        if not positions:
            raise InputError(f"The token {self.to_single_str_token(token)!r} is not in the text.")
        return positions[0 if mode == "first" else -1]

    def tokens_to_residual_directions(self, tokens: str | int | Ids) -> np.ndarray:
        """Returns the directions in the residual stream with which logits are computed: columns of `W_U`.

        With raw weights the logit is the product with the *normalised* stream; see `ActivationCache.apply_ln_to_stack`.

        Args:
            tokens: a token by its text or id, or ids in any shape.

        Returns:
            [D] for one token, else the shape of the ids with D behind it.

        Raises:
            InputError: an id is out of range, or a text is not one token.
        """
        ids = np.asarray(self.to_single_token(tokens) if isinstance(tokens, str) else tokens)
        if not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"Tokens must be ids or the text of one token, not {tokens!r:.100}.")
        if ids.size and not (ids.min() >= 0 and ids.max() < self.config.d_vocab):
            raise InputError(f"A token id is out of range: this model's ids are 0 to {self.config.d_vocab - 1}.")
        directions = np.moveaxis(self.W_U[:, ids], 0, -1)  # [..., D]
        return directions.reshape(-1) if ids.size == 1 else directions

    def _row(self, text: str | Ids, prepend_bos: bool = False) -> list[int]:
        """Token ids of one text, or one row of ids as it is."""
        if not isinstance(text, str):
            if prepend_bos:
                raise InputError(_IDS_AS_THEY_ARE)
            return one_row(text)
        return self._encode(text, prepend_bos)

    def _encode(self, text: str, prepend_bos: bool) -> list[int]:
        """Token ids of one text."""
        return [*([self._bos_token] if prepend_bos else []), *self.tokenizer.encode(text)]

    def _batch(self, text: str | Ids | Sequence[str], prepend_bos: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [B, P] and the mask of those that are not padding."""
        if isinstance(text, str) or is_batch(text):
            rows = [self._encode(one, prepend_bos) for one in ([text] if isinstance(text, str) else text)]
        else:
            if prepend_bos:
                raise InputError(_IDS_AS_THEY_ARE)
            ids = check_ids(_array(text), self.config.d_vocab)
            return ids, np.ones(ids.shape, np.int64)
        longest = max(map(len, rows))
        padding = self.tokenizer.eos_token_id or 0
        ids = np.array([[padding] * (longest - len(row)) + row for row in rows], np.int64)
        mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows], np.int64)
        return ids, mask

    @property
    def _bos_token(self) -> int:
        """The id of the beginning-of-text token."""
        token = self.config.bos_token_id
        if token is None or not 0 <= token < self.config.d_vocab:
            raise InputError(f"prepend_bos: {self.bundle.name} has no beginning-of-text token (bos_token_id).")
        return token


def is_batch(text: object) -> TypeGuard[Sequence[str]]:
    """Whether this is several texts."""
    return isinstance(text, Sequence) and not isinstance(text, str) and bool(text) and isinstance(text[0], str)


def one_row(ids: object) -> list[int]:
    """Token ids [P] or [1, P] as a list.

    Raises:
        InputError: there are several rows, of one length or not.
    """
    if isinstance(ids, str):
        raise InputError(f"Expected token ids, not the text {ids!r:.100}; to_tokens makes ids of a text.")
    array = _array(ids)
    if array.ndim not in (1, 2) or array.size != array.shape[-1]:
        raise InputError(f"Expected the token ids of one text, not an array of shape {list(array.shape)}.")
    row: list[int] = array.ravel().tolist()
    return row


def _array(ids: object) -> np.ndarray:
    """Token ids as an array, which is not checked further."""
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise InputError("The rows of token ids have different lengths; give one row, or texts.") from error
    if not (array.ndim and np.issubdtype(array.dtype, np.number)):
        raise InputError(f"Expected a text, a list of texts, or token ids, not {ids!r:.100}.")
    if array.size == 0:
        raise InputError("Expected a text or token ids, not an empty list; '' is a text without tokens.")
    return array
