"""The recipe of the small model: what is cleaned away, what is held out, that training learns."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from onnxlens.models import checkpoint, corpus, docstrings
from onnxlens.models.batches import Batches, bytes_per_token, windows
from onnxlens.models.cleaning import Cleaner, clean
from onnxlens.models.docstrings import Source
from onnxlens.models.samples import predict
from onnxlens.models.train import Budget, Settings, evaluate, train

torch.set_num_threads(1)  # models this small only lose time with more

PROSE = "This function walks over the tree and returns every node that has no children of its own."


# Cleaning


@pytest.mark.parametrize(
    "rubbish",
    [
        ">>> walk(tree)\n[1, 2, 3]",
        "```python\nfor node in walk(tree):\n\n    print(node)\n```",
        "Copyright 2020 Somebody. All rights reserved.",
        "name     type     meaning\na        int      the first",
        ".. autofunction:: walk",
        "[0.1, 0.2, 0.3, 1e-7] == (12, 34, 56, 78)",
        "https://example.org/a/page.html",
    ],
    ids=["doctest", "fence", "licence", "table", "directive", "numbers", "address"],
)
def test_only_the_prose_is_kept(rubbish: str) -> None:
    after = "It never changes the tree."
    assert clean(f"{PROSE}\n\n{rubbish}\n\n{after}") == f"{PROSE}\n\n{after}"


def test_a_section_keeps_its_heading_unless_nothing_else_is_left_of_it() -> None:
    section = "Notes\n=====\n\nIt is slow."
    assert clean(section) == "Notes\n\nIt is slow."
    assert clean(f"Examples\n--------\n\n>>> walk(tree)\n[1, 2, 3]\n\n{section}") == "Notes\n\nIt is slow."
    assert clean(f"{section}\n\nExamples:\n\n>>> walk(tree)") == "Notes\n\nIt is slow."


def test_lines_broken_to_fit_a_column_are_joined_and_lists_are_not() -> None:
    broken = "Walks over the whole of the tree, from the root to the leaves,\nand returns the nodes."
    assert clean(broken) == broken.replace("\n", " ")
    arguments = "tree (Tree): The tree to walk over, which is never changed by this.\norder (str): Depth or breadth."
    assert clean(arguments) == arguments


def test_markup_of_references_is_dropped() -> None:
    assert clean("See :meth:`~tree.walk` or ``None``.") == "See `tree.walk` or `None`."


def test_a_paragraph_with_only_another_name_is_not_new() -> None:
    cleaner = Cleaner()
    first = "The bare `Bert` model with 12 layers, which returns raw hidden states without any head on top."
    assert cleaner(first) == first
    assert cleaner(first.replace("Bert", "Llama").replace("12", "32")) == ""
    assert cleaner(first.replace("raw", "normalised")) != ""


def test_short_and_foreign_documents_are_dropped() -> None:
    assert Cleaner()("Return self.") == ""
    assert Cleaner()("木のすべての葉を順番に返します。子を持たない節だけが対象で、木そのものは変わりません。" * 2) == ""


# Sources


def test_docstrings_are_read_in_order_without_importing(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""One."""\nraise RuntimeError\nclass A:\n    """Two."""\n    async def b(self):\n        """Three."""\n'
    )
    assert list(docstrings.docstrings(path)) == ["One.", "Two.", "Three."]
    path.write_text("def (")
    assert list(docstrings.docstrings(path)) == []


def test_a_missing_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docstrings, "DISTRIBUTIONS", ("no-such-package",))
    with pytest.raises(FileNotFoundError, match="'no-such-package', which is not installed"):
        docstrings.sources()
    result = CliRunner().invoke(corpus.main, ["--work", str(tmp_path)])
    assert result.exit_code == 1
    assert "Error: The corpus takes text from 'no-such-package'" in result.output


# Corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, a quarter of it held out."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "HELD_OUT", 4)
        corpus.write_corpus(folder, [toy_source(folder / "toy.py")], story_count=200)
    return folder


def toy_source(path: Path) -> Source:
    """A package of one file with sixty docstrings."""
    words = ["tree", "node", "leaf", "root", "child", "parent", "branch", "path", "edge", "walk"]
    dice = random.Random(0)
    texts = (f"Return the {' of the '.join(dice.choices(words, k=12))} or nothing at all." for _ in range(60))
    path.write_text("\n".join(f'def f{number}():\n    """{text}"""' for number, text in enumerate(texts)))
    return Source("toy", "1.0", "MIT", (path,))


def documents(work: Path, kind: str, split: str) -> list[str]:
    """The documents of one part of a corpus."""
    return corpus.part(work, kind, split, ".txt").read_text().split(corpus.END_OF_TEXT)[:-1]


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_nothing_held_out_is_in_training(work: Path, kind: str) -> None:
    train_texts, held_out = documents(work, kind, "train"), documents(work, kind, "heldout")
    assert 0.1 < len(held_out) / (len(held_out) + len(train_texts)) < 0.4
    assert set(train_texts).isdisjoint(held_out)
    assert len({*train_texts, *held_out}) == len(train_texts) + len(held_out)  # and nothing occurs twice


def test_the_split_does_not_depend_on_other_documents() -> None:
    texts = [f"document {number}" for number in range(2000)]
    assert 5 < sum(map(corpus.is_held_out, texts)) < 50
    assert [corpus.is_held_out(text) for text in reversed(texts)] == [corpus.is_held_out(text) for text in texts][::-1]


def test_the_same_text_gives_the_same_sum(tmp_path: Path) -> None:
    source = toy_source(tmp_path / "toy.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "HELD_OUT", 4)
        sums = [corpus.write_corpus(tmp_path / str(count), [source], count) for count in (50, 50, 51)]
    assert sums[0] == sums[1] != sums[2]


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The corpus has no heldout"):
        corpus.write_corpus(tmp_path, [toy_source(tmp_path / "toy.py")], story_count=1)


def test_the_tokenizer_loses_nothing_and_ends_with_the_end_of_text(work: Path) -> None:
    tokenizer = corpus.train_tokenizer(documents(work, "stories", "train"), vocabulary=400)
    assert tokenizer.token_to_id(corpus.END_OF_TEXT) == tokenizer.get_vocab_size() - 1 == 399
    text = '  "Où est-ce?"\n\n\tx := 3 — 😀' + corpus.END_OF_TEXT
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_bytes_of_the_tokens_are_those_of_the_text(work: Path) -> None:
    ids = np.load(corpus.part(work, "stories", "heldout", ".npy")).astype(np.int64)
    text = "".join(documents(work, "stories", "heldout"))
    assert bytes_per_token(work)[ids].sum() == len(text.encode())


def test_windows_predict_every_token_once(work: Path) -> None:
    ids = np.load(corpus.part(work, "stories", "heldout", ".npy"))
    answers = windows(work, "stories", 32)[:, 1:].flatten().numpy()
    assert (answers == ids[1 : len(answers) + 1]).all()
    assert len(ids) - len(answers) <= 32


def test_batches_depend_on_the_step_alone(work: Path) -> None:
    batches = Batches(work, rows=4, length=32)
    assert batches(7).shape == (4, 33)
    assert torch.equal(batches(7), Batches(work, rows=4, length=32)(7))
    assert not torch.equal(batches(7), batches(8))


# Training


def small_model(work: Path) -> checkpoint.GPT2LMHeadModel:
    """A model that trains in no time, with the same weights in every run."""
    torch.manual_seed(0)
    return checkpoint.new_model(work, layers=1, width=32, heads=2)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [Settings().rate(progress / 100) for progress in range(101)]
    assert max(rates) == pytest.approx(Settings.learning_rate)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(Settings.learning_rate * Settings.floor)


def test_a_few_steps_learn_and_leave_a_checkpoint_that_loads(work: Path) -> None:
    model = small_model(work)
    before, _ = evaluate(model, work, "stories", 32)
    train(work, model, Budget(minutes=1, steps=40), Settings(rows=4, length=32, learning_rate=1e-2))
    after, bits = evaluate(model, work, "stories", 32)
    assert after < before - 1
    loaded = AutoModelForCausalLM.from_pretrained(work / "tiny-checkpoint")
    assert evaluate(loaded, work, "stories", 32) == pytest.approx((after, bits), rel=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(work / "tiny-checkpoint")
    assert tokenizer.model_max_length == loaded.config.n_positions == 256
    assert tokenizer.eos_token == tokenizer.bos_token == corpus.END_OF_TEXT
    assert tokenizer.eos_token_id == loaded.config.eos_token_id == loaded.config.bos_token_id
    assert tokenizer.eos_token_id == loaded.config.vocab_size - 1
    text = documents(work, "stories", "heldout")[0]
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_prediction_shows_the_likeliest_tokens_of_the_whole_vocabulary(work: Path) -> None:
    model = small_model(work)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    likeliest, text = predict(model, tokenizer, "Mary and John", length=3)
    chances = [chance for _, chance in likeliest]
    assert chances == sorted(chances, reverse=True)
    assert 1 / model.config.vocab_size < chances[0] < 0.5  # an untrained model is sure of nothing
    assert text.startswith(likeliest[0][0])


def test_resumed_training_ends_where_uninterrupted_training_ends(work: Path) -> None:
    settings = Settings(rows=2, length=32)
    straight = small_model(work)
    train(work, straight, Budget(minutes=1, steps=6), settings)

    def stop(budget: Budget, loss: float) -> None:
        if budget.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(work, small_model(work), Budget(minutes=1, steps=6), settings, save_minutes=0, report=stop)
    resumed, budget = small_model(work), Budget(minutes=1, steps=6)
    train(work, resumed, budget, settings, resume=True)
    assert budget.step == 6
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="Nothing left to train: the checkpoint has had 6 steps"):
        train(work, resumed, Budget(minutes=1, steps=6), settings, resume=True)


def test_training_without_a_corpus_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Run `python -m onnxlens\.models\.corpus` first"):
        checkpoint.new_model(tmp_path)


def test_the_model_that_ships_fits_into_its_megabytes(work: Path) -> None:
    model = checkpoint.new_model(work)
    layers = model.num_parameters() - model.transformer.wte.weight.numel()
    assert layers + corpus.VOCABULARY * model.config.n_embd <= 2_750_000  # 11 MB in float32
