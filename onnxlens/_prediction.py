"""The model's prediction of the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._result import Result, plain
from onnxlens.runtime._text.token_text import quoted_token

__all__ = ["Candidate", "Prediction"]


@dataclass(frozen=True)
class Candidate(Result):
    """A token that may come next.

    Attributes:
        id: its id.
        token: its text.
        logit: the model's logit.
        probability: softmax of the logit over the full vocabulary.
    """

    id: int
    token: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Prediction(Result):
    """The model's prediction of the token after a text.

    Attributes:
        ids: the text's token ids.
        tokens: the text of each token.
        top: the most probable next tokens, most probable first.
        logits: [V] float32.
        probabilities: [V] float64, over the full vocabulary.
        applied: what interventions changed, and where.
        pieces: the texts of the tokens and of the most probable ones for a reader, with bytes of a part of a letter as
            escapes; None where only `tokens` are known.
    """

    ids: list[int]
    tokens: list[str]
    top: list[Candidate]
    logits: np.ndarray
    probabilities: np.ndarray
    applied: tuple[Applied, ...] = ()
    pieces: tuple[list[str], list[str]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the text's tokens, the most probable next ones and what was changed, without the full vocabulary."""
        tokens = [{"id": i, "token": text} for i, text in zip(self.ids, self.tokens, strict=True)]
        return {"tokens": tokens, "top": plain(self.top), "applied": plain(self.applied)}

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {c.probability:.1%}" for name, c in zip(self._names(), self.top, strict=True))
        return f"Prediction({quoted_token(''.join(self.pieces[0] if self.pieces else self.tokens))}: {best})"

    def _repr_html_(self) -> str:
        from onnxlens.runtime._activations.views import bar, table, token_list

        rows = [
            (name, str(c.id), f"{c.logit:.3f}", f"{c.probability:.2%}", bar(c.probability))
            for name, c in zip(self._names(), self.top, strict=True)
        ]
        headings = ("next token", "id", "logit", "probability", "")
        return f"<div>{token_list(self.pieces[0] if self.pieces else self.tokens)}{table(headings, rows)}</div>"

    def _names(self) -> list[str]:
        """The most probable tokens in quotes."""
        return [quoted_token(text) for text in (self.pieces[1] if self.pieces else [c.token for c in self.top])]
