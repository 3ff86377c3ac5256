"""What samplers are compared with: transformers' processors, and llama.cpp's formulas, slowly and in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxlens.plugins._registry import Registry
from onnxlens.plugins.samplers import Context, Sampler, softmax

INF, NAN = math.inf, math.nan
PLUGINS = Registry(find=False)  # those that are built in

# Ties, -inf, huge numbers and rows of equals are as likely as ordinary numbers.
ELEMENTS = st.one_of(
    st.floats(-30, 30, width=32), st.sampled_from([0.0, 1.0, -1.0]), st.sampled_from([-INF, 2.5, 1e4, -1e4])
)


def logits_of(rows: int = 3, vocabulary: int = 40):
    """Logits [B, V] float32, in each row at least one that is finite."""
    shapes = st.tuples(st.integers(1, rows), st.integers(1, vocabulary))
    return arrays(np.float32, shapes, elements=ELEMENTS).filter(lambda x: bool((x > -INF).any(axis=1).all()))


class Letters:
    """A tokenizer of 26 letters and a few signs, one token each; unknown characters are an error."""

    letters = 'abcdefghijklmnopqrstuvwxyz \n:"*'
    eos_token_id = 0

    def encode(self, text: str) -> list[int]:
        return [self.letters.index(letter) for letter in text]

    encode_word = encode

    def decode(self, ids) -> str:
        return "".join(self.letters[token] for token in ids)

    def pieces(self, ids) -> list[str]:
        return [self.letters[token] for token in ids]

    def to_json(self) -> str:
        from tokenizers import Tokenizer, decoders, models

        bytewise = self.letters.replace(" ", "Ġ").replace("\n", "Ċ")
        fast = Tokenizer(models.BPE({letter: token for token, letter in enumerate(bytewise)}, []))
        fast.decoder = decoders.ByteLevel()
        return fast.to_str()


def context(ids=((1, 2),), step: int = 0, seed: int = 0, **more) -> Context:
    return Context(np.array(ids, np.int64), step, np.random.default_rng(seed), **more)


def theirs(name: str, logits: np.ndarray, *args, ids=None, **options) -> np.ndarray:
    """What a processor of transformers makes of logits."""
    import torch
    from transformers.generation import logits_process

    text = torch.zeros((len(logits), 1), dtype=torch.long) if ids is None else torch.from_numpy(np.array(ids))
    processor = getattr(logits_process, name)(*args, **options)
    return processor(text, torch.from_numpy(logits.copy())).numpy()


def decided(make: Callable[[float], Sampler], value: float, logits: np.ndarray, most: float = INF) -> bool:
    """Whether what a sampler keeps does not hinge on the last digits of its option, which float32 could turn."""
    low, high = value * (1 - 2e-4), min(value * (1 + 2e-4), most)
    kept = [make(each)(logits, context()) for each in (low, value, high)]
    return all(np.array_equal(kept[0], each) for each in kept[1:])


def same_but_for_ties(ours: np.ndarray, other: np.ndarray) -> bool:
    """Whether in each row the same logits are left, of equals as many, whichever they are."""
    return bool(np.array_equal(np.sort(ours, axis=-1), np.sort(other, axis=-1)))


def ordered(row: np.ndarray) -> list[int]:
    """The tokens that are not ruled out, most probable first, equals by id."""
    return [token for token in np.argsort(-row.astype(np.float64), kind="stable").tolist() if row[token] > -INF]


def left(row: np.ndarray, tokens) -> np.ndarray:
    """The row with only these tokens left."""
    result = np.full_like(row, -INF)
    for token in tokens:
        result[token] = row[token]
    return result


def probabilities(row: np.ndarray, tokens: list[int]) -> list[float]:
    return softmax(row[tokens][np.newaxis])[0].tolist()


def tail_free(row: np.ndarray, z: float) -> np.ndarray:
    """llama_sampler_tail_free with min_keep = 1."""
    tokens = ordered(row)
    if z >= 1 or len(tokens) <= 2:
        return row
    p = probabilities(row, tokens)
    first = [p[i] - p[i + 1] for i in range(len(p) - 1)]
    second = [abs(first[i] - first[i + 1]) for i in range(len(first) - 1)]
    total = sum(second)
    second = [each / total for each in second] if total > 1e-6 else [1 / len(second)] * len(second)
    gathered, last = 0.0, len(tokens)
    for i, each in enumerate(second):
        gathered += each
        if gathered > z and i >= 1:
            last = i
            break
    return left(row, tokens[:last])


def top_n_sigma(row: np.ndarray, n: float) -> np.ndarray:
    """llama_sampler_top_n_sigma."""
    finite = [float(each) for each in row if each > -INF]
    mean = sum(finite) / len(finite)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in finite) / len(finite))
    return left(row, [i for i, each in enumerate(row.tolist()) if each > -INF and each >= max(finite) - n * deviation])


def xtc(row: np.ndarray, threshold: float) -> np.ndarray:
    """llama_sampler_xtc, where it acts."""
    tokens = ordered(row)
    p, last = probabilities(row, tokens), 0
    for i, each in enumerate(p):
        if each < threshold:
            break
        last = i
    return left(row, tokens[last:])


def dynamic_temperature(row: np.ndarray, temperature: float, spread: float, exponent: float) -> np.ndarray:
    """llama_sampler_temp_ext with delta > 0."""
    tokens = ordered(row)
    if len(tokens) <= 1:
        return row
    low, high = max(0.0, temperature - spread), temperature + spread
    disorder = -sum(p * math.log(p) for p in probabilities(row, tokens) if p > 0)
    scale = low + (high - low) * (disorder / math.log(len(tokens))) ** exponent
    if scale < 1e-6:
        return left(row, tokens[:1])
    return row.astype(np.float64) / scale


def dry(row, ids, multiplier, base, allowed_length, breakers):
    """llama_sampler_dry with single-token breakers over the whole text."""
    row, n = row.astype(np.float64), len(ids)
    if n <= allowed_length:
        return row
    limit = next((i for i in range(n) if ids[n - 1 - i] in breakers), n)
    if limit < allowed_length:
        return row
    longest: dict[int, int] = {}
    for i in range(n - 1):
        length = 0
        while i - length >= 0 and ids[i - length] == ids[n - 1 - length]:
            length += 1
        length = min(length, limit)
        if length >= allowed_length:
            longest[ids[i + 1]] = max(longest.get(ids[i + 1], 0), length)
    for token, length in longest.items():
        if token not in breakers:
            row[token] -= multiplier * base ** (length - allowed_length)
    return row


def mirostat_count(row: np.ndarray, mu: float, m: int) -> float:
    """llama_sampler_mirostat's k before it is rounded down."""
    p = probabilities(row, ordered(row))
    products = squares = 0.0
    for i in range(min(m, len(p)) - 1):
        t, b = math.log((i + 2) / (i + 1)), math.log(p[i] / p[i + 1])
        products += t * b
        squares += t * t
    s = products / squares
    e = s - 1
    return ((e * 2**mu) / (1 - len(row) ** -e)) ** (1 / s)
