"""A text being generated, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxlens.plugins.samplers.explain import Explanation
from onnxlens.runtime.activations import ActivationCache
from onnxlens.runtime.edits import Applied
from onnxlens.runtime.generation import Step
from onnxlens.runtime.logits import log_softmax
from onnxlens.runtime.tokenizer import Tokenizer

__all__ = ["FinishReason", "GeneratedToken", "Generation"]

FinishReason = Literal["length", "stop", "end_of_text"]


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

    def __str__(self) -> str:
        return self.text


class Generation(Iterator[GeneratedToken]):
    """A text being generated; iterate over it to generate.

    Attributes:
        prompt_ids: the prompt's token ids.
        ids: the ids generated so far.
        text: the text generated so far.
        seed: what reproduces it.
        finish_reason: `length`, `stop` (a stop string) or `end_of_text`; None while it goes on.
        cache: when it has ended, the activations read, over prompt and generated tokens; None if none were asked for.
        applied: when it has ended, what interventions changed where.
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
        self.ids: list[int] = []
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.cache: ActivationCache | None = None
        self.applied: tuple[Applied, ...] = ()
        self._end = tokenizer.eos_token_id
        self._stream = tokenizer.stream(stop)
        self._explanation = explanation
        self._piece = ""
        self._steps = start(self._ends)

    def __next__(self) -> GeneratedToken:
        step = next(self._steps)
        text = self._piece
        if step.last:
            text += self._stream.finish()
            self.finish_reason = (
                "stop" if self._stream.stopped else "end_of_text" if step.token == self._end else "length"
            )
            self.cache, self.applied = step.cache, step.applied
        self.ids.append(step.token)
        self.text += text
        logprob = float(log_softmax(step.logits)[step.token])
        return GeneratedToken(step.token, text, logprob, self._explanation())

    def _ends(self, token: int) -> bool:
        """Takes a token as it is chosen; whether the text ends with it."""
        # The end-of-text token is a signal, not text.
        self._piece = "" if token == self._end else self._stream.feed(token)
        return token == self._end or self._stream.stopped
