"""TransformerLens's helper functions, under its names.

from onnxlens import utils

utils.get_act_name("pattern", 3)
utils.test_prompt("Once upon a", "time", lens)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens._transformerlens import UTILITIES
from onnxlens.runtime._activations.factored_matrix import FactoredMatrix, composition_scores
from onnxlens.runtime._bundle.shorthand import full_name
from onnxlens.runtime._running.logits import lm_accuracy, lm_cross_entropy_loss
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = [
    "FactoredMatrix",
    "composition_scores",
    "get_act_name",
    "lm_accuracy",
    "lm_cross_entropy_loss",
    "test_prompt",
    "to_numpy",
]


def get_act_name(name: str, layer: int | None = None, layer_type: str | None = None) -> str:
    """Returns the hook point that a short name stands for.

    Args:
        name: a short name such as `pattern`, or one with the block in it, such as `k6`.
        layer: the block.
        layer_type: the place in the block where that is not clear, such as `ln1`.

    Raises:
        HookPointError: the short name is unknown.
    """
    if layer is None and layer_type is None:
        return full_name(name)
    return full_name((name, layer) if layer_type is None else (name, layer, layer_type))


def test_prompt(
    prompt: str,
    answer: str | Sequence[str],
    model: Lens,
    prepend_space_to_answer: bool = True,
    print_details: bool = True,
    prepend_bos: bool = False,
    top_k: int = 10,
) -> None:
    """Prints the rank, logit and probability that a model gives an answer, and the most probable tokens.

    Args:
        prompt: the text.
        answer: what should follow, also of several tokens; or several answers, whose first tokens are compared.
        model: the lens.
        prepend_space_to_answer: put a space in front of an answer that has none.
        print_details: also print the tokens of the prompt, and the most probable tokens.
        prepend_bos: put the beginning-of-text token in front of the prompt.
        top_k: how many of the most probable tokens to print.

    Raises:
        InputError: the prompt or an answer cannot be used.
        ContextLengthError: the text has more tokens than the model has positions.
    """
    answers = [answer] if isinstance(answer, str) else list(answer)
    if not answers or not all(isinstance(one, str) and one for one in answers):
        raise InputError(f"answer must be a text, or a list of texts, not {answer!r:.100}.")
    if prepend_space_to_answer:
        answers = [one if one.startswith(" ") else f" {one}" for one in answers]
    rows = [model.tokenizer.encode_word(one) for one in answers]
    if len(answers) > 1:
        rows = [row[:1] for row in rows]
    first = model.to_tokens(prompt, prepend_bos)[0].tolist()
    if print_details:
        print("Tokenized prompt:", model.to_str_tokens(first))
        tokenized = [model.to_str_tokens(row) for row in rows]
        print(f"Tokenized answer{'s' if len(rows) > 1 else ''}:", tokenized if len(rows) > 1 else tokenized[0])
    ranks = []
    for step in range(len(rows[0])):
        prediction = model.predict([*first, *rows[0][:step]], top=top_k)
        for row in rows:
            token = row[step]
            rank = int((prediction.logits > prediction.logits[token]).sum())
            text = model.to_single_str_token(token)
            ranks.append((text, rank))
            print(
                f"Rank: {rank:<8} Logit: {prediction.logits[token]:5.2f} "
                f"Prob: {prediction.probabilities[token]:7.2%} Token: |{text}|"
            )
        if print_details:
            for place, candidate in enumerate(prediction.top):
                print(
                    f"Top {place}th token. Logit: {candidate.logit:5.2f} Prob: {candidate.probability:7.2%} "
                    f"Token: |{candidate.token}|"
                )
    print("Ranks of the answer tokens:", ranks)


test_prompt.__test__ = False  # type: ignore[attr-defined]  # not a test, though pytest would take it for one


def to_numpy(values: Any) -> np.ndarray:
    """Returns values as a NumPy array, which activations and weights are already."""
    return np.asarray(values)


def __getattr__(name: str) -> Any:
    if name in UTILITIES:
        raise AttributeError(f"onnxlens.utils has no {name!r}: {UTILITIES[name]}")
    raise AttributeError(f"module 'onnxlens.utils' has no attribute {name!r}")
