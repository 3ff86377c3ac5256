"""Attention: rollout over layers, and the kind of each head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["AttentionRollout", "HeadScores", "attention_rollout", "distance_and_entropy", "head_scores", "rolled_out"]

_PATTERN = "blocks.{}.attn.hook_pattern"


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(Result):
    """How much of each position's token is in each position after each block, by attention alone.

    Attributes:
        values: [layers, query, key] float64; each row of a query adds up to 1.
        tokens: the text's token ids, [P].
        axes: of `values`.
    """

    values: np.ndarray
    tokens: np.ndarray
    axes: tuple[str, ...] = ("layer", "query_pos", "key_pos")


@dataclass(frozen=True, kw_only=True)
class HeadScores(Result):
    """The attention of each head on sequences of random tokens that are repeated; means over queries and sequences.

    Attributes:
        induction: attention from each token of the second half to the token after its earlier occurrence,
            [layers, heads] float64.
        previous: attention to the token just before, from all tokens but the first.
        duplicate: attention from each token of the second half to its earlier occurrence.
        accuracy: the share of the second half, from its second token on, that the model predicts.
        axes: of the arrays.
    """

    induction: np.ndarray
    previous: np.ndarray
    duplicate: np.ndarray
    accuracy: float
    axes: tuple[str, ...] = ("layer", "head")


def attention_rollout(lens: Lens, text: Text) -> AttentionRollout:
    """Multiplies attention over layers (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers").

    A block passes on one half of its input (the residual connection) and one half of the average output of its heads.

    Args:
        lens: the model.
        text: a text, or its token ids.

    Raises:
        InputError: the text cannot be used.
    """
    ids = one_text(lens, text, "attention_rollout")
    _, cache = lens.run_with_cache(ids, names_filter=_PATTERN.format("*"))
    patterns = np.stack([cache["pattern", layer][0] for layer in range(lens.config.n_layers)])
    return AttentionRollout(values=rolled_out(patterns), tokens=ids[0])


def distance_and_entropy(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far back and how widely heads attend, on average over the tokens of a text.

    Args:
        patterns: [..., Q, K], each row a distribution over tokens up to its own.

    Returns:
        The mean distance in tokens and the mean entropy in nats, each [...] float64.
    """
    patterns = patterns.astype(np.float64, copy=False)
    places = np.arange(patterns.shape[-1])
    distance = (patterns * (places[:, np.newaxis] - places)).sum(-1).mean(-1)
    logs = np.log(patterns, where=patterns > 0, out=np.zeros_like(patterns))
    return distance, -(patterns * logs).sum(-1).mean(-1)


def rolled_out(patterns: np.ndarray) -> np.ndarray:
    """The rollout of the patterns of all layers, [L, H, Q, K], after each of them, [L, Q, K] float64."""
    alone = np.eye(patterns.shape[-1])  # [Q, K]
    rolled = alone
    found = []
    for pattern in patterns:
        mixed = 0.5 * pattern.mean(axis=0, dtype=np.float64) + 0.5 * alone  # [Q, K]
        rolled = mixed / mixed.sum(axis=-1, keepdims=True) @ rolled
        found.append(rolled)
    return np.stack(found)


def head_scores(
    lens: Lens, *, length: int = 50, count: int = 16, seed: int = 0, tokens: np.ndarray | None = None, rows: int = 8
) -> HeadScores:
    """Measures each head's attention on random tokens that are repeated, after `<|endoftext|>`.

    The induction score is the mean of the pattern along the induction stripe over the second half, which Olsson et al.
    2022, "In-context Learning and Induction Heads", call the prefix-matching score. The others are means along other
    diagonals.

    Args:
        lens: the model.
        length: tokens before they repeat.
        count: sequences.
        seed: seed of the random tokens.
        tokens: ids to draw from, uniformly and independently; None for all but the end of a text.
        rows: sequences in a pass.

    Raises:
        InputError: `length` is not a whole number of at least 2, `2 * length + 1` tokens do not fit the model, or
            `count` or `rows` is not a whole number of at least 1.
    """
    limit = (lens.config.n_ctx - 1) // 2
    if not is_integer(length) or not 2 <= length <= limit:
        raise InputError(f"length must be a whole number from 2 to {limit}, not {length!r}.")
    for name, number in (("count", count), ("rows", rows)):
        if not is_integer(number) or number < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {number!r}.")
    layers, heads = lens.config.n_layers, lens.config.n_heads
    ends = lens.tokenizer.eos_token_ids
    start = ends[0] if ends else 0
    pool = np.setdiff1d(np.arange(lens.config.d_vocab), [start, *ends]) if tokens is None else np.asarray(tokens)
    half = np.random.default_rng(seed).choice(pool, size=(count, length))
    ids = np.concatenate([np.full((count, 1), start), half, half], axis=1)  # [count, 1 + 2 * length]
    second, every = np.arange(length + 1, 2 * length + 1), np.arange(1, 2 * length + 1)
    correct, sums = 0, np.zeros((3, layers, heads))
    for batch in np.array_split(ids, range(rows, count, rows)):
        output = lens.run(batch, names_filter=_PATTERN.format("*"), keep_cache=False)
        guesses = output.logits[:, second[:-1]].argmax(-1)  # [rows, length - 1]
        correct += int((guesses == batch[:, second[1:]]).sum())
        for layer in range(layers):
            pattern = output.activations[_PATTERN.format(layer)]  # [rows, H, Q, K]
            for kind, (queries, back) in enumerate([(second, length - 1), (every, 1), (second, length)]):
                sums[kind, layer] += pattern[:, :, queries, queries - back].mean(-1).sum(0)
    induction, previous, duplicate = sums / count
    return HeadScores(
        induction=induction, previous=previous, duplicate=duplicate, accuracy=correct / (count * (length - 1))
    )
