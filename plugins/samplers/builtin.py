"""The samplers that are built in, by name: an ordinary plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxlens.plugins._hookspecs import hookimpl
from onnxlens.plugins._sampling.sampler import Sampler
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

__all__ = ["SAMPLERS", "register_samplers"]

ONNXLENS_PLUGIN_API = 1

# By the names of papers, transformers, llama.cpp or llguidance.
SAMPLERS: Mapping[str, type[Sampler]] = {
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "typical_p": Typical,
    "epsilon_cutoff": Epsilon,
    "eta_cutoff": Eta,
    "tfs_z": TailFree,
    "top_n_sigma": TopNSigma,
    "top_h": TopH,
    "xtc": XTC,
    "temperature": Temperature,
    "dynatemp": DynamicTemperature,
    "logit_bias": LogitBias,
    "bad_words": BadWords,
    "suppress_tokens": SuppressTokens,
    "min_length": MinLength,
    "min_new_tokens": MinNewTokens,
    "forced_bos": ForcedFirst,
    "forced_eos": ForcedLast,
    "exponential_decay_length_penalty": ExponentialLength,
    "repetition_penalty": RepetitionPenalty,
    "presence_penalty": PresencePenalty,
    "frequency_penalty": FrequencyPenalty,
    "no_repeat_ngram_size": NoRepeatNGram,
    "dry": DRY,
    "mirostat": Mirostat,
    "mirostat_v2": MirostatV2,
    "regex": Regex,
    "json_schema": JsonSchema,
    "lark": LarkGrammar,
    "greedy": Greedy,
    "multinomial": Multinomial,
    "gumbel": Gumbel,
}


@hookimpl
def register_samplers(register: Callable[[str, type[Sampler]], None]) -> None:
    """Registers the built-in samplers."""
    for name, sampler in SAMPLERS.items():
        register(name, sampler)
