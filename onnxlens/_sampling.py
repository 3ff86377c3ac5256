"""Finds the sampler that options name, and chooses tokens with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np

from onnxlens.plugins._registry import Registry
from onnxlens.plugins._sampling.chain_text import parse
from onnxlens.plugins._sampling.explain import Explanation, explain
from onnxlens.plugins._sampling.sampler import Chain, Context, Sampler
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

__all__ = ["AnySampler", "Choice", "chain_of", "checked_seed", "find_sampler"]

AnySampler = Sampler | str | Callable[[np.ndarray, Context], np.ndarray]


def find_sampler(
    sampler: AnySampler | None,
    plugins: Registry,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Sampler:
    """The sampler that the options of `Lens.generate` name; a draw follows one that does not choose a token.

    Raises:
        InputError: the value of an option cannot be used, or there is both a sampler and an option that it replaces.
        PluginError: a named sampler belongs to a broken plugin.
    """
    # The built-in samplers are imported when one is used, since they take a while.
    from onnxlens.plugins.samplers import Multinomial, standard

    if sampler is None:
        return standard(temperature=temperature, top_k=top_k, top_p=top_p)
    if temperature != 1.0 or top_k is not None or top_p is not None:
        raise InputError("Give either a sampler, or temperature, top_k and top_p; a sampler takes their place.")
    chain = chain_of(sampler, plugins)
    return chain if chain.chooses else Chain((*chain.samplers, Multinomial()))


def chain_of(sampler: AnySampler, plugins: Registry) -> Chain:
    """Turns a sampler, in all forms that callers may use, into a chain.

    Raises:
        InputError: a text is not a chain.
        PluginError: a named sampler belongs to a broken plugin.
    """
    return parse(sampler, plugins) if isinstance(sampler, str) else Chain((sampler,))


def checked_seed(seed: int | None) -> int:
    """The seed; if it is None, a drawn one.

    Raises:
        InputError: it is not a whole number of at least 0.
    """
    if seed is None:
        return secrets.randbits(32)
    if not is_integer(seed) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, not {seed!r}.")
    return int(seed)


class Choice:
    """Chooses the next token of one text, again and again.

    Args:
        sampler: chooses one token; a copy is used, without its state from other texts.
        tokenizer: of the model.
        seed: the seed of all draws; or a random generator that several texts share.
        max_new_tokens: the most tokens that will be generated.
        explained: whether to explain why each token was chosen.

    Attributes:
        explanation: why the last token was chosen, if `explained`.
    """

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: Tokenizer,
        seed: int | np.random.Generator,
        *,
        max_new_tokens: int,
        explained: bool = False,
    ) -> None:
        self.explanation: Explanation | None = None
        self._sampler = (sampler if isinstance(sampler, Chain) else Chain((sampler,))).clone()
        self._sampler.reset()
        self._tokenizer, self._max_new_tokens, self._explained = tokenizer, max_new_tokens, explained
        self._rng = np.random.default_rng(seed)

    def __call__(self, logits: np.ndarray, ids: np.ndarray, step: int) -> int:
        """Returns the next token.

        Args:
            logits: the model's, [V].
            ids: the text so far, [T].
            step: how many tokens were generated.

        Raises:
            InputError: the sampler does not leave one token.
            PluginError: it fails.
        """
        context = Context(
            ids[np.newaxis],
            step,
            self._rng,
            eos_token_id=self._tokenizer.eos_token_id,
            eos_token_ids=self._tokenizer.eos_token_ids,
            max_new_tokens=self._max_new_tokens,
            tokenizer=self._tokenizer,
        )
        if self._explained:
            left, self.explanation = explain(self._sampler, logits[np.newaxis], context)
        else:
            left = self._sampler(logits[np.newaxis], context)
        chosen = np.flatnonzero(left[0] != -np.inf)
        if len(chosen) != 1:
            raise InputError(
                f"The sampler {self._sampler!r} leaves {len(chosen)} tokens, but its last stage must leave exactly "
                "one, since it declares that it chooses."
            )
        self._sampler.accept(chosen, context)
        return int(chosen[0])
