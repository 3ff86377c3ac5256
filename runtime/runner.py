"""Runs a bundle: token ids in, logits and activations out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxlens.runtime.bundle import Bundle
from onnxlens.runtime.compile import PLAIN, Logits, Request, compile_request
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import BundleError, ContextLengthError, InputError, ProviderError
from onnxlens.runtime.hooks import HookPoint, NamesFilter, hook_points, select
from onnxlens.runtime.kv_cache import KVCache, cache_inputs, cache_outputs
from onnxlens.runtime.prepare import Prepared, prepare
from onnxlens.runtime.providers import Provider, candidates, open_session

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxlens.runtime.gradients import GradientRunner

__all__ = ["Output", "Runner"]

_MOST_THREADS = 64  # or as many as there are processors

logger = logging.getLogger("onnxlens")


@dataclass(frozen=True)
class Output:
    """What a pass computed.

    Attributes:
        logits: [B, P, V] float32, or [B, 1, V] where only the last position was asked for.
        activations: the hook points read, by name, in the order of computation.
        kv_cache: keys and values of all positions so far, for a pass that continues.
    """

    logits: np.ndarray
    activations: dict[str, np.ndarray]
    kv_cache: KVCache


class Runner:
    """A model on ONNX Runtime.

    Args:
        bundle: an open bundle, or the path of one.
        provider: `auto` (CUDA where it is there and starts, else the CPU), `cpu` or `cuda`.
        threads: how many threads compute; None for as many as there are physical cores.
        max_sessions: how many compiled requests are kept open; the least recently used goes first.
        progress: told when something takes long.

    Attributes:
        bundle: the bundle.
        config: the model's shape and switches.
        provider: the provider that runs the model.
        hook_points: what can be read, in the order of computation.

    Raises:
        BundleError: the bundle is damaged.
        ProviderError: the provider is unknown, missing, or does not start.
        InputError: `threads` or `max_sessions` is no positive number.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        max_sessions: int = 8,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InputError(f"threads must be a whole number of at least 1, not {threads!r}.")
        most = max(_MOST_THREADS, os.cpu_count() or 1)
        if threads is not None and threads > most:  # ONNX Runtime would start every one of them
            raise InputError(f"threads must be at most {most} on this machine, not {threads}.")
        if type(max_sessions) is not int or max_sessions < 1:
            raise InputError(f"max_sessions must be a whole number of at least 1, not {max_sessions!r}.")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self.config: ModelConfig = self.bundle.config
        self.hook_points: tuple[HookPoint, ...] = hook_points(self.config)
        self._points = {point.name: point for point in self.hook_points}
        self._threads = threads
        self._progress = progress
        self._max_sessions = max_sessions
        self._session = lru_cache(maxsize=max_sessions)(self._open)
        self.provider, self._prepared = self._start(candidates(provider))

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Names of all hook points, in the order of computation."""
        return tuple(self._points)

    @cached_property
    def gradients(self) -> GradientRunner:
        """What runs the graph of the gradients.

        Raises:
            BundleError: the bundle was exported without that graph.
        """
        from onnxlens.runtime.gradients import GradientRunner

        return GradientRunner(self, threads=self._threads, max_sessions=self._max_sessions, progress=self._progress)

    def select(self, names_filter: NamesFilter) -> tuple[str, ...]:
        """Names of the hook points that a filter selects; see `onnxlens.runtime.hooks.select`."""
        return select(names_filter, self._points)

    def check_ids(self, input_ids: npt.ArrayLike) -> np.ndarray:
        """Token ids as [B, P] int64.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.

        Raises:
            InputError: they are of another shape or type, or out of range.
        """
        ids = _array(input_ids, "input_ids")
        if ids.ndim == 1:
            ids = ids[np.newaxis]
        if ids.ndim != 2 or ids.size == 0:
            raise InputError(
                f"input_ids must be [batch, positions] with at least one token; their shape is {list(ids.shape)}."
            )
        if not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"input_ids must be whole numbers, not {ids.dtype}.")
        outside = (ids < 0) | (ids >= self.config.vocab_size)
        if outside.any():
            raise InputError(
                f"Token id {ids[outside][0]} is out of range: this model's ids are 0 to {self.config.vocab_size - 1}."
            )
        return ids.astype(np.int64)

    def run(
        self,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None = None,
        *,
        names_filter: NamesFilter | None = None,
        logits: Logits = "all",
        kv_cache: KVCache | None = None,
    ) -> Output:
        """Computes one pass.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.
            attention_mask: [B, P], 0 where a token is padding; rows of different lengths are padded on the left.
                Values at padding positions mean nothing, and nothing else depends on them.
            names_filter: hook points to read: names or globs, or a function of the name. None reads none.
            logits: at `all` positions, or at the `last` only, which is faster.
            kv_cache: what an earlier pass returned; the ids continue from there.

        Raises:
            InputError: ids, mask or cache do not fit together or the model.
            ContextLengthError: more positions than the model has.
            HookPointError: a name or glob matches no hook point.
        """
        if logits not in ("all", "last"):
            raise InputError(f"logits must be 'all' or 'last', not {logits!r}.")
        ids = self.check_ids(input_ids)
        past = kv_cache if kv_cache is not None else KVCache.empty(self.config, len(ids))
        mask = self._check_mask(attention_mask, ids, past)
        position_ids = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, len(past) :]
        self._check_positions(position_ids)
        if logits == "last" and not mask[:, -1].all():
            row = int(np.argmin(mask[:, -1]))
            raise InputError(f"Row {row} ends with padding, so it has no logits at the last position; pad on the left.")
        reads = self.select(names_filter) if names_filter is not None else ()
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids}
        return self._pass(Request(reads=reads, logits=logits), inputs, past)

    def check_text(
        self, input_ids: npt.ArrayLike, attention_mask: npt.ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, mask and position ids of whole texts, each [B, P] int64; arguments and errors as for `run`."""
        ids = self.check_ids(input_ids)
        mask = self._check_mask(attention_mask, ids, KVCache.empty(self.config, len(ids)))
        position_ids = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        self._check_positions(position_ids)
        return ids, mask, position_ids

    def _pass(self, request: Request, inputs: dict[str, np.ndarray], past: KVCache) -> Output:
        session = self._session(request)
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in past.values.items():
            binding.bind_ortvalue_input(name, value)
        batch, new = inputs["input_ids"].shape
        positions = new if request.logits == "all" else 1
        shapes: dict[str, tuple[int, ...]] = {"logits": (batch, positions, self.config.vocab_size)}
        for name in request.reads:
            shapes[name] = self._points[name].shape(self.config, batch, new, len(past))
        # ONNX Runtime writes straight into these arrays.
        arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        for name, array in arrays.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name in cache_outputs(self.config):
            binding.bind_output(name, self.provider.name)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime raises its own kinds: out of memory, a graph with other shapes
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"ONNX Runtime could not compute this pass of {self.bundle.name}: {reason}") from error
        present = dict(zip(cache_inputs(self.config), binding.get_outputs()[len(arrays) :], strict=True))
        logits = arrays.pop("logits")
        return Output(logits, arrays, KVCache(inputs["attention_mask"], present))

    def _start(self, providers: Sequence[Provider]) -> tuple[Provider, Prepared]:
        for index, provider in enumerate(providers):
            try:
                prepared = prepare(self.bundle, provider, self._progress)
                self.provider, self._prepared = provider, prepared
                self._session(PLAIN)
            except ProviderError as error:
                if index + 1 == len(providers):
                    raise
                logger.warning("%s Running on the CPU.", error)
            else:
                logger.info("running %s on %s", self.bundle.name, provider.name)
                return provider, prepared
        raise AssertionError("there is always a provider to try")

    def _open(self, request: Request) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        # The prepared graph is optimised already, and without regard to what is read.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        folder = self._prepared.folder
        try:
            if request == PLAIN:
                return open_session(self._prepared.plain_graph, options, self.provider)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
            compiled = compile_request(self._graph, request, self.config)
            return open_session(compiled.SerializeToString(), options, self.provider)
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith(("onnxruntime", "google.protobuf")):
                reason = " ".join(str(error).split())[:300]
                raise BundleError(
                    f"Cannot open what was prepared of {self.bundle.name} in {folder}: {reason}. If that folder was "
                    "altered, delete it; the next start makes it again."
                ) from error
            raise

    @cached_property
    def _graph(self) -> ModelProto:
        import onnx  # 0.3 s, and only needed where hook points are read

        return onnx.load(self._prepared.graph, load_external_data=False)

    def _check_mask(self, attention_mask: npt.ArrayLike | None, ids: np.ndarray, past: KVCache) -> np.ndarray:
        if not past.fits(self.config):
            raise InputError("The cache is not one of this model: its layers, heads or widths are others.")
        if past.batch != len(ids):
            raise InputError(f"The cache has {past.batch} rows and input_ids has {len(ids)}.")
        new = np.ones_like(ids) if attention_mask is None else _array(attention_mask, "attention_mask")
        if new.shape != ids.shape:
            raise InputError(
                f"attention_mask has shape {list(new.shape)}, expected that of input_ids: {list(ids.shape)}."
            )
        if not np.isin(new, (0, 1)).all():
            raise InputError("attention_mask must hold 0 and 1 only.")
        return np.concatenate([past.attention_mask, new.astype(np.int64)], axis=1)

    def _check_positions(self, position_ids: np.ndarray) -> None:
        needed, limit = int(position_ids.max()) + 1, self.config.n_positions
        if needed > limit:
            raise ContextLengthError(
                f"The text is {needed} tokens long, and this model has {limit} positions; shorten it."
            )


def _array(values: npt.ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"The rows of {name} have different lengths; pad shorter ones on the left.") from error
