"""Samplers: rules that choose the next token.

A sampler takes logits [B, V] and a `Context`, and returns logits [B, V]: tokens that it rules out get -inf. The token
is chosen by a sampler, too, which leaves a single token in each row. A chain of samplers is a sampler.

Each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
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
    from onnxlens.plugins.samplers.standard import standard
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DRY": "onnxlens.plugins.samplers.repetition",
        "SAMPLERS": "onnxlens.plugins.samplers.builtin",
        "XTC": "onnxlens.plugins.samplers.truncation",
        "Allowed": "onnxlens.plugins.samplers.allowed",
        "BadWords": "onnxlens.plugins.samplers.shaping",
        "Candidates": "onnxlens.plugins._sampling.candidates",
        "Chain": "onnxlens.plugins._sampling.sampler",
        "Context": "onnxlens.plugins._sampling.sampler",
        "DynamicTemperature": "onnxlens.plugins.samplers.shaping",
        "Epsilon": "onnxlens.plugins.samplers.truncation",
        "Eta": "onnxlens.plugins.samplers.truncation",
        "Explanation": "onnxlens.plugins._sampling.explain",
        "ExponentialLength": "onnxlens.plugins.samplers.shaping",
        "ForcedFirst": "onnxlens.plugins.samplers.shaping",
        "ForcedLast": "onnxlens.plugins.samplers.shaping",
        "FrequencyPenalty": "onnxlens.plugins.samplers.repetition",
        "Greedy": "onnxlens.plugins.samplers.choosing",
        "Gumbel": "onnxlens.plugins.samplers.choosing",
        "JsonSchema": "onnxlens.plugins.samplers.constrained",
        "LarkGrammar": "onnxlens.plugins.samplers.constrained",
        "Likely": "onnxlens.plugins._sampling.explain",
        "LogitBias": "onnxlens.plugins.samplers.shaping",
        "MinLength": "onnxlens.plugins.samplers.shaping",
        "MinNewTokens": "onnxlens.plugins.samplers.shaping",
        "MinP": "onnxlens.plugins.samplers.truncation",
        "Mirostat": "onnxlens.plugins.samplers.mirostat",
        "MirostatV2": "onnxlens.plugins.samplers.mirostat",
        "Multinomial": "onnxlens.plugins.samplers.choosing",
        "NoRepeatNGram": "onnxlens.plugins.samplers.repetition",
        "PresencePenalty": "onnxlens.plugins.samplers.repetition",
        "Regex": "onnxlens.plugins.samplers.constrained",
        "RepetitionPenalty": "onnxlens.plugins.samplers.repetition",
        "Sampler": "onnxlens.plugins._sampling.sampler",
        "Stage": "onnxlens.plugins._sampling.explain",
        "SuppressTokens": "onnxlens.plugins.samplers.shaping",
        "TailFree": "onnxlens.plugins.samplers.truncation",
        "Temperature": "onnxlens.plugins.samplers.shaping",
        "TopH": "onnxlens.plugins.samplers.truncation",
        "TopK": "onnxlens.plugins.samplers.truncation",
        "TopNSigma": "onnxlens.plugins.samplers.truncation",
        "TopP": "onnxlens.plugins.samplers.truncation",
        "Typical": "onnxlens.plugins.samplers.truncation",
        "explain": "onnxlens.plugins._sampling.explain",
        "only": "onnxlens.plugins._sampling.sampler",
        "parse": "onnxlens.plugins._sampling.chain_text",
        "softmax": "onnxlens.plugins._sampling.sampler",
        "standard": "onnxlens.plugins.samplers.standard",
    },
)
