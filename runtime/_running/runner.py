"""Runs a bundle: token ids in, logits and activations out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.selection import NamesFilter, Reached, select
from onnxlens.runtime._graphs.names import (
    EMBEDDED,
    ROWS,
    cache_inputs,
    cache_outputs,
    edit_inputs,
)
from onnxlens.runtime._graphs.request import PLAIN
from onnxlens.runtime._interventions.edits import Edits, check, resolve
from onnxlens.runtime._interventions.functions import ForwardHooks, Hook, find_functions
from onnxlens.runtime._interventions.interventions import Intervention, Source
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.compiled import CompiledRequest, RequestCache, refuse
from onnxlens.runtime._running.kv_cache import KVCache
from onnxlens.runtime._running.plan import PassKeywords, PassOptions, Plan, Text, Touched, check_text, make_plan
from onnxlens.runtime._running.prepare import prepare
from onnxlens.runtime._running.providers import CPU, Provider, candidates
from onnxlens.runtime._running.session import give_back_memory
from onnxlens.runtime._running.token_ids import check_ids
from onnxlens.runtime.errors import BundleError, InputError, OnnxLensError, ProviderError

if TYPE_CHECKING:
    from onnxlens.runtime._running.gradients import GradientRunner

__all__ = ["Output", "Runner"]

_MOST_THREADS = 64  # or as many as there are processors

# Bytes at a multiple of which an array must begin for ONNX Runtime to write into it, as NumPy's own do: at odd places,
# some operators round otherwise.
_ALIGNED = 16

# A longer text than this, in tokens, is computed in pieces, where nothing needs all of it at once. Small pieces are
# faster: their attention scores stay in the processor's cache.
_LONGEST_PASS, _PIECE = 1024, 256

logger = logging.getLogger("onnxlens")


@dataclass(frozen=True)
class Output:
    """What a pass computed.

    Attributes:
        logits: [B, P, V] float32, or [B, 1, V] where only the last position was asked for, or [B, 0, V] for none.
        activations: the hook points read, by name, in the order of computation.
        kv_cache: keys and values of all positions so far, for a pass that continues; None if it was not kept.
        residual: the residual stream with which a pass that stopped early ends, [B, P, D] at the positions that are
            read; else None.
        applied: what each intervention changed where.
        called: the hook points at which functions were called.
    """

    logits: np.ndarray
    activations: dict[str, np.ndarray]
    kv_cache: KVCache | None
    residual: np.ndarray | None = None
    applied: tuple[Applied, ...] = ()
    called: tuple[str, ...] = ()


class Runner:
    """A model on ONNX Runtime.

    Args:
        bundle: an open bundle, or the path of one.
        provider: `auto` (CUDA where it is there and starts, else the CPU), `cpu` or `cuda`.
        threads: how many threads compute; None for as many as there are physical cores.
        max_sessions: how many compiled requests are kept open; the least recently used goes first. None for four more
            than the model has blocks, and eight at least, so that a change of each block in turn stays open.
        progress: called with a text when something takes long.

    Attributes:
        bundle: the bundle.
        config: the model's shape and switches.
        provider: the provider that runs the model.
        threads: how many threads compute; None for as many as there are physical cores.
        hook_points: what can be read, in the order of computation.
        hooks: the `Hook` that functions at a hook point get, by the hook point's name.

    Raises:
        BundleError: the bundle is damaged.
        ProviderError: the provider is unknown, missing, or does not start.
        InputError: `threads` or `max_sessions` is not a positive whole number.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        max_sessions: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        if threads is not None and (not is_integer(threads) or threads < 1):
            raise InputError(f"threads must be a whole number of at least 1, not {threads!r}.")
        most = max(_MOST_THREADS, os.cpu_count() or 1)
        if threads is not None and threads > most:  # ONNX Runtime would start every one of them
            processors = os.cpu_count() or 1
            raise InputError(
                f"threads must be at most {most}, not {threads}: all of them would be started, and this machine has "
                f"{processors} {'processor' if processors == 1 else 'processors'}."
            )
        if max_sessions is not None and (not is_integer(max_sessions) or max_sessions < 1):
            raise InputError(f"max_sessions must be a whole number of at least 1, not {max_sessions!r}.")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self.config: ModelConfig = self.bundle.config
        self.hook_points: tuple[HookPoint, ...] = self.bundle.description.hook_points
        self._points = self.bundle.description.points
        self.hooks = {name: Hook(name) for name in self._points}
        self.threads = threads
        self._progress = progress
        self._max_sessions = max_sessions or max(8, self.config.n_layers + 4)
        self._options = provider, threads, max_sessions  # as they were given
        self.provider, self._requests = self._start(candidates(provider))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the bundle's path and the options.

        Raises:
            InputError: this is closed.
        """
        if self.is_closed:
            refuse()
        return _runner_at, (self.bundle, *self._options)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Names of all hook points, in the order of computation."""
        return tuple(self._points)

    def is_read_by_default(self, name: str) -> bool:
        """Whether a hook point is read by default: all are but those that are large and computed on request."""
        return not self._points[name].on_request

    @property
    def _source(self) -> Source:
        return Source(self.bundle.facts.name, self.bundle.facts.hash)

    @cached_property
    def gradients(self) -> GradientRunner:
        """The runner of the graph of the gradients.

        Raises:
            BundleError: the bundle was exported without that graph.
            InputError: this is closed.
        """
        from onnxlens.runtime._running.gradients import GradientRunner

        if self.is_closed:
            refuse()
        return GradientRunner(self, threads=self.threads, max_sessions=self._max_sessions, progress=self._progress)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._requests.is_closed

    def close(self) -> None:
        """Closes all sessions and frees their memory; nothing can be run then.

        Activations that were read and the bundle stay usable. Runs that other threads have begun are finished.
        """
        self._requests.close()
        if "gradients" in vars(self):
            self.gradients.close()
        give_back_memory()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def select(self, names_filter: NamesFilter) -> tuple[str, ...]:
        """Names of the hook points that a filter selects; see `onnxlens.runtime._bundle.selection.select`."""
        return select(names_filter, self._points)

    def check_ids(self, input_ids: npt.ArrayLike) -> np.ndarray:
        """Token ids as [B, P] int64.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.

        Raises:
            InputError: they are of another shape or type, or out of range.
        """
        return check_ids(input_ids, self.config.d_vocab)

    def resolve(
        self,
        interventions: Iterable[Intervention] | Intervention | None,
        *,
        mask: np.ndarray,
        limit: int | None = None,
    ) -> Edits:
        """Resolves interventions for this model and a batch of texts that will be run from their start.

        Args:
            interventions: what to change.
            mask: [rows, positions] of the prompts, 0 where a token is padding.
            limit: positions that can be computed at most, if more will be generated.

        Raises:
            HookPointError, InputError: as `runtime._interventions.edits.resolve` does.
        """
        return resolve(interventions, self.hook_points, self.select, self.config, self._source, mask=mask, limit=limit)

    def check_changes(self, interventions: Iterable[Intervention], fwd_hooks: ForwardHooks) -> None:
        """Checks what can be checked of changes before there is a text: names, axes, heads, neurons and the model.

        Raises:
            HookPointError: a name or glob matches no hook point.
            InputError: an intervention does not fit the model, or something is not a change.
        """
        check(interventions, self.hook_points, self.select, self.config, self._source)
        find_functions(fwd_hooks, self.select)

    def run(
        self,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None = None,
        **options: Unpack[PassKeywords],
    ) -> Output:
        """Computes one pass: `execute(plan(...))`; the options and errors are those of `plan`.

        A long text of which only the last logits are wanted, or the KV cache, is computed in pieces, one after the
        other on the cache: the attention scores of a pass take memory that grows with the square of its length.
        """
        return self.execute(self._last_piece(self.plan(input_ids, attention_mask, **options)))

    def profile(self, input_ids: npt.ArrayLike, *, times: int = 3) -> dict[str, float] | None:
        """Measures how long each value of a pass takes that computes the last logits.

        The times are ONNX Runtime's, of the nodes of the graph. A node counts for the first of the hook points and
        outputs that need it.

        Args:
            input_ids: token ids of one text, [P].
            times: how many passes to measure, of which the fastest counts.

        Returns:
            Seconds by hook point and output; None on a GPU, or where a text is so long that it is computed in pieces.

        Raises:
            InputError: the ids cannot be used, or this is closed.
            ContextLengthError: more positions than the model has.
        """
        from onnxlens.runtime._running.profile import profiled

        plan = self.plan(input_ids, logits="last")
        ids = plan.inputs["input_ids"]
        if self.provider is not CPU or ids.shape[1] > _LONGEST_PASS:
            return None
        feeds = {**plan.past.values, **plan.inputs, EMBEDDED: self._requests.embedding.rows(ids)}
        return profiled(self._requests, feeds, plan.shapes, self.hook_names, times)

    def _last_piece(self, plan: Plan) -> Plan:
        """Computes all but the end of a long pass, where it can be computed in pieces; returns the rest."""
        past: KVCache | None = plan.past
        ids, rows = plan.inputs["input_ids"], plan.inputs.get(ROWS)
        if ids.shape[1] <= _LONGEST_PASS or not plan.is_divisible:
            return plan
        mask = plan.inputs["attention_mask"][:, len(plan.past) :]
        while ids.shape[1] > _PIECE:
            piece = self.plan(ids[:, :_PIECE], mask[:, :_PIECE], logits="none", kv_cache=past, cache_rows=rows)
            past, rows = self.execute(piece).kv_cache, None
            ids, mask = ids[:, _PIECE:], mask[:, _PIECE:]
        request = plan.request
        return self.plan(ids, mask, logits=request.logits, kv_cache=past, keep_cache=request.keys_and_values)

    def plan(
        self,
        input_ids: npt.ArrayLike,
        attention_mask: npt.ArrayLike | None = None,
        **options: Unpack[PassKeywords],
    ) -> Plan:
        """Checks a pass and returns its plan, without computing anything.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.
            attention_mask: [B, P], 0 where a token is padding; rows of different lengths are padded on the left.
                Values at padding positions mean nothing, and nothing else depends on them.
            options: those of `PassOptions`.

        Raises:
            InputError: ids, mask, cache, an intervention or an option do not fit together or the model.
            ContextLengthError: more positions than the model has.
            HookPointError: a name or glob matches no hook point, or none that is reached.
        """
        asked = PassOptions(**options)
        text = check_text(input_ids, attention_mask, asked, self.config)
        touched = self._touched(text, asked)
        return make_plan(text, touched, asked, self.hook_points, self.config)

    def _touched(self, text: Text, options: PassOptions) -> Touched:
        """Finds the hook points that a pass reads and changes, among those that it reaches."""
        reached = Reached(self.hook_points, self.config, options.stop_at_layer)
        asked = reached.select(options.names_filter) if options.names_filter is not None else ()
        functions = find_functions(options.fwd_hooks, reached.select)
        edits = options.interventions
        if not isinstance(edits, Edits):
            edits = resolve(
                edits,
                self.hook_points,
                reached.select,
                self.config,
                self._source,
                mask=text.mask,
                start=len(text.past),
            )
        return Touched(asked, reached.residual, edits, functions)

    def execute(self, plan: Plan, into: Mapping[str, np.ndarray] | None = None) -> Output:
        """Computes a planned pass.

        Args:
            plan: what `plan` returned.
            into: arrays that hook points are read into, by name, in the shapes of the plan; the others get new ones.

        Raises:
            HookFunctionError: a function failed, or returned what cannot be used.
            InputError: interventions or functions made logits or a stream NaN or infinite; or this is closed.
            BundleError: ONNX Runtime could not compute it.
        """
        request = plan.request
        # Sessions are opened before results are allocated, so that results reuse the memory that opening took.
        compiled = self._requests.open(request)
        embedding = self._requests.embedding if EMBEDDED in compiled.inputs else None
        compiled.open(plan.inputs["input_ids"].shape[1])
        self._check_reached(compiled, plan)
        given_arrays = into or {}
        results = {name: array for name, array in given_arrays.items() if array.ctypes.data % _ALIGNED == 0}
        results |= {name: np.empty(shape, np.float32) for name, shape in plan.shapes.items() if name not in results}
        suffix = ".picked" if request.some_positions else ""
        arrays = {name if name == "logits" else name + suffix: array for name, array in results.items()}
        rows, new = plan.inputs["input_ids"].shape

        def before_functions(name: str) -> np.ndarray:
            return np.empty(self._points[name].shape(self.config, rows, new, len(plan.past)), np.float32)

        try:
            feeds = {**plan.past.values, **plan.inputs}
            if embedding is not None:
                feeds[EMBEDDED] = embedding.rows(plan.inputs["input_ids"])
            values = compiled.run(feeds, arrays, plan.functions, self.hooks, before_functions)
        except OnnxLensError:
            raise
        except Exception as error:  # ONNX Runtime raises its own kinds: out of memory, a graph with other shapes
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"ONNX Runtime could not compute this pass of {self.bundle.name}: {reason}") from error
        if not suffix:
            for name in plan.functions.keys() & results.keys():  # reads the results of the functions
                results[name][...] = values[name]
        for name, array in given_arrays.items():
            if array is not results[name]:
                array[...] = results[name]
                results[name] = array
        logits = results.pop("logits")
        residual = results[plan.residual] if plan.residual else None
        self._check_numbers(logits, residual, plan)
        kept = None
        if request.keys_and_values:
            names = zip(cache_inputs(self.config), cache_outputs(self.config), strict=True)
            kept = KVCache(plan.inputs["attention_mask"], {name: values[output] for name, output in names})
        read = {name: results[name] for name in plan.reads}
        return Output(logits, read, kept, residual, plan.edits.applied, request.calls)

    def check_text(
        self, input_ids: npt.ArrayLike, attention_mask: npt.ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, mask and position ids of whole texts, each [B, P] int64; arguments and errors as for `plan`."""
        text = check_text(input_ids, attention_mask, PassOptions(), self.config)
        return text.ids, text.mask, text.position_ids

    def _check_reached(self, compiled: CompiledRequest, plan: Plan) -> None:
        inputs = compiled.inputs
        for index, (name, kind) in enumerate(plan.edits.plan):
            if not inputs.issuperset(edit_inputs(index, kind)):
                raise InputError(f"The intervention at {name!r} is never reached: nothing that was asked for needs it.")

    def _check_numbers(self, logits: np.ndarray, residual: np.ndarray | None, plan: Plan) -> None:
        """Checks that the results of a changed pass are finite."""
        if not (plan.edits.applied or plan.functions):
            return
        mask = plan.inputs["attention_mask"]
        if residual is None:
            ends, name, real = logits, "some logits", mask[:, mask.shape[1] - logits.shape[1] :] == 1
        else:
            new = mask[:, len(plan.past) :]
            ends, name = residual, "some values of the residual stream"
            real = (new if plan.positions is None else new[:, plan.positions]) == 1
        real = np.broadcast_to(real, ends.shape[:-1])  # rows that join a pass share one mask
        # Any NaN or infinity shows in the largest or the smallest one, which takes no array of the logits' size.
        if not all(np.isfinite(extreme(ends, axis=-1)[real]).all() for extreme in (np.max, np.min)):
            what = " and ".join([
                *(["the interventions"] if plan.edits.applied else []), *(["the functions"] if plan.functions else [])
            ])  # fmt: skip
            raise InputError(
                f"With {what}, {name} are NaN or infinite; a pattern or score was probably made "
                "impossible, or an activation too large."
            )

    def _start(self, providers: Sequence[Provider]) -> tuple[Provider, RequestCache]:
        for index, provider in enumerate(providers):
            try:
                prepared = prepare(self.bundle, provider, self._progress)
                requests = RequestCache(prepared, self.bundle.description, self.threads, self._max_sessions)
                if len(providers) > 1 or provider is not CPU:  # the processor is there; its graphs open when needed
                    requests.open(PLAIN)
            except ProviderError as error:
                if index + 1 == len(providers):
                    raise
                logger.warning("%s Running on the CPU.", error)
            else:
                logger.info("running %s on %s", self.bundle.name, provider.name)
                return provider, requests
        raise AssertionError("there is always a provider to try")


def _runner_at(bundle: Bundle, *options: Any) -> Runner:
    """The runner that was pickled: one for all its copies in this process, so that each task of a pool has it open."""
    runner = _shared(bundle, *options)
    if runner.is_closed:
        _shared.cache_clear()
        runner = _shared(bundle, *options)
    return runner


@lru_cache(maxsize=2)
def _shared(bundle: Bundle, provider: str, threads: int | None, max_sessions: int | None) -> Runner:
    return Runner(bundle, provider=provider, threads=threads, max_sessions=max_sessions)
