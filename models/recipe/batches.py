"""Windows of token ids for training and evaluation, read from the files that the corpus step wrote."""

__all__ = ["IGNORED", "Batches", "bytes_per_token", "recurring", "repeated", "windows"]

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from recipe.corpus import END_OF_TEXT, token_ids
from recipe.lessons import Lessons
from recipe.renaming import Renamer

# Shares of the rows, as points (progress, share) with straight lines between them. Copying from the context comes
# suddenly, once heads that look one token back are there, which text teaches: then a burst of random tokens that
# recur teaches it within some hundred steps, and a few keep it. What lessons teach (who receives, what agrees) needs
# heads that copy, so they come after that. Stories then want more room, and what is taught holds with fewer lessons.
RECURRING = ((0.0, 0.06), (0.12, 0.06), (0.13, 0.45), (0.22, 0.45), (0.24, 0.06), (1.0, 0.06))
LESSONS = ((0.0, 0.0), (0.24, 0.0), (0.26, 0.26), (0.5, 0.26), (0.52, 0.2), (0.8, 0.2), (0.82, 0.28), (1.0, 0.28))
STORIES = ((0.0, 0.1), (0.5, 0.1), (0.52, 0.2), (1.0, 0.2))  # of the rows left by both; the others are documentation
ANSWER = 8.0  # weight of the one word that a lesson asks for: there are few in a row
RENAMED = 0.5  # share of the story rows in which everybody has another name
PERIODS = 4, 112  # tokens before a random sequence repeats, shortest and longest
SEGMENTS = 3, 11  # random segments that come back in any order, fewest and most
SEGMENT = 2, 11  # tokens in one
IGNORED = -100  # what PyTorch's cross-entropy leaves out

Row = tuple[NDArray[np.int64], NDArray[np.int64]]  # what is read and what should be answered, both [length]


class Batches:
    """Draws training batches: windows of documents and stories, random tokens that recur, and lessons."""

    def __init__(self, work: Path, rows: int, length: int, seed: int = 0) -> None:
        """Opens the training text.

        Args:
            work: Folder that the corpus step wrote.
            rows: Windows in a batch.
            length: Tokens the model reads in a window.
            seed: Another seed draws other windows.
        """
        self._docstrings, self._stories = (token_ids(work, kind, "train") for kind in ("docstrings", "stories"))
        self._end = int(self._docstrings[-1])  # every document ends with it, and no token has a higher id
        self._tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        self._rename = Renamer(self._tokenizer)
        self._lessons = Lessons(self._tokenizer, self._rename)
        self._rows, self._length, self._seed = rows, length, seed

    def __call__(self, step: int, progress: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws the batch of a step: the same for the same step and progress, so that resuming needs no saved state.

        Args:
            step: Finished steps.
            progress: How much of the budget is used, from 0 to 1: it decides the shares of the kinds.

        Returns:
            What the model reads and what it should answer, both int64 [rows, length], and how much each answer
            counts, float32 [rows, length]; answers that nothing could tell are `IGNORED`.
        """
        dice = np.random.default_rng([self._seed, step])
        recurring_rows = dice.binomial(self._rows, _share(RECURRING, progress))
        lesson_rows = dice.binomial(self._rows - recurring_rows, _share(LESSONS, progress))
        text_rows = self._rows - recurring_rows - lesson_rows
        story_rows = dice.binomial(text_rows, _share(STORIES, progress))
        rows = [recurring(dice, self._end, self._length, self._docstrings) for _ in range(recurring_rows)]
        rows += [self._lesson(dice) for _ in range(lesson_rows)]
        rows += [self._window(self._docstrings, dice) for _ in range(text_rows - story_rows)]
        rows += [
            (self._renamed_window if dice.random() < RENAMED else self._window)(self._stories, dice)
            for _ in range(story_rows)
        ]
        read, answers = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        weights = torch.ones(answers.shape)
        weights[recurring_rows : recurring_rows + lesson_rows] = ANSWER
        return read, answers, weights

    def _lesson(self, dice: np.random.Generator) -> Row:
        ids, certain = self._lessons(dice, self._length + 1)
        return ids[:-1], np.where(certain, ids, IGNORED)[1:]

    def prefixes(self, step: int, length: int) -> torch.Tensor:
        """Draws beginnings to be continued, half from documentation and half from stories, int64 [rows, length]."""
        dice = np.random.default_rng([self._seed, step, length])
        kinds = [(self._docstrings, self._stories)[row % 2] for row in range(self._rows)]
        return torch.from_numpy(np.stack([self._window(ids, dice)[0][:length] for ids in kinds]))

    def _renamed_window(self, ids: NDArray[np.uint16], dice: np.random.Generator) -> Row:
        start = dice.integers(0, len(ids) - self._length)
        text = self._tokenizer.decode(ids[start : start + self._length + 1].tolist(), skip_special_tokens=False)
        renamed = np.array(self._tokenizer.encode(self._rename(text, dice)).ids[: self._length + 1])
        answers = np.full(self._length, IGNORED)
        answers[: len(renamed) - 1] = renamed[1:]
        read = np.resize(renamed, self._length)  # where other names take fewer tokens, what is left is not asked for
        return read, answers

    def _window(self, ids: NDArray[np.uint16], dice: np.random.Generator) -> Row:
        start = dice.integers(0, len(ids) - self._length)
        drawn = ids[start : start + self._length + 1].astype(np.int64)
        return drawn[:-1], drawn[1:]


def recurring(dice: np.random.Generator, end: int, length: int, text: NDArray[np.uint16] | None = None) -> Row:
    """Draws random tokens that recur: one sequence with a period, or several segments in any order.

    What comes next is certain from the second occurrence on, and told by nothing but the context. With a period it
    stands at a fixed distance; segments in any order leave no way but to look for the token itself.

    Args:
        dice: Where randomness comes from.
        end: Id of the end of a text, which comes first; the random ids are all below it.
        length: Tokens to read.
        text: Where to take the tokens of every other row from, each on its own: the frequent ones are known earlier,
            so copying is learned on them, and then on all.

    Returns:
        What is read and what should be answered, both int64 [length]; answers that nothing tells are `IGNORED`.
    """

    def draw(count: int) -> NDArray[np.int64]:
        if pool is None:
            return dice.integers(0, end, size=count)
        return pool[dice.integers(len(pool), size=count)].astype(np.int64) % end

    pool = None if text is None or dice.random() < 0.5 else text
    if dice.random() < 0.5:
        shortest, longest = np.log(PERIODS[0]), np.log(min(PERIODS[1], length // 2))
        return _periodic(draw(int(np.exp(dice.uniform(shortest, longest)))), end, length)
    drawn = [draw(int(dice.integers(*SEGMENT, endpoint=True))) for _ in range(dice.integers(*SEGMENTS, endpoint=True))]
    row, known, seen = [end], [False], set()
    while len(row) <= length:
        chosen = int(dice.integers(len(drawn)))
        row += drawn[chosen].tolist()
        known += [False] + [chosen in seen] * (len(drawn[chosen]) - 1)  # which segment comes next, nothing tells
        seen.add(chosen)
    ids = np.array(row[: length + 1])
    return ids[:-1], np.where(known[: length + 1], ids, IGNORED)[1:]


def repeated(dice: np.random.Generator, end: int, period: int, length: int) -> Row:
    """Draws random tokens that repeat after a period; see `recurring`."""
    return _periodic(dice.integers(0, end, size=period), end, length)


def _periodic(drawn: NDArray[np.int64], end: int, length: int) -> Row:
    ids = np.concatenate([[end], np.resize(drawn, length)]).astype(np.int64)
    answers = ids[1:].copy()
    answers[: len(drawn) + 1] = IGNORED  # that it starts again, nothing tells
    return ids[:-1], answers


def _share(points: tuple[tuple[float, float], ...], progress: float) -> float:
    """The share at some progress, on straight lines between the points."""
    return float(np.interp(progress, [at for at, _ in points], [share for _, share in points]))


def windows(work: Path, kind: str, length: int) -> torch.Tensor:
    """Cuts the held-out text of a kind into windows that overlap by one token: each token is predicted once.

    Returns:
        Token ids, int64 [windows, length + 1]; a remainder shorter than a window is left out.

    Raises:
        ValueError: If the text is shorter than one window.
    """
    ids = token_ids(work, kind, "heldout").astype(np.int64)
    if len(ids) <= length:
        raise ValueError(f"The held-out {kind} have {len(ids)} tokens, too few for a window of {length}.")
    return torch.from_numpy(ids).unfold(0, length + 1, length)


def bytes_per_token(work: Path) -> torch.Tensor:
    """Counts the UTF-8 bytes of each token, float64 [vocabulary]; the end of a text has none."""
    vocabulary = json.loads((work / "tokenizer.json").read_text())["model"]["vocab"]
    sizes = torch.zeros(len(vocabulary) + (END_OF_TEXT not in vocabulary), dtype=torch.float64)
    for token, index in vocabulary.items():  # byte-level: one character of a token stands for one byte
        sizes[index] = 0 if token == END_OF_TEXT else len(token)
    return sizes
