"""What a bundle's manifest says of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.weight_view import WeightView
from onnxlens.runtime._escape import cut, quoted
from onnxlens.runtime.errors import BundleError

__all__ = ["ModelDescription", "Normalization", "ResidualStream"]


@dataclass(frozen=True)
class ResidualStream:
    """The residual stream, as the hook points at which it can be read and of what is added to it.

    Attributes:
        parts: hook points of what is added to the stream, in order.
        states: hook points of the stream itself, in order.
    """

    parts: tuple[str, ...]
    states: tuple[str, ...]


@dataclass(frozen=True)
class Normalization:
    """A normalisation that reads the residual stream.

    Its weight is `<name>.w`, its divisor `<name>.hook_scale`, and the value before weight and bias
    `<name>.hook_normalized`.

    Attributes:
        reads: the hook point of the stream that it reads.
        kind: `LN`, which centres the stream and divides it by its standard deviation (Ba et al. 2016, "Layer
            Normalization"), and has a bias, `<name>.b`; or `RMS`, which divides it by its root mean square (Zhang and
            Sennrich 2019, "Root Mean Square Layer Normalization").
        eps: what is added to the variance or the mean square.
    """

    reads: str
    kind: Literal["LN", "RMS"]
    eps: float

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Values [..., D] as the normalisation divides them: without their mean, where it centres."""
        return values - values.mean(axis=-1, keepdims=True) if self.kind == "LN" else values


@dataclass(frozen=True)
class ModelDescription:
    """A model without its weights.

    Attributes:
        cfg: its shape and kind.
        hook_points: its hook points, in the order of computation.
        residual_stream: the hook points of the residual stream.
        normalizations: those that read the stream, by name, such as `blocks.0.ln1`.
        weights: which stored tensor each weight is, and how, by TransformerLens's names.
    """

    cfg: ModelConfig
    hook_points: tuple[HookPoint, ...]
    residual_stream: ResidualStream
    normalizations: Mapping[str, Normalization]
    weights: Mapping[str, WeightView] = field(default_factory=dict)

    @cached_property
    def points(self) -> dict[str, HookPoint]:
        """The hook points by name."""
        return {point.name: point for point in self.hook_points}

    def tensor(self, weight: str) -> str:
        """The name of the stored tensor that a weight lies in.

        Raises:
            BundleError: the model has no such weight.
        """
        view = self.weights.get(weight)
        if view is None or view.tensor is None:
            raise BundleError(f"This model has no weight {weight!r}.")
        return view.tensor

    def to_dict(self) -> dict[str, Any]:
        """Returns the entries of a manifest, without the weights."""
        return {
            "cfg": self.cfg.to_dict(),
            "hook_points": [point.to_dict() for point in self.hook_points],
            "residual_stream": {name: list(value) for name, value in asdict(self.residual_stream).items()},
            "normalizations": {name: asdict(one) for name, one in self.normalizations.items()},
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], origin: str) -> ModelDescription:
        """Reads entries that `to_dict` returned.

        Args:
            entries: by name; others are ignored.
            origin: what to call them in an error.

        Raises:
            BundleError: they do not describe a model; the text says why.
        """
        cfg = ModelConfig.from_dict(entries["cfg"], f"'cfg' in {origin}")
        where = "'hook_points'"
        try:
            points: list[HookPoint] = []
            for entry in entries["hook_points"]:
                where = f"the hook point {quoted(entry.get('name'))}"
                points.append(HookPoint.from_dict(entry, cfg))
            known = {point.name: point for point in points}
            where = "'hook_points'"
            if len(known) != len(points):
                raise ValueError("a name appears twice")
            where = "'residual_stream'"
            stream = ResidualStream(**{name: tuple(value) for name, value in entries["residual_stream"].items()})
            where = "'normalizations'"
            norms = {name: Normalization(**one) for name, one in entries["normalizations"].items()}
            where = "the hook table"
            _check(cfg, known, stream, norms)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else cut(str(error), 300)
            raise BundleError(f"In {origin}, {where} cannot be used: {reason}.") from error
        return cls(cfg, tuple(points), stream, norms)


def _check(
    cfg: ModelConfig, points: Mapping[str, HookPoint], stream: ResidualStream, norms: Mapping[str, Normalization]
) -> None:
    """Checks that a description is consistent.

    Raises:
        ValueError: it is not.
    """
    known = {str(layer) for layer in range(cfg.n_layers)}
    beyond = [name for name in points if name.startswith("blocks.") and name.split(".")[1] not in known]
    if beyond:
        raise ValueError(f"{quoted(beyond[0])} is not a hook point of a model of {cfg.n_layers} blocks")
    width = ("batch", "pos", "d_model")
    named: Sequence[str] = (*stream.parts, *stream.states, *(one.reads for one in norms.values()))
    for name in named:
        if name in points and points[name].axes != width:
            raise ValueError(f"{quoted(name)} is listed as part of the residual stream, but has other axes")
        if not isinstance(name, str):
            raise TypeError(f"{quoted(name)} is not a name")
    for name, one in norms.items():
        if one.kind not in ("LN", "RMS") or type(one.eps) is not float or not 0 < one.eps < 1:
            raise ValueError(f"{quoted(name)} is of an unknown kind, or its 'eps' is not a number between 0 and 1")
    for point in points.values():
        if point.product is not None:
            source, target = points.get(point.product.activation), points.get(point.product.added_to)
            if source is None or source.axes != ("batch", "pos", "head", "d_head"):
                raise ValueError(
                    f"{quoted(point.name)} is computed from a hook point that is not an activation of heads"
                )
            if target is None or target.axes != width or point.axes != ("batch", "pos", "head", "d_model"):
                raise ValueError(
                    f"{quoted(point.name)} is added to a hook point that is not part of the residual stream"
                )
