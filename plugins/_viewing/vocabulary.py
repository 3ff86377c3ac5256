"""Charts of some tokens, whose differences are taken over the full vocabulary, not over the tokens shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxlens.plugins._viewing.expected import names_of
from onnxlens.plugins._viewing.visualizer import View
from onnxlens.plugins.charts.bars import Bars
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.scale import PROBABILITY
from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = ["Ladder", "NextTokens"]

_MORE = ("is more probable in the second", "is less probable")


class NextTokens(Bars):
    """Bars of the probabilities of some tokens.

    Args:
        title: the heading.
        view: the text.
        distributions: probabilities of all tokens, [V], by the name of the list.
        tokens: the ids of the tokens shown.
        unit: the unit of the probabilities.
        options: options of `Bars`, with tokens by id.
    """

    def __init__(
        self,
        title: str,
        view: View,
        distributions: Mapping[str, np.ndarray],
        tokens: Sequence[int],
        *,
        unit: str,
        notes: Mapping[int, str] | None = None,
        marked: Sequence[int] = (),
        together: bool = False,
    ) -> None:
        self._view, self._all, self._tokens = view, dict(distributions), list(tokens)
        names = dict(zip(tokens, names_of(view, self._tokens), strict=True))
        super().__init__(
            title,
            {name: [(names[token], float(one[token])) for token in tokens] for name, one in distributions.items()},
            unit=unit,
            axis="next token",
            notes={names[token]: note for token, note in (notes or {}).items()},
            marked=[names[token] for token in marked],
            limits=PROBABILITY,
            together=together,
        )

    def minus(self, other: Chart) -> Chart | None:
        """Returns the tokens of the full vocabulary whose probabilities differ most."""
        if not isinstance(other, NextTokens) or [*other._all] != [*self._all] or other.unit != self.unit:
            return None
        own, theirs = _common(self._view, other._view)
        changes = {name: np.zeros(len(one)) for name, one in self._all.items()}
        for name, one in self._all.items():
            changes[name][own] = one[own] - other._all[name][theirs]
        tokens = _most_changed(np.max([np.abs(one) for one in changes.values()], axis=0), len(self._tokens))
        names = names_of(self._view, tokens)
        return Bars(
            f"{self.unit}, the largest changes of all {len(own):,} tokens",
            {name: list(zip(names, one[tokens].tolist(), strict=True)) for name, one in changes.items()},
            unit=f"difference, {self.unit}",
            axis=self.axis,
            limits=(-1.0, 1.0),
            signs=_MORE,
            together=self.together,
        )


class Ladder(Heatmap):
    """The probabilities of some tokens, with a different rule in each row.

    Args:
        title: the heading.
        view: the text.
        rows: the labels of the rows, R.
        probabilities: returns those of some tokens [T] by each rule, [R, T].
        tokens: the ids of the tokens shown.
        unrestricted: the row that decides which tokens a difference shows.
        axes: names of both axes.
    """

    def __init__(
        self,
        title: str,
        view: View,
        rows: Sequence[str],
        probabilities: Callable[[np.ndarray], np.ndarray],
        tokens: Sequence[int],
        *,
        unrestricted: int,
        **axes: str,
    ) -> None:
        self._view, self._of, self._tokens, self._row = view, probabilities, list(tokens), unrestricted
        shown = probabilities(np.array(self._tokens))
        how: dict[str, Any] = {"unit": "probability", "limits": PROBABILITY, **axes}
        super().__init__(title, shown, rows, names_of(view, self._tokens), **how)

    def minus(self, other: Chart) -> Chart | None:
        """Returns the tokens of the full vocabulary whose probabilities differ most."""
        if not isinstance(other, Ladder) or other.rows != self.rows:
            return None
        own, theirs = _common(self._view, other._view)
        changes = self._of(own) - other._of(theirs)  # [R, V]
        places = _most_changed(np.abs(changes[self._row]), len(self._tokens))
        return Heatmap(
            f"{self.unit}, the largest changes of all {len(own):,} tokens",
            changes[:, places],
            self.rows,
            names_of(self._view, own[places].tolist()),
            unit=f"difference, {self.unit}",
            row_axis=self.row_axis,
            column_axis=self.column_axis,
            limits=(-1.0, 1.0),
            signs=_MORE,
        )


def _most_changed(sizes: np.ndarray, count: int) -> list[int]:
    found: list[int] = np.argsort(-sizes, kind="stable")[:count].tolist()
    return found


def _common(own: View, theirs: View) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the tokens in both vocabularies, in each of them."""
    count, other = own.config.d_vocab, theirs.config.d_vocab
    if own.tokenizer is theirs.tokenizer or own.tokenizer is None or theirs.tokenizer is None:
        same = np.arange(min(count, other))
        return same, same
    places = {encoded: token for token, encoded in enumerate(_encoded(theirs.tokenizer, other))}
    pairs = [
        (token, places[encoded]) for token, encoded in enumerate(_encoded(own.tokenizer, count)) if encoded in places
    ]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(first, np.int64), np.array(second, np.int64)


def _encoded(tokenizer: Tokenizer, count: int) -> list[bytes]:
    return [tokenizer.token_bytes(token) for token in range(count)]
