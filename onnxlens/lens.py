"""The front door: text in, predictions, text and activations out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard, overload

import numpy as np

from onnxlens.catalog import find
from onnxlens.changes import Blocks, Interventions, given
from onnxlens.generation import Generation
from onnxlens.gradients import GradientResult, differentiate
from onnxlens.metrics import TokenMetric
from onnxlens.plugins.registry import Registry
from onnxlens.plugins.samplers import softmax
from onnxlens.plugins.samplers.explain import Explanation
from onnxlens.plugins.visualizers.rendering import Rendering
from onnxlens.prediction import Candidate, Prediction
from onnxlens.runtime.activations import ActivationCache
from onnxlens.runtime.bundle import Bundle
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.continuations import Continuations
from onnxlens.runtime.edits import Applied
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.functions import ForwardHooks
from onnxlens.runtime.generation import Step, generate_ids
from onnxlens.runtime.hooks import HookPoint
from onnxlens.runtime.logits import top_ids
from onnxlens.runtime.runner import Output, Runner
from onnxlens.runtime.selection import NamesFilter, usual
from onnxlens.runtime.slices import Slice
from onnxlens.runtime.trace import open_trace, recorded
from onnxlens.runtime.whole import is_whole
from onnxlens.sampling import AnySampler, Choice, checked_seed, find_sampler
from onnxlens.viewing import AnyVisualizer, views

__all__ = ["Lens", "load"]

Ids = Sequence[int] | np.ndarray


def load(
    name: str | Path | None = None,
    *,
    provider: str = "auto",
    threads: int | None = None,
    verify: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    plugins: Registry | Iterable[str | Path] = (),
) -> Lens:
    """Opens a model.

    Args:
        name: a bundle's path or name, see `onnxlens.find`; None for the model that ships.
        provider: `auto` (CUDA where it is there and starts, else the CPU), `cpu` or `cuda`.
        threads: how many threads compute; None for as many as there are physical cores.
        verify: compare the SHA-256 of every file with the manifest, the weights' too.
        progress: told when something takes long.
        plugins: Python files that are plugins, besides those that are found; or what plugins there are.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
        ProviderError: the provider is unknown, missing, or does not start.
        InputError: `threads` is no positive number.
        PluginError: a plugin's file is not there.
    """
    known = plugins if isinstance(plugins, Registry) else Registry(plugins)
    bundle = Bundle(find(name), verify=verify)
    return Lens(Runner(bundle, provider=provider, threads=threads, progress=progress), known)


class Lens:
    """A model with its tokenizer.

    Args:
        runner: the model on ONNX Runtime.
        plugins: what plugins there are; None for those that are found.

    Attributes:
        runner: the same.
        plugins: what plugins there are; they are loaded when one that is not built in is asked for.
        tokenizer: the bundle's tokenizer.
    """

    def __init__(self, runner: Runner, plugins: Registry | None = None) -> None:
        self.runner = runner
        self.plugins = Registry() if plugins is None else plugins
        self.tokenizer = runner.bundle.tokenizer
        self._blocks = Blocks()

    def __repr__(self) -> str:
        return f"Lens({self.runner.bundle.name!r}, provider={self.provider!r})"

    @property
    def config(self) -> ModelConfig:
        """The model's shape and switches."""
        return self.runner.config

    @property
    def provider(self) -> str:
        """The execution provider that runs the model: `cpu` or `cuda`."""
        return self.runner.provider.name

    @property
    def hook_points(self) -> tuple[HookPoint, ...]:
        """What can be read, in the order of computation."""
        return self.runner.hook_points

    @property
    def is_changed(self) -> bool:
        """Whether an enclosing block of `hooks` changes every run."""
        return any(self._blocks.changes)

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The weights by TransformerLens's names and in its shapes, such as `blocks.0.attn.W_Q`; read-only."""
        return self.runner.bundle.named_weights

    def to_tokens(self, text: str | Sequence[str]) -> np.ndarray:
        """Returns the token ids of a text, [1, P], or of several, [B, P], shorter ones padded on the left.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return self._batch(text)[0]

    def to_str_tokens(self, text: str | Ids) -> list[str]:
        """Returns the text of each token of a text, or of one row of ids.

        A part of a UTF-8 character becomes U+FFFD; an id that only the model knows (some pad their vocabulary) becomes
        the id in brackets.

        Raises:
            InputError: an id is out of range, or there are several rows of them.
        """
        return self.tokenizer.str_tokens(self.tokenizer.encode(text) if isinstance(text, str) else _one_row(text))

    def to_string(self, ids: Ids) -> str:
        """Returns the text of one row of token ids.

        Raises:
            InputError: an id is out of range, or there are several rows of them.
        """
        return self.tokenizer.decode(_one_row(ids))

    def to_single_token(self, text: str) -> int:
        """Returns the id of a text that is exactly one token.

        Raises:
            InputError: it is none, or several, which the error lists.
        """
        return self.runner.bundle.facts.token(text)

    # A str is a sequence of str, too; the first overload that fits is taken.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, text: str | np.ndarray, *, top: int = 10, interventions: Interventions = (), fwd_hooks: ForwardHooks = ()
    ) -> Prediction: ...
    @overload
    def predict(
        self, text: Sequence[int], *, top: int = 10, interventions: Interventions = (), fwd_hooks: ForwardHooks = ()
    ) -> Prediction: ...
    @overload
    def predict(
        self, text: Sequence[str], *, top: int = 10, interventions: Interventions = (), fwd_hooks: ForwardHooks = ()
    ) -> list[Prediction]: ...

    def predict(
        self,
        text: str | Ids | Sequence[str],
        *,
        top: int = 10,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
    ) -> Prediction | list[Prediction]:
        """Predicts the next token.

        Args:
            text: a text, or its token ids, or several texts, which give a list. An empty text predicts from
                `<|endoftext|>`.
            top: how many candidates to list; the full vocabulary is in `logits` and `probabilities`.
            interventions: changes to make on the way, as objects or as the path of a JSON file of them.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`.

        Raises:
            InputError: the text or ids cannot be used, `top` is below 1, or an intervention does not fit.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        if not is_whole(top) or top < 1:
            raise InputError(f"top must be a whole number of at least 1, not {top!r}.")
        ids, mask = self._batch(text if isinstance(text, str) or _is_batch(text) else np.array(_one_row(text)))
        output = self.run(ids, mask, logits="last", interventions=interventions, fwd_hooks=fwd_hooks)
        logits = output.logits[:, -1]  # [B, V]
        probabilities = softmax(logits)
        real = [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]
        rows = zip(real, logits, probabilities, strict=True)
        predictions = [self._prediction(*row, top, output.applied) for row in rows]
        return predictions if _is_batch(text) else predictions[0]

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
    ) -> Generation:
        """Continues a text.

        Args:
            text: the prompt, or its token ids. An empty one starts from `<|endoftext|>`.
            max_new_tokens: how many tokens at most; the end-of-text token ends earlier.
            temperature: divides the logits; 0 takes the most probable token always.
            top_k: choose among the k most probable tokens only.
            top_p: choose among the fewest tokens that are p probable together only; after temperature and top-k.
            sampler: a sampler in place of the three, which leaves one token; see `onnxlens.plugins.samplers`. Or a
                chain of them as text, such as `"repetition_penalty=1.1 | top_k=40 | temperature=0.8"`, applied from
                left to right; where its last one does not choose a token, one is drawn.
            seed: what makes it reproducible; None draws one, which the result tells.
            stop: a string, or several, at which the text ends.
            overflow: `error` refuses what would not fit the model's positions; `slide` forgets the older half of the
                text whenever they are full.
            names_filter: hook points to read on the way; see the result's `cache`.
            interventions: changes to make on the way, as objects or as the path of a JSON file of them. Positions
                count from the start of the text, negative ones from the end of the prompt; a slice without an end
                means all that is run.
            fwd_hooks: pairs of a hook point and a function, see `run_with_hooks`; each pass hands it the positions
                that are new: those of the prompt, then one at a time.
            explain: say of each token why it was chosen, in its `explanation`.

        Returns:
            An iterator over the generated tokens: `print(token.text, end="")` streams them. Its `text`, read before
            anything was iterated over, is that of the whole generation.

        Raises:
            InputError: an option has no usable value.
            ContextLengthError: the text would have more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        if _is_batch(text):
            raise InputError("generate takes one text at a time.")
        seed = checked_seed(seed)
        choice = Choice(
            find_sampler(sampler, self.plugins, temperature=temperature, top_k=top_k, top_p=top_p),
            self.tokenizer,
            seed,
            max_new_tokens=max_new_tokens,
            explained=explain,
        )
        prompt = self.tokenizer.encode(text) if isinstance(text, str) else _one_row(text)
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
                **changes,
            )

        return Generation(self.tokenizer, prompt, start, stop, seed, lambda: choice.explanation)

    def explain_sampling(self, text: str | Ids, **options: Any) -> Explanation:
        """Says why `generate` would choose the next token of a text: what each sampler did, and where the draw fell.

        Args:
            text: the prompt, or its token ids.
            options: those of `generate`, such as `sampler` and `seed`.

        Returns:
            The explanation of the first token that `generate` gives with the same options.

        Raises:
            InputError: an option has no usable value.
            ContextLengthError: the text would have more tokens than the model has positions.
        """
        # One token fits where all that `max_new_tokens` allows might not.
        if "overflow" not in options:
            self.runner.check_text(self.tokenizer.encode(text) if isinstance(text, str) else _one_row(text))
        options = {"overflow": "slide", **options, "explain": True}
        explanation = next(self.generate(text, **options)).explanation
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
    ) -> tuple[np.ndarray, ActivationCache]:
        """Runs a text and reads hook points on the way.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            names_filter: hook points to read: names or globs, or a function of the name; None for all but
                `hook_result`, which is large and computed on request. What is not read is not computed for its own
                sake, so ask for what you need.
            interventions: changes to make on the way, as objects or as the path of a JSON file of them.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`. What is
                read is what the functions left.
            stop_at_layer: the block before which to stop; negative ones count from the end. The rest is not computed.
            pos_slice: the positions to read: a number, a range such as `(2, 5)` or `slice(2, 5)`, or a list; None for
                all. The axis stays, for a number too. In a batch with padding they must count from the end.
            memory_limit: how many bytes the results may take; more is refused before anything is computed. What goes
                into a file does not count.
            out: a file to write the activations to as they are computed, a trace as `onnxlens.open_trace` opens it.
                The cache returned is that trace, of which only what is used is in memory.
            remove_batch_dim: remove the batch axis of the activations, where there is one row; logits keep theirs.

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
        ids, mask = self._batch(text)
        plan = self.runner.plan(
            ids,
            mask,
            names_filter=usual if names_filter is None else names_filter,
            stop_at_layer=stop_at_layer,
            pos_slice=pos_slice,
            keep_cache=False,
            **self._changes(interventions, fwd_hooks),
        )
        sizes = plan.nbytes
        needed = sizes["logits"] if out is not None else sum(sizes.values())
        if memory_limit is not None and needed > memory_limit:
            raise InputError(
                f"What was asked for takes {needed:,} bytes, and memory_limit is {memory_limit:,}; read fewer hook "
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
        self, text: str | Ids | Sequence[str], fwd_hooks: ForwardHooks, *, interventions: Interventions = ()
    ) -> np.ndarray:
        """Runs a text and calls functions at hook points on the way.

        A function takes the activation, a float32 array in the shape of the hook table, and the hook, which has a
        `name`, a `layer()`, and a dictionary `ctx` that stays from run to run (see `clear_contexts`). It may change
        the array in place, return another one of the same shape, or return None. Several at one hook point are called
        in the order given, after the interventions there.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function.
            interventions: changes to make inside the graph as well.

        Returns:
            Logits at all positions, [B, P, V].

        Raises:
            InputError: the text or ids, or an intervention, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a function failed, or returned what cannot be used.
        """
        ids, mask = self._batch(text)
        return self.run(ids, mask, keep_cache=False, interventions=interventions, fwd_hooks=fwd_hooks).logits

    def run(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        *,
        interventions: Interventions = (),
        fwd_hooks: ForwardHooks = (),
        **options: Any,
    ) -> Output:
        """Runs token ids, with what an enclosing block of `hooks` changes: for analyses, which need no text.

        Args:
            input_ids: token ids, [B, P] or [P] for one row.
            attention_mask: [B, P], 0 where a token is padding; None for no padding.
            interventions: changes to make inside the graph.
            fwd_hooks: pairs of a hook point and a function; see `run_with_hooks`.
            options: those of `Runner.plan`, whose errors may be raised.
        """
        changes = self._changes(interventions, fwd_hooks)
        return self.runner.run(input_ids, attention_mask, **options, **changes)

    def continuations(
        self, prompt: Sequence[int], max_new_tokens: int, *, names_filter: NamesFilter | None = None
    ) -> Continuations:
        """Several continuations of one prompt, with what an enclosing block of `hooks` changes: for searches."""
        return Continuations(self.runner, prompt, max_new_tokens, names_filter=names_filter, **self._changes((), ()))

    @contextmanager
    def hooks(self, fwd_hooks: ForwardHooks = (), *, interventions: Interventions = ()) -> Iterator[Lens]:
        """Lets every run inside a `with` block make the same changes; blocks may be nested.

        A block holds for the thread, or asyncio task, that enters it. Others that use the same lens are not changed.

        Args:
            fwd_hooks: pairs of a hook point (name, glob or predicate) and a function; see `run_with_hooks`.
            interventions: changes to make inside the graph.

        Yields:
            This lens.

        Raises:
            InputError: an intervention does not fit the model, or something is no change.
            HookPointError: a name or glob matches no hook point.
            HookFunctionError: a predicate raised something.
        """
        changes = given(interventions, fwd_hooks)
        self.runner.check_changes(*changes)
        with self._blocks.block(changes):
            yield self

    def clear_contexts(self) -> None:
        """Empties the `ctx` of every hook, which functions share within a run and from one run to the next."""
        for hook in self.runner.hooks.values():
            hook.ctx.clear()

    def estimate(
        self,
        text: str | Ids | Sequence[str],
        *,
        names_filter: NamesFilter | None = None,
        stop_at_layer: int | None = None,
        pos_slice: Slice = None,
    ) -> dict[str, int]:
        """Tells how many bytes each result of `run_with_cache` would take, without running anything.

        Returns:
            Bytes by name, `logits` first; their sum is what `memory_limit` is compared with.

        Raises:
            InputError: the text or ids, or an option, cannot be used.
            ContextLengthError: the text has more tokens than the model has positions.
            HookPointError: a name or glob matches no hook point.
        """
        plan = self.runner.plan(
            *self._batch(text),
            names_filter=usual if names_filter is None else names_filter,
            stop_at_layer=stop_at_layer,
            pos_slice=pos_slice,
        )
        return plan.nbytes

    def view(self, visualizer: AnyVisualizer, text: str | Ids, /, **options: Any) -> Rendering:
        """Shows what happens inside while a text runs.

        Exactly the hook points that the visualizer names are read. In a block of `hooks`, what is shown is what the
        changes made of it.

        Args:
            visualizer: its name, see `onnxlens plugins`; or one that was made, or its class.
            text: a text, or its token ids.
            options: those of the visualizer.

        Returns:
            The rendering: it shows itself in a notebook, `rendering.text()` is for a terminal, and
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
        """Shows several views of one text, for all of which the model runs once.

        What a visualizer computes beyond its hook points, as the sweeps do, it computes for itself.

        Args:
            text: a text, or its token ids.
            visualizers: each as in `view`, or with its options: `["tokens", ("attention", {"layer": 3})]`.

        Returns:
            Their renderings, in the same order.

        Raises:
            PluginError, InputError, ContextLengthError, HookPointError: as `view`.
        """
        if _is_batch(text):
            raise InputError("view shows one text at a time.")
        if isinstance(visualizers, str) or not isinstance(visualizers, Iterable):
            raise InputError(f"views takes a list of visualizers, not {visualizers!r:.100}; for one there is view.")
        wanted = [one if isinstance(one, tuple) else (one, {}) for one in visualizers]
        for one in wanted:
            if len(one) != 2 or not isinstance(one[1], Mapping):
                raise InputError(f"A visualizer with options is (name, {{option: value}}), not {one!r:.100}.")
        return views(self, self.tokenizer.encode(text) if isinstance(text, str) else _one_row(text), wanted)

    def grad(
        self,
        text: str | Ids | Sequence[str],
        *,
        metric: TokenMetric,
        names_filter: NamesFilter | None = "*",
        activations: NamesFilter | bool = False,
        embeddings: np.ndarray | None = None,
    ) -> GradientResult:
        """Computes the gradient of a metric of the logits at hook points.

        Args:
            text: a text, or its token ids, or several texts; shorter ones are padded on the left.
            metric: what the gradient is of: one of `onnxlens.metrics`, such as `logit_difference(" a", " the")`, or
                `Metric(fn, grad)` for a function of your own, given with its gradient.
            names_filter: hook points at which the gradient is wanted: names or globs, or a function of the name. What
                is not asked for is not computed for its own sake. None computes the metric only.
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
                "Gradients are those of the model as it is: lens.grad takes no part in changes, so call it outside of "
                "the block of lens.hooks."
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

    def _batch(self, text: str | Ids | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [B, P] and the mask of those that are real."""
        if isinstance(text, str):
            rows = [self.tokenizer.encode(text)]
        elif _is_batch(text):
            rows = [self.tokenizer.encode(one) for one in text]
        else:
            ids = self.runner.check_ids(_array(text))
            return ids, np.ones(ids.shape, np.int64)
        longest = max(map(len, rows))
        padding = self.tokenizer.eos_token_id or 0
        ids = np.array([[padding] * (longest - len(row)) + row for row in rows], np.int64)
        mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows], np.int64)
        return ids, mask

    def _changes(self, interventions: Interventions, fwd_hooks: ForwardHooks) -> dict[str, Any]:
        """What is changed: in the context of `hooks` first, then as given."""
        return (self._blocks.changes + given(interventions, fwd_hooks))._asdict()

    def _prediction(
        self, ids: list[int], logits: np.ndarray, probabilities: np.ndarray, top: int, applied: tuple[Applied, ...]
    ) -> Prediction:
        best = top_ids(logits, top).tolist()
        listed = [
            Candidate(token, text, float(logits[token]), float(probabilities[token]))
            for token, text in zip(best, self.tokenizer.str_tokens(best), strict=True)
        ]
        return Prediction(ids, self.tokenizer.str_tokens(ids), listed, logits, probabilities, applied)


def _is_batch(text: object) -> TypeGuard[Sequence[str]]:
    return isinstance(text, Sequence) and not isinstance(text, str) and bool(text) and isinstance(text[0], str)


def _one_row(ids: object) -> list[int]:
    """Token ids [P] or [1, P] as a list."""
    array = _array(ids)
    if array.ndim not in (1, 2) or array.size != array.shape[-1]:
        raise InputError(f"Expected the token ids of one text, not an array of shape {list(array.shape)}.")
    row: list[int] = array.ravel().tolist()
    return row


def _array(ids: object) -> np.ndarray:
    try:
        return np.asarray(ids)
    except ValueError as error:
        raise InputError("The rows of token ids have different lengths; give one row, or texts.") from error
