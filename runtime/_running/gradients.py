"""Runs the graph of a bundle's gradients: a forward pass, a cotangent made from its logits, and the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.selection import NamesFilter, select
from onnxlens.runtime._graphs.backward import GradientRequest, backward_graph, forward_graph, saved_values
from onnxlens.runtime._graphs.names import COTANGENT, EMBEDDING, GRADIENT
from onnxlens.runtime._running.compiled import refuse
from onnxlens.runtime._running.prepare import prepare
from onnxlens.runtime._running.prepared import Prepared
from onnxlens.runtime._running.providers import run_bound
from onnxlens.runtime._running.session import Session
from onnxlens.runtime.errors import BundleError, HookPointError, InputError, OnnxLensError

if TYPE_CHECKING:
    from onnxlens.runtime._running.runner import Runner

__all__ = ["Cotangent", "GradientOutput", "GradientRunner"]

# From logits [B, P, V] to the cotangent, of the same shape.
Cotangent = Callable[[np.ndarray], np.ndarray]

_ONNX_TYPES = {"tensor(float)": 1, "tensor(int32)": 6, "tensor(int64)": 7, "tensor(bool)": 9}  # TensorProto's numbers


@dataclass(frozen=True)
class GradientOutput:
    """What a forward pass and the backward pass computed.

    Attributes:
        logits: [B, P, V] float32.
        gradients: the gradient at each hook point asked for, in the hook point's shape.
        activations: the values of the hook points read.
    """

    logits: np.ndarray
    gradients: dict[str, np.ndarray]
    activations: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Compiled:
    """The sessions of a request.

    Attributes:
        forward: from token ids to logits, reads, and the values saved for the backward pass.
        saved: the saved values by name, with where they are kept.
        backward: from the cotangent to the gradients; None where no gradient is wanted.
    """

    forward: Session
    saved: Mapping[str, str]
    backward: Session | None


class GradientRunner:
    """The gradients of a model on ONNX Runtime.

    Args:
        runner: the model.
        threads: how many threads compute; None for as many as there are physical cores.
        max_sessions: how many compiled requests are kept open; the least recently used goes first.
        progress: called with a text when something takes long.

    Raises:
        BundleError: the bundle was exported without the graph of its gradients.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        threads: int | None = None,
        max_sessions: int = 8,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        bundle = runner.bundle
        if not bundle.has_gradients:
            raise BundleError(
                f"The bundle {bundle.name} has no graph of its gradients ({GRADIENTS_GRAPH}). Export the model again "
                f"with it: 'onnxlens export SOURCE {bundle.path} --gradients --force'."
            )
        self._runner = runner
        self._threads = threads
        self._points: dict[str, HookPoint] = {p.name: p for p in runner.hook_points if not p.on_request}
        self._compiled = lru_cache(maxsize=max_sessions)(self._compile)
        self._prepared: Prepared = prepare(bundle, runner.provider, progress, gradients=True)

    def close(self) -> None:
        """Closes all sessions; nothing can be run then."""
        self._compiled = lru_cache(refuse)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Names of the hook points at which there is a gradient, in the order of computation."""
        return tuple(self._points)

    def select(self, names_filter: NamesFilter) -> tuple[str, ...]:
        """Names of the hook points with a gradient that a filter selects; see `onnxlens.runtime._bundle.hooks.select`.

        Raises:
            HookPointError: a name or glob selects nothing, or only what is computed on request.
        """
        try:
            return select(names_filter, self._points)
        except HookPointError:
            self._runner.select(names_filter)  # raises an error that says what is wrong with the filter
            raise HookPointError(
                f"'hook_result', which {names_filter!r} selects, has no gradient of its own: the heads' results are "
                "added up, so the gradient at each is that at 'hook_attn_out' of the same block. Ask for that, or for "
                "'hook_z'."
            ) from None

    def run(
        self,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None = None,
        *,
        cotangent: Cotangent,
        names_filter: NamesFilter | None = "*",
        activations: NamesFilter | None = None,
        embeddings: np.ndarray | None = None,
    ) -> GradientOutput:
        """Computes the gradient of sum(cotangent * logits) at hook points.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.
            attention_mask: [B, P], 0 where a token is padding; rows of different lengths are padded on the left.
            cotangent: called with the logits, [B, P, V] float32; returns an array of that shape: for the gradient of a
                function of the logits, that function's gradient at these.
            names_filter: hook points at which the gradient is wanted: names or globs, or a function of the name. None
                for no gradients; the cotangent is then not called.
            activations: hook points whose values are wanted from the same pass.
            embeddings: [B, P, D], used as `hook_embed` in place of the rows that the token ids name.

        Raises:
            InputError: ids, mask, embeddings or cotangent do not fit together or the model.
            ContextLengthError: more positions than the model has.
            HookPointError: a name or glob matches no hook point with a gradient.
        """
        ids, mask, positions = self._runner.check_text(input_ids, attention_mask)
        request = GradientRequest(
            gradients=self.select(names_filter) if names_filter is not None else (),
            reads=self.select(activations) if activations is not None else (),
            embedded=embeddings is not None,
        )
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        if embeddings is not None:
            inputs[EMBEDDING] = _checked(embeddings, (*ids.shape, self._runner.config.d_model), "embeddings")
        compiled = self._compiled(request)
        logits, read, saved = self._forward(compiled, request, inputs)
        gradients: dict[str, np.ndarray] = {}
        if compiled.backward is not None:
            grad_logits = _checked(cotangent(logits), logits.shape, "The cotangent")
            gradients = self._backward(
                compiled.backward.get(), request, {**inputs, COTANGENT: grad_logits, **read}, saved
            )
        if embeddings is not None and EMBEDDING in request.reads:
            read[EMBEDDING] = inputs[EMBEDDING]
        return GradientOutput(logits, gradients, {name: read[name] for name in request.reads})

    def _forward(
        self, compiled: _Compiled, request: GradientRequest, inputs: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, onnxruntime.OrtValue]]:
        """Logits, the values read, and the values kept for the backward pass."""
        session = compiled.forward.get()
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        config, shape = self._runner.config, inputs["input_ids"].shape
        shapes = {"logits": (*shape, config.d_vocab), **self._shapes(request.reads, shape)}
        if request.embedded:
            shapes.pop(EMBEDDING, None)
        arrays = _bind_outputs(binding, shapes)
        kept = {name: device for name, device in compiled.saved.items() if name not in arrays}
        for name, device in kept.items():
            binding.bind_output(name, device)
        self._run(session, binding)
        saved = dict(zip(kept, binding.get_outputs()[len(arrays) :], strict=True))
        return arrays.pop("logits"), arrays, saved

    def _backward(
        self,
        session: onnxruntime.InferenceSession,
        request: GradientRequest,
        arrays: dict[str, np.ndarray],
        saved: dict[str, onnxruntime.OrtValue],
    ) -> dict[str, np.ndarray]:
        binding = session.io_binding()
        for value in session.get_inputs():
            if value.name in saved:
                binding.bind_ortvalue_input(value.name, saved[value.name])
            else:
                binding.bind_cpu_input(value.name, np.ascontiguousarray(arrays[value.name]))
        shapes = self._shapes(request.gradients, arrays["input_ids"].shape)
        gradients = _bind_outputs(binding, {GRADIENT + name: shape for name, shape in shapes.items()})
        self._run(session, binding)
        return {name: gradients[GRADIENT + name] for name in request.gradients}

    def _shapes(self, names: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {name: self._points[name].shape(self._runner.config, *shape) for name in names}

    def _run(self, session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> None:
        try:
            run_bound(session, binding, self._prepared.provider)
        except OnnxLensError:
            raise
        except Exception as error:  # ONNX Runtime raises its own kinds: out of memory, a graph with other shapes
            reason = " ".join(str(error).split())[:300]
            raise BundleError(
                f"ONNX Runtime could not compute these gradients of {self._runner.bundle.name}: {reason}"
            ) from error

    def _compile(self, request: GradientRequest) -> _Compiled:
        graph = self._prepared.graph
        forward = self._prepared.open(forward_graph(graph, request), self._threads, takes_turns=True)
        if not request.gradients:
            return _Compiled(forward, {}, None)
        opened = forward.get()
        known = {value.name: value.type for value in (*opened.get_inputs(), *opened.get_outputs())}
        over = saved_values(graph, request)
        types = {name: _ONNX_TYPES[known[name]] for name in over}
        inputs = {value.name for value in opened.get_inputs()}
        # ONNX Runtime reads shapes on the CPU, wherever the model runs.
        where = self._runner.provider.name
        devices: dict[str, str] = {
            name: "cpu" if types[name] == _ONNX_TYPES["tensor(int64)"] else where for name in over if name not in inputs
        }
        backward = self._prepared.open(backward_graph(graph, request, types), self._threads, takes_turns=True)
        return _Compiled(forward, devices, backward)


def _bind_outputs(binding: onnxruntime.IOBinding, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Binds outputs to arrays, into which ONNX Runtime writes directly."""
    arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    for name, array in arrays.items():
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return arrays


def _checked(array: npt.ArrayLike, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The array as float32."""
    found = np.asarray(array)
    if found.shape != shape:
        raise InputError(f"{what} must have shape {list(shape)}, not {list(found.shape)}.")
    if not np.issubdtype(found.dtype, np.floating):
        raise InputError(f"{what} must be floating-point numbers, not {found.dtype}.")
    with np.errstate(over="ignore"):
        narrowed = found.astype(np.float32)
    if not np.isfinite(narrowed).all():
        raise InputError(f"{what} must be finite, and {int((~np.isfinite(narrowed)).sum())} of its numbers are not.")
    return narrowed
