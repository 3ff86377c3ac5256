"""What the model expects next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlens.runtime.edits import Applied

__all__ = ["Candidate", "Prediction"]


@dataclass(frozen=True)
class Candidate:
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
class Prediction:
    """What the model expects after a text.

    Attributes:
        ids: the text's token ids.
        tokens: the text of each token.
        top: the most probable next tokens, most probable first.
        logits: [V] float32.
        probabilities: [V] float64, over the full vocabulary.
        applied: what interventions changed where.
    """

    ids: list[int]
    tokens: list[str]
    top: list[Candidate]
    logits: np.ndarray
    probabilities: np.ndarray
    applied: tuple[Applied, ...] = ()

    def __repr__(self) -> str:
        best = ", ".join(f"{c.token!r} {c.probability:.1%}" for c in self.top)
        return f"Prediction({''.join(self.tokens)!r}: {best})"

    def _repr_html_(self) -> str:
        from onnxlens.runtime.views import bar, table, token_list

        rows = [
            (repr(c.token), str(c.id), f"{c.logit:.3f}", f"{c.probability:.2%}", bar(c.probability)) for c in self.top
        ]
        headings = ("next token", "id", "logit", "probability", "")
        return f"<div>{token_list(self.tokens)}{table(headings, rows)}</div>"
