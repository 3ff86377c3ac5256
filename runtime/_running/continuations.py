"""Several continuations of one prompt at once, on one KV cache that is branched, never computed again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._interventions.functions import ForwardHooks, find_functions, pairs_of
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.kv_cache import KVCache
from onnxlens.runtime._running.runner import Output, Runner
from onnxlens.runtime.errors import ContextLengthError, InputError

__all__ = ["Continuations"]


class Continuations:
    """The rows of a search: each continues the prompt in its own way.

    Args:
        runner: the model.
        prompt: token ids, at least one.
        max_new_tokens: the most tokens that a row may get.
        names_filter: hook points to read in every pass; None reads none.
        interventions: changes to make; positions count from the start of the text, negative ones from the end of the
            prompt.
        fwd_hooks: functions to call at hook points, in each pass on the positions that are new in it.

    Attributes:
        prompt: the prompt's token ids.
        ids: the tokens of each row beyond the prompt, [rows, steps] int64; [1, 0] at first.

    Raises:
        ContextLengthError: prompt and new tokens are more than the model has positions.
        InputError: the prompt or the value of an option cannot be used.
        HookPointError: a name or glob matches no hook point.
    """

    def __init__(
        self,
        runner: Runner,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        names_filter: NamesFilter | None = None,
        interventions: Iterable[Intervention] | Intervention | None = (),
        fwd_hooks: ForwardHooks = (),
    ) -> None:
        if not is_integer(max_new_tokens) or max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be a whole number of at least 1, not {max_new_tokens!r}.")
        self.prompt = runner.check_ids([prompt])[0]
        total, limit = len(self.prompt) + max_new_tokens, runner.config.n_ctx
        if total > limit:
            raise ContextLengthError(
                f"The prompt has {len(self.prompt)} tokens and {max_new_tokens} more were asked for, {total} in all; "
                f"this model has {limit} positions. Ask for fewer, or shorten the prompt."
            )
        self._runner, self._reads, self._fwd_hooks = runner, names_filter, pairs_of(fwd_hooks)
        self._edits = runner.resolve(interventions, mask=np.ones((1, len(self.prompt)), np.int64), limit=total)
        find_functions(self._fwd_hooks, runner.select)
        self._cache: KVCache | None = None
        self._computed = 0
        self.ids = np.zeros((1, 0), np.int64)

    @property
    def texts(self) -> np.ndarray:
        """Prompt and continuation of each row, [rows, positions] int64."""
        return np.concatenate([np.repeat(self.prompt[np.newaxis], len(self.ids), axis=0), self.ids], axis=1)

    def start(self) -> Output:
        """Computes the prompt, in one row."""
        return self._run(self.prompt[np.newaxis], None)

    def advance(self, parents: Sequence[int] | np.ndarray, tokens: Sequence[int] | np.ndarray) -> Output:
        """Replaces the rows by new ones, each of which continues one of them.

        Args:
            parents: which of the present rows each new row continues, [new rows].
            tokens: the token that each of them continues it with, [new rows].

        Returns:
            The pass on the new tokens, with logits [new rows, 1, V].
        """
        rows, new = np.asarray(parents, np.int64), np.asarray(tokens, np.int64)[:, np.newaxis]
        self.ids = np.concatenate([self.ids[rows], new], axis=1)
        return self._run(new, rows)

    def check_reached(self) -> None:
        """Checks, when the search has ended, that it reached every position that was named.

        Raises:
            InputError: one was not.
        """
        self._edits.check_reached(self._computed)

    def _run(self, ids: np.ndarray, rows: np.ndarray | None) -> Output:
        output = self._runner.run(
            ids,
            names_filter=self._reads,
            logits="last",
            kv_cache=self._cache,
            cache_rows=rows,
            interventions=self._edits,
            fwd_hooks=self._fwd_hooks,
        )
        self._cache = output.kv_cache
        self._computed += ids.shape[1]
        return output
