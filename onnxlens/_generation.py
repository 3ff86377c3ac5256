"""A text being generated, token by token."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

from onnxlens.plugins._sampling.explain import Explanation
from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._result import plain
from onnxlens.runtime._running.generation import Step
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

__all__ = ["FinishReason", "GeneratedToken", "Generation"]

FinishReason = Literal["length", "stop", "end_of_text"]

_WHILE_IT_GOES_ON = ("_steps", "_stream", "_explanation", "_busy")  # attributes


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token.

    Attributes:
        id: its id.
        text: the text that became certain with it; joined over all tokens, the generated text.
        logprob: the model's log-probability of it, natural logarithm, before any sampler.
        explanation: why it was chosen, if that was asked for.
    """

    id: int
    text: str
    logprob: float
    explanation: Explanation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the token for JSON; `explanation` is there if it was asked for."""
        document: dict[str, Any] = {"id": self.id, "text": self.text, "logprob": self.logprob}
        if self.explanation is not None:
            document["explanation"] = self.explanation.to_dict()
        return document

    def __str__(self) -> str:
        return self.text


class Generation(Iterator[GeneratedToken]):
    """A text being generated, token by token.

    Iterate over it to stream, or read a result: where nothing was iterated over yet, reading one generates the whole
    text first. Once iteration has begun, results are those of the tokens so far, and no read generates more.

    Only one thread at a time may generate; in another one, that raises an InputError.

    Attributes:
        prompt: the prompt's text.
        prompt_ids: the prompt's token ids.
        seed: the seed that reproduces it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: list[int],
        start: Callable[[Callable[[int], bool]], Iterator[Step]],
        stop: str | Sequence[str] | None,
        seed: int,
        explanation: Callable[[], Explanation | None] = lambda: None,
    ) -> None:
        self.prompt_ids, self.seed = prompt_ids, seed
        self._ids: list[int] = []
        self._text = ""
        self._finish_reason: FinishReason | None = None
        self._cache: ActivationCache | None = None
        self._applied: tuple[Applied, ...] = ()
        self._has_begun = self._is_completing = False
        self._busy = Lock()
        self._unread: deque[GeneratedToken] = deque()  # generated because a result was read
        self._ends_text = tokenizer.eos_token_ids
        self._stream = tokenizer.stream(stop)
        self._explanation = explanation
        self._piece = ""
        self._steps = start(self._ends)  # which checks the ids
        self.prompt = tokenizer.decode(prompt_ids)

    @property
    def ids(self) -> list[int]:
        """The ids generated."""
        self._generate_unless_begun()
        return self._ids

    @property
    def text(self) -> str:
        """The text generated, without the prompt."""
        self._generate_unless_begun()
        return self._text

    @property
    def finish_reason(self) -> FinishReason | None:
        """`length`, `stop` (a stop string) or `end_of_text`; None while it goes on."""
        self._generate_unless_begun()
        return self._finish_reason

    @property
    def cache(self) -> ActivationCache | None:
        """The activations read, over prompt and generated tokens; None while it goes on, or if none were asked for."""
        self._generate_unless_begun()
        return self._cache

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What interventions changed, and where, once the text has ended."""
        self._generate_unless_begun()
        return self._applied

    def __next__(self) -> GeneratedToken:
        with self._alone():
            self._has_begun = True
            return self._unread.popleft() if self._unread else self._generated()

    def to_dict(self) -> dict[str, Any]:
        """Returns prompt, text, finish reason, seed and changes for JSON, of the tokens so far."""
        return {
            "prompt": self.prompt,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "seed": self.seed,
            "applied": plain(self.applied),
        }

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle: the results, without the means to generate more.

        Raises:
            InputError: the text has not ended.
        """
        if self._finish_reason is None:
            raise InputError("A generation can be pickled or copied once it has ended; read its .text first.")
        return {name: value for name, value in vars(self).items() if name not in _WHILE_IT_GOES_ON}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._busy, self._steps = Lock(), iter(())

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        # Computes nothing: debuggers and logs call it, too.
        if not self._has_begun:
            return f"Generation({self.prompt!r}: not begun; read .text, or iterate over it)"
        so_far = self._finish_reason or "so far"
        return f"Generation({self.prompt!r}: {self._text!r}, {_counted(len(self._ids))}, {so_far})"

    def _repr_html_(self) -> str:
        from onnxlens.runtime._activations.views import paragraph

        ended = f"ended by {self.finish_reason}" if self.finish_reason else "so far"
        facts = f"{_counted(len(self.ids))}, {ended}; seed {self.seed} gives it again"
        return f"<div>{paragraph(self.prompt, self.text)}<small>{facts}</small></div>"

    def _generate_unless_begun(self) -> None:
        """Generates everything where nothing is generated yet; iterating gives these tokens all the same."""
        if self._has_begun and not self._is_completing:
            return
        with self._alone():
            if self._has_begun:
                return
            self._has_begun = self._is_completing = True
            try:
                with suppress(StopIteration):
                    while True:
                        self._unread.append(self._generated())
            finally:
                self._is_completing = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise InputError(
                "This text is being generated at this moment, by another thread or by the caller of this function. "
                "Use each generation in one thread only."
            )
        try:
            yield
        finally:
            self._busy.release()

    def _generated(self) -> GeneratedToken:
        step = next(self._steps)
        text = self._piece
        if step.last:
            text += self._stream.finish()
            self._finish_reason = (
                "stop" if self._stream.stopped else "end_of_text" if step.token in self._ends_text else "length"
            )
            self._cache, self._applied = step.cache, step.applied
        self._ids.append(step.token)
        self._text += text
        logprob = float(log_softmax(step.logits)[step.token])
        return GeneratedToken(step.token, text, logprob, self._explanation())

    def _ends(self, token: int) -> bool:
        """Takes a chosen token; returns whether the text ends with it."""
        # A token that ends a text is a signal, not text.
        is_end = token in self._ends_text
        self._piece = "" if is_end else self._stream.feed(token)
        return is_end or self._stream.stopped


def _counted(tokens: int) -> str:
    return f"{tokens} {'token' if tokens == 1 else 'tokens'}"
