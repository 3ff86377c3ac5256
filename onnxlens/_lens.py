"""The front door: text in, predictions, text and activations out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack, overload

import numpy as np

from onnxlens._catalog import find
from onnxlens._changes import AddedHook, Blocks, Changes, Interventions, changes_of
from onnxlens._generation import Generation
from onnxlens._gradients import GradientResult, differentiate
from onnxlens._model import Ids, Model, is_batch, one_row
from onnxlens._prediction import Candidate, Prediction
from onnxlens._sampling import AnySampler, Choice, checked_seed, find_sampler
from onnxlens._viewing import AnyVisualizer, views
from onnxlens.metrics import AnyMetric
from onnxlens.plugins._drawing.rendering import Rendering
from onnxlens.plugins._registry import Registry
from onnxlens.plugins._sampling.explain import Explanation
from onnxlens.plugins._sampling.sampler import softmax
from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._activations.slices import Slice
from onnxlens.runtime._activations.trace import open_trace, recorded
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.cfg import TransformerLensConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._escape import quoted
from onnxlens.runtime._interventions.functions import ForwardHooks, Hook, HookFunction
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.continuations import Continuations
from onnxlens.runtime._running.generation import Step, generate_ids
from onnxlens.runtime._running.logits import lm_cross_entropy_loss, top_ids
from onnxlens.runtime._running.plan import ReadKeywords
from onnxlens.runtime._running.runner import Output, Runner
from onnxlens.runtime.errors import InputError

__all__ = ["Lens", "load"]

ReturnType: TypeAlias = Literal["logits", "loss", "both"] | None


class GenerateKeywords(TypedDict, total=False):
    """The options of `Lens.generate`; each may be left out."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    sampler: AnySampler | None
    seed: int | None
    stop: str | Sequence[str] | None
    overflow: str
    names_filter: NamesFilter | None
    interventions: Interventions
    fwd_hooks: ForwardHooks
    explain: bool
    prepend_bos: bool


def load(
    name: str | Path | None = None,
    *,
    provider: str = "auto",
    threads: int | None = None,
    max_sessions: int | None = None,
    verify: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    plugins: Registry | Iterable[str | Path] = (),
) -> Lens:
    """Opens a model.

    Args:
        name: a bundle's path or name, see `onnxlens.find`; None for the model that ships.
        provider: `auto` (CUDA where it is there and starts, else the CPU), `cpu` or `cuda`.
        threads: how many threads compute; None for as many as there are physical cores.
        max_sessions: how many requests (what is read and changed, not the texts) stay open; the least recently used is
            closed first. None for four more than the model has blocks, and eight at least.
        verify: compare the SHA-256 of every file with the manifest, the weights' too, and the hash of every file that
            was prepared of them; prepared files that differ are made again.
        progress: called with a text when something takes long.
        plugins: Python files to use as plugins, besides those that are found; or a `Plugins`.

    Returns:
        The model, which `close` or the end of a `with` block closes: `with onnxlens.load() as lens:`.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
        ProviderError: the provider is unknown, missing, or does not start.
        InputError: `threads` or `max_sessions` is not a positive whole number.
        PluginError: a plugin's file does not exist.
    """
    known = plugins if isinstance(plugins, Registry) else Registry(plugins)
    bundle = Bundle(find(name), verify=verify)
    runner = Runner(bundle, provider=provider, threads=threads, max_sessions=max_sessions, progress=progress)
    return Lens(runner, known)


class Lens(Model):
    """A model that runs, with its tokenizer.

    Args:
        runner: the model on ONNX Runtime.
        plugins: the plugins; None for those that are found.

    Attributes:
        runner: the same.
        plugins: the plugins; those that are not built in are loaded when one of them is first used.

    Raises:
        InputError: `runner` is not a Runner.

    The text, shape and weights of the model are attributes and methods of `Model`.
    """

    def __init__(self, runner: Runner, plugins: Registry | None = None) -> None:
        if not isinstance(runner, Runner):
            raise InputError(
                f"A Lens is made of a Runner, not of {quoted(runner)}; onnxlens.load opens a model by name."
            )
        super().__init__(runner.bundle)
        self.runner = runner
        self.plugins = Registry() if plugins is None else plugins
        self._blocks = Blocks()
        self._added: tuple[AddedHook, ...] = ()

    def __repr__(self) -> str:
        closed = ", closed" * self.runner.is_closed
        return f"Lens({self.runner.bundle.name!r}, provider={self.provider!r}{closed})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the bundle's path and the options, so that another process opens the model itself.

        Raises:
            InputError: hooks change its runs, and would be lost; or it is closed.
        """
        if self.is_changed:
            raise InputError(
                "A lens cannot be pickled or copied while hooks change its runs, because the hooks would be lost. "
                "Leave the block of lens.hooks, or call reset_hooks, first."
            )
        return type(self), (self.runner, self.plugins)

    def close(self) -> None:
        """Closes the model and frees its memory.

        Nothing can be run then; the tokenizer, the weights and activations that were read stay usable. Runs that other
        threads have begun are finished. Closing twice is allowed.
        """
        self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(
        self,
        text: str | Ids | Sequence[str],
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool = False,
        *,
        stop_at_layer: int | None = None,
    ) -> Any:
        """Runs a text, as TransformerLens's `model(text)` does.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            return_type: `logits`, `loss`, `both`, or None to return nothing.
            loss_per_token: give the loss of each token but the first.
            prepend_bos: put the beginning-of-text token in front of each text.
            stop_at_layer: the block before which to stop, negative ones from the end.

        Returns:
            Logits at all positions, [B, P, V]; the mean cross-entropy of the next token in nats, padding left out, or
            with `loss_per_token` that of each token, [B, P - 1], 0 at padding; or a pair of both. With
            `stop_at_layer` the residual stream there, [B, P, D].

        Raises:
            InputError: the text or ids, or an option, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
        """
        _check_return_type(return_type)
        ids, mask = self._batch(text, prepend_bos)
        output = self.run(ids, mask, keep_cache=False, stop_at_layer=stop_at_layer)
        if output.residual is not None:
            return output.residual
        return _returned(output.logits, ids, mask, return_type, loss_per_token)

    @property
    def cfg(self) -> TransformerLensConfig:
        """The model's shape and kind, by TransformerLens's names, and where it runs."""
        return replace(super().cfg, device=self.provider)

    @property
    def provider(self) -> str:
        """The execution provider that runs the model: `cpu` or `cuda`."""
        return self.runner.provider.name

    @property
    def hook_points(self) -> tuple[HookPoint, ...]:
        """The hook points that can be read, in the order of computation."""
        return self.runner.hook_points

    @property
    def is_changed(self) -> bool:
        """Whether an enclosing block of `hooks`, or a hook that was added, changes every run."""
        return any(self._standing)

    # A str is a sequence of str, too; the first overload that fits is taken.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        text: str | np.ndarray,
        *,
        top: int = 10,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        prepend_bos: bool = False,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        text: Sequence[int],
        *,
        top: int = 10,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        prepend_bos: bool = False,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        text: Sequence[str],
        *,
        top: int = 10,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        prepend_bos: bool = False,
    ) -> list[Prediction]: ...

    def predict(
        self,
        text: str | Ids | Sequence[str],
        *,
        top: int = 10,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        prepend_bos: bool = False,
    ) -> Prediction | list[Prediction]:
        """Predicts the next token.

        Args:
            text: a text, or its token ids, or several texts, which give a list. An empty text predicts from
                `<|endoftext|>`.
            top: how many candidates to list; the full vocabulary is in `logits` and `probabilities`.
            interventions: changes to make, as objects or as the path of a JSON file of them.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`.
            prepend_bos: put the beginning-of-text token in front of each text.

        Raises:
            InputError: the text or ids cannot be used, `top` is below 1, or an intervention does not fit.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        if not is_integer(top) or top < 1:
            raise InputError(f"top must be a whole number of at least 1, not {top!r}.")
        several = is_batch(text)
        ids, mask = self._batch(
            text if isinstance(text, str) or several else np.array(one_row(text)),
            prepend_bos,  # one row of ids
        )
        output = self.run(ids, mask, logits="last", interventions=interventions, fwd_hooks=fwd_hooks)
        logits = output.logits[:, -1]  # [B, V]
        probabilities = softmax(logits)
        real = [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]
        rows = zip(real, logits, probabilities, strict=True)
        predictions = [self._prediction(*row, top, output.applied) for row in rows]
        return predictions if several else predictions[0]

    def generate(
        self,
        text: str | Ids,
        *,
        max_new_tokens: int = 40,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        sampler: AnySampler | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        overflow: str = "error",
        names_filter: NamesFilter | None = None,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        explain: bool = False,
        prepend_bos: bool = False,
    ) -> Generation:
        """Continues a text.

        Args:
            text: the prompt, or its token ids. An empty one starts from `<|endoftext|>`.
            max_new_tokens: the most tokens to generate; the end-of-text token ends the text earlier.
            temperature: divides the logits; 0 always takes the most probable token.
            top_k: choose among the k most probable tokens only.
            top_p: choose among the fewest most probable tokens whose probabilities add up to p; after temperature and
                top-k.
            sampler: a sampler to use instead of these three, which chooses one token; see `onnxlens.plugins.samplers`.
                Or a chain of them as text, such as `"repetition_penalty=1.1 | top_k=40 | temperature=0.8"`, applied "
                "from left to right; if the last one does not choose a token, one is drawn.
            seed: seed of all draws; None draws a seed, which the result has.
            stop: a string, or several, at which the text ends.
            overflow: `error` raises if the text could become longer than the context; `slide` drops the older half of
                the text whenever the context is full.
            names_filter: hook points to read; see the result's `cache`.
            interventions: changes to make, as objects or as the path of a JSON file of them. Positions count from the
                start of the text, negative ones from the end of the prompt; a slice without an end covers all that is
                run.
            fwd_hooks: pairs of a hook point and a function, see `run_with_hooks`; it gets the new positions of each
                pass: those of the prompt, then one at a time.
            explain: explain why each token was chosen, in its `explanation`.
            prepend_bos: put the beginning-of-text token in front of the text.

        Returns:
            An iterator over the generated tokens: `print(token.text, end="")` streams them. Its `text`, if read "
            "before iterating, is that of the whole generation.

        Raises:
            InputError: the value of an option cannot be used.
            ContextLengthError: the text would have more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        if is_batch(text):
            raise InputError("generate takes one text at a time.")
        seed = checked_seed(seed)
        choice = Choice(
            find_sampler(sampler, self.plugins, temperature=temperature, top_k=top_k, top_p=top_p),
            self.tokenizer,
            seed,
            max_new_tokens=max_new_tokens,
            explained=explain,
        )
        prompt = self._row(text, prepend_bos)
        changes = self._changes(interventions, fwd_hooks)

        def start(ends: Callable[[int], bool]) -> Iterator[Step]:
            return generate_ids(
                self.runner,
                prompt,
                choice,
                ends,
                max_new_tokens=max_new_tokens,
                overflow=overflow,
                names_filter=names_filter,
                interventions=changes.interventions,
                fwd_hooks=changes.fwd_hooks,
            )

        return Generation(self.tokenizer, prompt, start, stop, seed, lambda: choice.explanation)

    def explain_sampling(self, text: str | Ids, **options: Unpack[GenerateKeywords]) -> Explanation:
        """Explains how `generate` would choose the next token: the effect of each sampler, and where the draw fell.

        Args:
            text: the prompt, or its token ids.
            options: those of `generate`, such as `sampler` and `seed`.

        Returns:
            The explanation of the first token that `generate` gives with the same options.

        Raises:
            InputError: the value of an option cannot be used.
            ContextLengthError: the text would have more tokens than the model has positions.
        """
        # One token fits even where `max_new_tokens` would not.
        if "overflow" not in options:
            self.runner.check_text(self._row(text))
        chosen: GenerateKeywords = {"overflow": "slide", **options, "explain": True}
        explanation = next(self.generate(text, **chosen)).explanation
        assert explanation is not None  # it was asked for
        return explanation

    def run_with_cache(
        self,
        text: str | Ids | Sequence[str],
        *,
        names_filter: NamesFilter | None = None,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        stop_at_layer: int | None = None,
        pos_slice: Slice = None,
        memory_limit: int | None = None,
        out: str | Path | None = None,
        remove_batch_dim: bool = False,
        prepend_bos: bool = False,
    ) -> tuple[np.ndarray, ActivationCache]:
        """Runs a text and reads hook points.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            names_filter: hook points to read: names or globs, or a function of the name; None for all but
                `hook_result`, which is large and computed on request. Values that nothing needs are not computed, so
                name only what you need.
            interventions: changes to make, as objects or as the path of a JSON file of them.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`. The values
                read are those that the functions returned.
            stop_at_layer: the block before which to stop; negative ones count from the end. The rest is not computed.
            pos_slice: the positions to read: a number, a range such as `(2, 5)` or `slice(2, 5)`, or a list; None for
                all. The axis stays, for a number too. In a batch with padding they must count from the end.
            memory_limit: how many bytes the results may take; more is an error before anything is computed. Results
                that go into a file do not count.
            out: a file to write the activations to while they are computed: a trace, which `onnxlens.open_trace` opens.
                The cache returned is that trace, and only the parts that are used are in memory.
            remove_batch_dim: remove the batch axis of the activations, where there is one row; logits keep theirs.
            prepend_bos: put the beginning-of-text token in front of each text.

        Returns:
            Logits at all positions, [B, P, V], and the activations by name, in the shapes of the hook table. With
            `stop_at_layer`, in place of the logits the residual stream there, [B, P, D].

        Raises:
            InputError: the text or ids, or an option, cannot be used, the results would be too large, or there are
                several rows and `remove_batch_dim`.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
            OutputError: `out` cannot be written.
        """
        number = isinstance(memory_limit, int | float | np.number) and not isinstance(memory_limit, bool)
        if memory_limit is not None and not (number and memory_limit >= 0):
            raise InputError(f"memory_limit must be a number of bytes of at least 0, not {memory_limit!r}.")
        ids, mask = self._batch(text, prepend_bos)
        changes = self._changes(interventions, fwd_hooks)
        plan = self.runner.plan(
            ids,
            mask,
            names_filter=self.runner.is_read_by_default if names_filter is None else names_filter,
            stop_at_layer=stop_at_layer,
            pos_slice=pos_slice,
            keep_cache=False,
            interventions=changes.interventions,
            fwd_hooks=changes.fwd_hooks,
        )
        sizes = plan.nbytes
        needed = sizes["logits"] if out is not None else sum(sizes.values())
        if memory_limit is not None and needed > memory_limit:
            raise InputError(
                f"These results take {needed:,} bytes, and memory_limit is {memory_limit:,}; read fewer hook "
                "points (names_filter) or positions (pos_slice)."
            )
        about: dict[str, Any] = {
            "facts": self.runner.bundle.facts,
            "positions": plan.positions,
            "str_tokens": self.tokenizer.str_tokens(ids[0].tolist()) if len(ids) == 1 else None,
            "applied": plan.edits.applied,
            "called": plan.request.calls,
        }
        if out is None:
            output = self.runner.execute(plan)
            cache = ActivationCache(output.activations, ids, mask, **about)
        else:
            empty = {name: np.broadcast_to(np.float32(0), plan.shapes[name]) for name in plan.reads}
            with recorded(ActivationCache(empty, ids, mask, **about), out) as arrays:
                output = self.runner.execute(plan, arrays)
            cache = open_trace(out, model=self)
        if remove_batch_dim:
            cache.remove_batch_dim()
        return (output.logits if output.residual is None else output.residual), cache

    def run_with_hooks(
        self,
        text: str | Ids | Sequence[str],
        fwd_hooks: ForwardHooks = (),
        *,
        interventions: Interventions = (),
        return_type: ReturnType = "logits",
        prepend_bos: bool = False,
    ) -> Any:
        """Runs a text and calls functions at hook points.

        A function takes the activation, a float32 array in the shape of the hook table, and the hook, which has a
        `name`, a `layer()`, and a dictionary `ctx` that is kept between runs (see `clear_contexts`). It may change the
        array in place, return another one of the same shape, or return None. Several at one hook point are called in
        the order given, after the interventions there.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function.
            interventions: changes to make inside the graph as well.
            return_type: `logits`, `loss`, `both`, or None to return nothing.
            prepend_bos: put the beginning-of-text token in front of each text.

        Returns:
            Logits at all positions, [B, P, V], or what `return_type` asks for, as when the lens is called.

        Raises:
            InputError: the text or ids, or an intervention, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        _check_return_type(return_type)
        ids, mask = self._batch(text, prepend_bos)
        output = self.run(ids, mask, keep_cache=False, interventions=interventions, fwd_hooks=fwd_hooks)
        return _returned(output.logits, ids, mask, return_type)

    def run(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        *,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        **options: Unpack[ReadKeywords],
    ) -> Output:
        """Runs token ids, with the changes of an enclosing block of `hooks`: for analyses, which need no text.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.
            attention_mask: [B, P], 0 where a token is padding; None for no padding.
            interventions: changes to make inside the graph, as objects or as the path of a JSON file of them.
            fwd_hooks: pairs of a hook point and a function; see `run_with_hooks`.
            options: the others of `PassOptions`. The errors of `Runner.plan` may be raised.
        """
        changes = self._changes(interventions, fwd_hooks)
        return self.runner.run(
            input_ids,
            attention_mask,
            interventions=changes.interventions,
            fwd_hooks=changes.fwd_hooks,
            **options,
        )

    def continuations(
        self, prompt: Sequence[int], max_new_tokens: int, *, names_filter: NamesFilter | None = None
    ) -> Continuations:
        """Several continuations of one prompt, with the changes of an enclosing block of `hooks`: for searches."""
        changes = self._standing
        return Continuations(
            self.runner,
            prompt,
            max_new_tokens,
            names_filter=names_filter,
            interventions=changes.interventions,
            fwd_hooks=changes.fwd_hooks,
        )

    @contextmanager
    def hooks(self, fwd_hooks: ForwardHooks = (), *, interventions: Interventions = ()) -> Iterator[Lens]:
        """Makes the same changes in every run inside a `with` block; blocks may be nested.

        A block holds for the thread, or asyncio task, that enters it. Others that use the same lens are not changed.

        Args:
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`.
            interventions: changes to make inside the graph.

        Yields:
            This lens.

        Raises:
            InputError: an intervention does not fit the model, or something is not a change.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a predicate raised an error.
        """
        changes = changes_of(interventions, fwd_hooks)
        self.runner.check_changes(*changes)
        with self._blocks.block(changes):
            yield self

    def clear_contexts(self) -> None:
        """Empties the `ctx` of every hook, which functions share within a run and from one run to the next."""
        for hook in self.runner.hooks.values():
            hook.ctx.clear()

    @property
    def hook_dict(self) -> Mapping[str, Hook]:
        """The hooks that functions get, by the name of their hook point."""
        return self.runner.hooks

    def add_hook(
        self,
        name: NamesFilter,
        hook: HookFunction,
        dir: Literal["fwd"] = "fwd",
        is_permanent: bool = False,
    ) -> None:
        """Calls a function at hook points in every run from now on, until `reset_hooks`.

        It holds for all threads that use this lens; `with lens.hooks(...)` holds for a block of one thread.

        Args:
            name: the hook point: a name, glob, tuple such as `("pattern", 0)`, or predicate.
            hook: the function; see `run_with_hooks`.
            dir: `fwd`; gradients are read with `grad`.
            is_permanent: keep it when `reset_hooks` is called without `including_permanent`.

        Raises:
            HookPointError: a name or glob matches no hook point.
            InputError: `hook` is not a function, or `dir` is not `fwd`.
        """
        if dir != "fwd":
            raise InputError(f"dir must be 'fwd', not {dir!r:.100}; lens.grad reads gradients.")
        changes = changes_of((), [(name, hook)])
        self.runner.check_changes(*changes)
        self._added += (AddedHook(changes.fwd_hooks[0], is_permanent),)

    def add_perma_hook(self, name: NamesFilter, hook: HookFunction) -> None:
        """Calls a function in every run, also after `reset_hooks`; see `add_hook`."""
        self.add_hook(name, hook, is_permanent=True)

    def reset_hooks(self, clear_contexts: bool = True, including_permanent: bool = False) -> None:
        """Removes the functions that `add_hook` added.

        Args:
            clear_contexts: also empty the `ctx` of every hook.
            including_permanent: remove permanent ones, too.
        """
        self._added = tuple(added for added in self._added if added.is_permanent and not including_permanent)
        if clear_contexts:
            self.clear_contexts()

    def estimate(
        self,
        text: str | Ids | Sequence[str],
        *,
        names_filter: NamesFilter | None = None,
        stop_at_layer: int | None = None,
        pos_slice: Slice = None,
    ) -> dict[str, int]:
        """Returns how many bytes each result of `run_with_cache` would take, without running anything.

        Returns:
            Bytes by name, `logits` first; their sum is what `memory_limit` is compared with.

        Raises:
            InputError: the text or ids, or an option, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
        """
        plan = self.runner.plan(
            *self._batch(text),
            names_filter=self.runner.is_read_by_default if names_filter is None else names_filter,
            stop_at_layer=stop_at_layer,
            pos_slice=pos_slice,
        )
        return plan.nbytes

    def view(self, visualizer: AnyVisualizer, text: str | Ids, /, **options: object) -> Rendering:
        """Shows what happens inside while a text runs.

        Exactly the hook points that the visualizer names are read. In a block of `hooks`, it shows the changed values.

        Args:
            visualizer: its name, see `onnxlens plugins`; or one that was made, or its class.
            text: a text, or its token ids.
            options: those of the visualizer.

        Returns:
            The rendering: a notebook shows it, `rendering.text()` is for a terminal, and
            `rendering.save("picture.svg")` writes a file.

        Raises:
            PluginError: there is no such visualizer, or it is broken or fails.
            InputError: an option, or the text or ids, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: the visualizer names a hook point that the model does not have.
        """
        return self.views(text, [(visualizer, options)])[0]

    def views(
        self, text: str | Ids, visualizers: Iterable[AnyVisualizer | tuple[AnyVisualizer, Mapping[str, Any]]]
    ) -> list[Rendering]:
        """Shows several views of one text, with one run of the model.

        A visualizer that needs more than hook points, such as a sweep, runs the model further.

        Args:
            text: a text, or its token ids.
            visualizers: each as in `view`, or with its options: `["tokens", ("attention", {"layer": 3})]`.

        Returns:
            Their renderings, in the same order.

        Raises:
            PluginError, InputError, ContextLengthError, HookPointError: as `view`.
        """
        if is_batch(text):
            raise InputError("view shows one text at a time.")
        if isinstance(visualizers, str) or not isinstance(visualizers, Iterable):
            raise InputError(f"views takes a list of visualizers, not {visualizers!r:.100}; for one there is view.")
        wanted = [one if isinstance(one, tuple) else (one, {}) for one in visualizers]
        for one in wanted:
            if len(one) != 2 or not isinstance(one[1], Mapping):
                raise InputError(f"A visualizer with options is (name, {{option: value}}), not {one!r:.100}.")
        return views(self, self._row(text), wanted)

    def grad(
        self,
        text: str | Ids | Sequence[str],
        *,
        metric: AnyMetric,
        names_filter: NamesFilter | None = "*",
        activations: NamesFilter | bool = False,
        embeddings: np.ndarray | None = None,
    ) -> GradientResult:
        """Computes the gradient of a metric of the logits at hook points.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            metric: the metric to differentiate: one of `onnxlens.metrics`, such as `logit_difference(" a", " the")`, or
                `Metric(fn, grad)` for a function of your own, given with its gradient; with `names_filter=None` the
                function alone.
            names_filter: hook points at which the gradient is wanted: names or globs, or a function of the name.
                Gradients that nothing needs are not computed. None computes the metric only.
            activations: hook points whose values are wanted from the same pass; True for the same ones.
            embeddings: [B, P, D], used as `hook_embed` in place of the embeddings of the tokens.

        Returns:
            The metric of each text, the logits, and the gradients by hook point name in the shapes of the hook table.
            Each text's gradient is that of its own metric; at padding it is 0.

        Raises:
            BundleError: the bundle was exported without the graph of its gradients.
            InputError: text, ids, embeddings or metric cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point with a gradient.
        """
        if self.is_changed:
            raise InputError(
                "Gradients are those of the unchanged model, so call lens.grad outside of the block of lens.hooks."
            )
        ids, mask = self._batch(text)
        return differentiate(
            self.runner,
            self.tokenizer,
            ids,
            mask,
            metric,
            names_filter=names_filter,
            activations=names_filter if activations is True else None if activations is False else activations,
            embeddings=embeddings,
        )

    def _changes(self, interventions: Interventions, fwd_hooks: ForwardHooks) -> Changes:
        """All changes of a run: those of added hooks, of the blocks around it, and its own, in this order."""
        return self._standing + changes_of(interventions, fwd_hooks)

    @property
    def _standing(self) -> Changes:
        """Changes of every run: those of added hooks, and of the blocks that are open here."""
        return Changes(fwd_hooks=tuple(added.pair for added in self._added)) + self._blocks.changes

    def _prediction(
        self, ids: list[int], logits: np.ndarray, probabilities: np.ndarray, top: int, applied: tuple[Applied, ...]
    ) -> Prediction:
        best = top_ids(logits, top).tolist()
        listed = [
            Candidate(token, text, float(logits[token]), float(probabilities[token]))
            for token, text in zip(best, self.tokenizer.str_tokens(best), strict=True)
        ]
        pieces = self.tokenizer.pieces(ids), self.tokenizer.pieces(best)
        return Prediction(ids, self.tokenizer.str_tokens(ids), listed, logits, probabilities, applied, pieces)


def _check_return_type(return_type: object) -> None:
    if return_type not in ("logits", "loss", "both", None):
        raise InputError(f"return_type must be 'logits', 'loss', 'both' or None, not {return_type!r:.100}.")


def _returned(
    logits: np.ndarray, ids: np.ndarray, mask: np.ndarray, return_type: ReturnType, loss_per_token: bool = False
) -> Any:
    """What a run returns: logits, their loss, both, or None."""
    if return_type in ("logits", None):
        return logits if return_type else None
    loss = lm_cross_entropy_loss(logits, ids, mask, per_token=loss_per_token)
    return loss if return_type == "loss" else (logits, loss)
