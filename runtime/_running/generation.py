"""Generates token ids, one pass a token, on the KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._activations.cache import ActivationCache, stitch
from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._interventions.edits import Edits
from onnxlens.runtime._interventions.functions import ForwardHooks, find_functions, pairs_of
from onnxlens.runtime._interventions.interventions import Intervention, listed
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.runner import Output, Runner
from onnxlens.runtime.errors import ContextLengthError, InputError

__all__ = ["OVERFLOW", "Choose", "Overflow", "Step", "generate_ids"]

Overflow = Literal["error", "slide"]
OVERFLOW: tuple[Overflow, ...] = ("error", "slide")

Choose = Callable[[np.ndarray, np.ndarray, int], int]


@dataclass(frozen=True)
class Step:
    """One generated token.

    Attributes:
        token: its id.
        logits: the model's logits from which it was chosen, [V].
        last: whether generation ends with it, because of its id or the number of tokens.
        cache: with the last token, the activations read over the prompt and all generated tokens.
        applied: with the last token, what interventions changed where.
    """

    token: int
    logits: np.ndarray
    last: bool
    cache: ActivationCache | None = None
    applied: tuple[Applied, ...] = ()


def generate_ids(
    runner: Runner,
    prompt: list[int],
    choose: Choose,
    ends: Callable[[int], bool] = lambda token: False,
    *,
    max_new_tokens: int,
    overflow: str = "error",
    names_filter: NamesFilter | None = None,
    interventions: Iterable[Intervention] | Intervention | None = (),
    fwd_hooks: ForwardHooks = (),
) -> Iterator[Step]:
    """Generates from a prompt; all options are checked before the first token.

    Args:
        runner: the model.
        prompt: token ids, at least one.
        choose: picks the next token from logits [V], the ids so far [T], and the number of tokens generated.
        ends: called with each token as it is chosen; returns whether the text ends with it.
        max_new_tokens: the most tokens to generate.
        overflow: what to do if prompt and new tokens are more than the model has positions: `error` raises before the
            first token; `slide` drops the older half of the text whenever the positions are full, and goes on from the
            newer half.
        names_filter: hook points to read on the way.
        interventions: changes to make inside the graph; positions count from the start of the text, negative ones
            from the end of the prompt, and those that are named one by one must be computed in the end.
        fwd_hooks: functions to call at hook points, in each pass on the positions that are new in it.

    Raises:
        ContextLengthError: the text would become too long, and `overflow` is `error`.
        InputError: the prompt or the value of an option cannot be used; after the last token, the text ended before the
            position of an intervention.
        HookPointError: a name or glob matches no hook point.
        HookFunctionError: a function failed, or returned what cannot be used.
    """
    if not is_integer(max_new_tokens) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be a whole number of at least 1, not {max_new_tokens!r}.")
    if overflow not in OVERFLOW:
        raise InputError(f"overflow must be 'error' or 'slide', not {overflow!r}.")
    prompt = runner.check_ids([prompt])[0].tolist()
    limit, total = runner.config.n_ctx, len(prompt) + max_new_tokens
    if total > limit and overflow == "error":
        raise ContextLengthError(
            f"The prompt has {len(prompt)} tokens and {max_new_tokens} more were asked for, {total} in all; this "
            f"model has {limit} positions. Ask for fewer, shorten the prompt, or let the text slide "
            "(overflow='slide', --overflow slide)."
        )
    if total > limit and names_filter is not None:
        raise ContextLengthError(
            f"Hook points can be read over at most {limit} positions, and this generation would have {total}."
        )
    interventions, fwd_hooks = listed(interventions), pairs_of(fwd_hooks)
    if total > limit and interventions:
        raise ContextLengthError(
            f"Interventions hold for the positions of one text, at most {limit}, and this generation would have "
            f"{total}."
        )
    reads = runner.select(names_filter) if names_filter is not None else None
    computed = total - (names_filter is None)  # nothing needs the last token, unless it is read
    edits = runner.resolve(interventions, mask=np.ones((1, len(prompt)), np.int64), limit=min(computed, limit))
    find_functions(fwd_hooks, runner.select)
    return _steps(runner, prompt, choose, ends, max_new_tokens, reads, edits, fwd_hooks)


def _steps(
    runner: Runner,
    prompt: list[int],
    choose: Choose,
    ends: Callable[[int], bool],
    max_new_tokens: int,
    reads: tuple[str, ...] | None,
    edits: Edits,
    fwd_hooks: ForwardHooks,
) -> Iterator[Step]:
    limit = runner.config.n_ctx
    ids = list(prompt)
    outputs: list[Output] = []

    def advance(new: list[int], previous: Output | None) -> Output:
        cache = previous.kv_cache if previous else None
        output = runner.run(
            [new], names_filter=reads, logits="last", kv_cache=cache, interventions=edits, fwd_hooks=fwd_hooks
        )
        if reads is not None:
            outputs.append(output)
        return output

    output = advance(ids[-limit:], None)
    for step in range(max_new_tokens):
        logits = output.logits[0, -1]
        token = choose(logits, np.array(ids), step)
        ids.append(token)
        last = ends(token) or step + 1 == max_new_tokens
        if last and reads is not None:
            advance([token], output)  # so that what was read covers the whole text
        if last:
            computed = len(ids) - (reads is None)
            applied = edits.applied_within(computed)
            yield Step(token, logits, last, _collected(runner, reads, outputs, ids, applied), applied)
            edits.check_reached(computed)
            return
        yield Step(token, logits, last)
        assert output.kv_cache is not None  # `run` keeps it unless told otherwise
        full = len(output.kv_cache) >= limit
        output = advance(ids[-(limit // 2 or 1) :], None) if full else advance([token], output)


def _collected(
    runner: Runner, reads: tuple[str, ...] | None, outputs: list[Output], ids: list[int], applied: Sequence[Applied]
) -> ActivationCache | None:
    if reads is None:
        return None
    points = [point for point in runner.hook_points if point.name in reads]
    activations = stitch(points, [output.activations for output in outputs])
    called = outputs[-1].called
    return ActivationCache(activations, np.array([ids]), facts=runner.bundle.facts, applied=applied, called=called)
