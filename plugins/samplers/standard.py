"""The chain that the options of `Lens.generate` stand for."""

from __future__ import annotations

from onnxlens.plugins._options import make
from onnxlens.plugins._sampling.sampler import Chain, Sampler
from onnxlens.plugins.samplers.choosing import Greedy, Multinomial
from onnxlens.plugins.samplers.shaping import Temperature
from onnxlens.plugins.samplers.truncation import TopK, TopP
from onnxlens.runtime._numbers import is_number

__all__ = ["standard"]


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
