"""Formulas that the float64 oracles of all families share.

They share no code with the project.

Sources:
    - Hendrycks and Gimpel 2016, "Gaussian Error Linear Units": GELU, its tanh form, and SiLU.
    - Vaswani et al. 2017, "Attention Is All You Need": the softmax and the causal mask.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "Array", "default_positions", "softmax", "visible_keys"]

Array = NDArray[np.float64]

_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which cannot overflow.
    return 0.5 * (1 + np.tanh(0.5 * x))


# The activation function of config.json -> the function (Hendrycks and Gimpel 2016, section 2).
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    # GELU(x) = x Phi(x) = x / 2 (1 + erf(x / sqrt(2)))
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    # GELU(x) ~ x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the form GPT-2 was trained with
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    # SiLU(x) = x sigmoid(x)
    "silu": lambda x: x * _sigmoid(x),
}


def softmax(x: Array) -> Array:
    """The softmax over the last axis."""
    # softmax(x)_i = exp(x_i) / sum_j exp(x_j); subtracting the maximum cancels out, and exp cannot overflow.
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = e.sum(axis=-1, keepdims=True)
    return e / total


def default_positions(attention_mask: np.ndarray) -> np.ndarray:
    """How many tokens come before each position, padding not counted, [B, P]."""
    return np.maximum(np.cumsum(attention_mask != 0, axis=-1) - 1, 0)


def visible_keys(attention_mask: np.ndarray) -> np.ndarray:
    """Which key may be seen by which query, [B, 1, Q, K].

    None that is later (Vaswani et al. 2017, section 3.2.3), none that is padding, and in any case the position itself,
    so that no row of the softmax is empty.
    """
    length = attention_mask.shape[1]
    causal = np.tril(np.ones((length, length), dtype=bool))  # [Q, K]
    visible: np.ndarray = causal & (attention_mask != 0)[:, None, None, :]  # [B, 1, Q, K]
    return visible | np.eye(length, dtype=bool)
