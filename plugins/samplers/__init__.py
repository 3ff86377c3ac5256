"""Samplers: rules that choose the next token.

A sampler takes logits [B, V] and a `Context`, and returns logits [B, V]: tokens that it rules out get -inf. The token
is chosen by a sampler, too, which leaves a single token in each row. A chain of samplers is a sampler.
"""

from __future__ import annotations

from onnxlens.plugins._options import make
from onnxlens.plugins._sampling.candidates import Candidates
from onnxlens.plugins._sampling.chain_text import parse
from onnxlens.plugins._sampling.explain import Explanation, Likely, Stage, explain
from onnxlens.plugins._sampling.sampler import Chain, Context, Sampler, only, softmax
from onnxlens.plugins.samplers.allowed import Allowed
from onnxlens.plugins.samplers.builtin import SAMPLERS
from onnxlens.plugins.samplers.choosing import Greedy, Gumbel, Multinomial
from onnxlens.plugins.samplers.constrained import JsonSchema, LarkGrammar, Regex
from onnxlens.plugins.samplers.mirostat import Mirostat, MirostatV2
from onnxlens.plugins.samplers.repetition import (
    DRY,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from onnxlens.plugins.samplers.shaping import (
    BadWords,
    DynamicTemperature,
    ExponentialLength,
    ForcedFirst,
    ForcedLast,
    LogitBias,
    MinLength,
    MinNewTokens,
    SuppressTokens,
    Temperature,
)
from onnxlens.plugins.samplers.truncation import (
    XTC,
    Epsilon,
    Eta,
    MinP,
    TailFree,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    Typical,
)
from onnxlens.runtime._numbers import is_number

__all__ = [
    "DRY",
    "SAMPLERS",
    "XTC",
    "Allowed",
    "BadWords",
    "Candidates",
    "Chain",
    "Context",
    "DynamicTemperature",
    "Epsilon",
    "Eta",
    "Explanation",
    "ExponentialLength",
    "ForcedFirst",
    "ForcedLast",
    "FrequencyPenalty",
    "Greedy",
    "Gumbel",
    "JsonSchema",
    "LarkGrammar",
    "Likely",
    "LogitBias",
    "MinLength",
    "MinNewTokens",
    "MinP",
    "Mirostat",
    "MirostatV2",
    "Multinomial",
    "NoRepeatNGram",
    "PresencePenalty",
    "Regex",
    "RepetitionPenalty",
    "Sampler",
    "Stage",
    "SuppressTokens",
    "TailFree",
    "Temperature",
    "TopH",
    "TopK",
    "TopNSigma",
    "TopP",
    "Typical",
    "explain",
    "only",
    "parse",
    "softmax",
    "standard",
]


def standard(*, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Sampler:
    """The default chain: temperature, then top-k, then top-p, then a draw; greedy where the temperature is 0.

    Raises:
        InputError: the value of an option cannot be used.
    """
    limits: list[Sampler] = []
    if top_k is not None:
        limits.append(make(TopK, "top_k", {"k": top_k}, strict=True))
    if top_p is not None:
        limits.append(make(TopP, "top_p", {"p": top_p}, strict=True))
    if is_number(temperature) and temperature == 0:
        return Greedy()
    shaped = make(Temperature, "temperature", {"temperature": temperature}, strict=True)
    return Chain((shaped, *limits, Multinomial()))
