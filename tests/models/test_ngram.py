"""The n-gram baseline, against one made of dictionaries, and as what it must be: probabilities."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from yardstick import DOUBLE, close

from recipe.ngram import FALLBACK, KneserNey

END, VOCABULARY = 9, 10


def documents(count: int, seed: int = 0) -> list[list[int]]:
    """Short documents in which some tokens follow others more often; token 8 is in none."""
    dice = np.random.default_rng(seed)
    following = dice.dirichlet(np.full(8, 0.3), size=8)
    made = []
    for _ in range(count):
        document = [int(dice.integers(8))]
        while dice.random() < 0.85:
            document.append(int(dice.choice(8, p=following[document[-1]])))
        made.append([*document, END])
    return made


def flat(texts: list[list[int]]) -> np.ndarray:
    return np.array([token for text in texts for token in text], np.uint16)


class Dictionaries:
    """The same model by the formulas of the paper, one probability at a time; takes the discounts as given."""

    def __init__(self, texts: list[list[int]], order: int, discounts: list[tuple[float, ...]]) -> None:
        raw: Counter[tuple[int, ...]] = Counter()
        for text in texts:
            padded = [END, *text]
            for end in range(1, len(padded)):
                for size in range(1, order + 1):
                    if end - size + 1 >= 0:
                        raw[tuple(padded[end - size + 1 : end + 1])] += 1
        left = defaultdict(set)
        for gram in raw:
            if len(gram) > 1:
                left[gram[1:]].add(gram[0])
        self.counts = {
            gram: count if len(gram) == order or (len(gram) > 1 and gram[0] == END) else len(left[gram])
            for gram, count in raw.items()
        }
        self.after = defaultdict(list)
        for gram, count in self.counts.items():
            self.after[gram[:-1]].append(count)
        self.discounts = discounts

    def __call__(self, history: tuple[int, ...], token: int) -> float:
        lower = self(history[1:], token) if history else 1 / VOCABULARY
        counts = self.after.get(history)
        if counts is None:
            return lower
        discounts = (0.0, *self.discounts[len(history)])
        kept_back = sum(discounts[min(count, 3)] for count in counts)
        count = self.counts.get((*history, token), 0)
        return (count - discounts[min(count, 3)] + kept_back * lower) / sum(counts)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_are_those_of_the_formulas(order: int) -> None:
    known, new = documents(300), documents(40, seed=1)
    model = KneserNey(flat(known), VOCABULARY, END, order)
    oracle = Dictionaries(known, order, model.discounts)
    expected = []
    for text in new:
        padded = [END, *text]
        for end in range(1, len(padded)):
            expected.append(oracle(tuple(padded[max(0, end - order + 1) : end]), padded[end]))
    close(np.log(model.probabilities(flat(new))), np.log(expected), within=DOUBLE)


def test_single_tokens_alone_count_as_often_as_they_occur() -> None:
    ids = flat(documents(300))
    model = KneserNey(ids, VOCABULARY, END, order=1)
    discount = model.discounts[0][2]
    spread = discount * len(np.unique(ids)) / VOCABULARY
    expected = ((ids == 3).sum() - discount + spread) / len(ids)
    assert model.probabilities(np.array([3])) == pytest.approx(expected)


@pytest.mark.parametrize(
    "context",
    [[], [3], [1, 2], [5, 1, 4, 2], [8], [8, 8, 8, 8, 8], [2, 8], [8, 2], [0, 0, 0, 0, 0, 0, 1]],
    ids=str,
)
def test_probabilities_over_the_vocabulary_sum_to_one(context: list[int]) -> None:
    model = KneserNey(flat(documents(300)), VOCABULARY, END)
    one_of_each = [[*context, token, END] for token in range(VOCABULARY - 1)]
    found = [model.probabilities(np.array(text))[len(context)] for text in one_of_each]
    found.append(model.probabilities(np.array([*context, END]))[len(context)])
    assert min(found) > 0
    assert sum(found) == pytest.approx(1, abs=1e-12)


def test_the_discounts_are_those_of_the_counts_of_counts() -> None:
    texts = documents(100)
    model = KneserNey(flat(texts), VOCABULARY, END, order=3)
    grams = Counter(
        tuple(padded[i : i + 3]) for text in texts for padded in [[END, *text]] for i in range(len(text) - 1)
    )
    one, two, three, four = (sum(count == number for count in grams.values()) for number in (1, 2, 3, 4))
    share = one / (one + 2 * two)
    expected = (1 - 2 * share * two / one, 2 - 3 * share * three / two, 3 - 4 * share * four / three)
    assert model.discounts[2] == pytest.approx(expected)
    assert model.discounts[0] == FALLBACK  # ten tokens are too few to estimate from


def test_a_document_does_not_depend_on_those_before_it() -> None:
    model = KneserNey(flat(documents(300)), VOCABULARY, END)
    one, *others = documents(20, seed=2)
    alone = model.probabilities(np.array(one))
    after = model.probabilities(flat([*others, one]))[-len(one) :]
    assert (alone == after).all()


def test_what_was_seen_is_likelier_than_what_was_not() -> None:
    text = [1, 2, 3, 4, 5, END]
    model = KneserNey(np.array(text * 5), VOCABULARY, END)
    assert model.probabilities(np.array(text)).min() > 0.5
    assert model.probabilities(np.array([1, 2, 3, 4, 6, END]))[4] < 0.2


def test_documents_must_be_whole() -> None:
    for ids in ([], [1, 2]):
        with pytest.raises(ValueError, match="must be whole documents"):
            KneserNey(np.array(ids, np.uint16), VOCABULARY, END)
