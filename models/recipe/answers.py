"""Whether a model answers questions that have one right answer."""

from __future__ import annotations

__all__ = ["Answers", "Vocabulary", "answers"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from recipe.passes import Floats, Ints, NextTokens, batched
from recipe.tasks import Question
from onnxlens.runtime._bundle.bundle import TOKENIZER, Bundle


class Vocabulary:
    """The tokens of a byte-level vocabulary by the words that they complete.

    Args:
        tokenizer: the tokenizer.

    Attributes:
        ordinary: ids of all tokens that are text, so without `<|endoftext|>`, ascending.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.get_added_tokens_decoder()
        self._texts = {token: text for text, token in tokenizer.get_vocab().items() if token not in special}
        self.ordinary: Ints = np.array(sorted(self._texts))
        self._completing: dict[int, Ints] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> Vocabulary:
        """The vocabulary of a bundle."""
        return cls(Tokenizer.from_file(str(bundle.path / TOKENIZER)))

    def completing(self, token: int) -> Ints:
        """Ids of all tokens that say what a token says and then nothing that changes it, itself among them.

        ` is` is completed by ` is` and ` is,`, and not by ` island`; `)` by `).` and `))`; `'` by `',`, and not by
        `'s`.
        """
        if token not in self._completing:
            text = self._texts[token]  # byte-level: one character for each byte
            self._completing[token] = np.array(
                [
                    one
                    for one, other in self._texts.items()
                    if other.startswith(text) and _ends(_decoded(text), _decoded(other[len(text) :]))
                ]
            )
        return self._completing[token]


def _decoded(text: str) -> str:
    decoded: str = decoders.ByteLevel().decode([text])  # type: ignore[no-untyped-call, unused-ignore]
    return decoded


def _ends(text: str, rest: str) -> bool:
    """Whether what a text says stays what it is when the rest follows."""
    if text.endswith("'"):
        return not rest[:1].isalpha()
    return not (text[-1:].isalnum() and rest[:1].isalnum())


@dataclass(frozen=True)
class Answers:
    """How questions were answered.

    Attributes:
        right: for each question, whether the answer is likelier than every other, [N].
        greedy: for each, whether greedy decoding says it, [N].
        margins: for each, by how many nats the answer is likelier than the likeliest other, [N].
    """

    right: NDArray[np.bool_]
    greedy: NDArray[np.bool_]
    margins: Floats

    @property
    def share(self) -> float:
        """The share of right answers."""
        return float(self.right.mean())


def answers(
    questions: Sequence[Question],
    encode: Callable[[str], list[int]],
    vocabulary: Vocabulary,
    predict: NextTokens,
    *,
    chunk: int = 64,
) -> Answers:
    """Asks questions, as `onnxlens predict` would: the prompt is read as it stands.

    The probability that the text goes on with a candidate is the product over its tokens, of which the last stands for
    all tokens that complete it: see `Vocabulary.completing`. Where the tokens of a candidate go on to those of another
    (` look` and ` look` `s`), what goes on with the longer one does not count for the shorter. A question is answered
    rightly if the answer is likelier than every other candidate. Greedy decoding says a candidate if each of its tokens
    is the likeliest, and the likeliest in place of the last completes it.

    Args:
        questions: the questions.
        encode: turns text into token ids.
        vocabulary: the tokens.
        predict: the model.
        chunk: questions asked at once.

    Raises:
        ValueError: two candidates are the same, or the tokens of one are others in the prompt's company, so that its
            score would be of something the model never saw.
    """
    right, greedy, margins = [], [], []
    for some in batched(questions, chunk):
        asked = [_candidates(question, encode) for question in some]
        places: dict[tuple[int, ...], int] = {}
        for prompt, candidates in asked:
            for candidate in candidates:
                for size in range(len(candidate)):
                    places.setdefault((*prompt, *candidate[:size]), len(places))
        likely = predict(list(places))
        for prompt, candidates in asked:
            scores, said = [], []
            for candidate in candidates:
                rows = [likely[places[*prompt, *candidate[:size]]] for size in range(len(candidate))]
                last = vocabulary.completing(candidate[-1])
                before = sum(float(row[token]) for row, token in zip(rows, candidate[:-1], strict=False))
                scores.append(before + float(np.logaddexp.reduce(rows[-1][last])))
                best = [int(row.argmax()) for row in rows]
                said.append(best[:-1] == candidate[:-1] and best[-1] in last)
            scores, said = _apart(candidates, vocabulary, scores, said)
            margins.append(scores[0] - max(scores[1:]))
            right.append(margins[-1] > 0)
            greedy.append(said[0])
    return Answers(np.array(right), np.array(greedy), np.array(margins))


def _candidates(question: Question, encode: Callable[[str], list[int]]) -> tuple[list[int], list[list[int]]]:
    texts = [question.answer, *question.others]
    if len(set(texts)) < len(texts):
        raise ValueError(f"Two candidates after {question.prompt!r} are the same: {texts}.")
    prompt, found = encode(question.prompt), [encode(text) for text in texts]
    for text, candidate in zip(texts, found, strict=True):
        if encode(question.prompt + text) != [*prompt, *candidate]:
            raise ValueError(f"The tokens of {text!r} are others after {question.prompt!r} than alone.")
    return prompt, found


def _apart(
    candidates: list[list[int]], vocabulary: Vocabulary, scores: list[float], said: list[bool]
) -> tuple[list[float], list[bool]]:
    """Takes from each candidate what belongs to others whose tokens go on from its own, the longest first."""
    scores, said = list(scores), list(said)
    for one in sorted(range(len(candidates)), key=lambda index: -len(candidates[index])):
        *begin, last = candidates[one]
        for other, tokens in enumerate(candidates):
            place = len(begin)
            if other == one or len(tokens) <= place or tokens[:place] != begin:
                continue
            if tokens[place] in vocabulary.completing(last):
                left = -math.expm1(scores[other] - scores[one])
                scores[one] = scores[one] + math.log(left) if left > 0 else -math.inf
                said[one] = said[one] and not said[other]
    return scores, said
