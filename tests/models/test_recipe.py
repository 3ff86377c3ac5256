"""The recipe of the small model: the batches it draws, and that training learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_corpus import documents
from transformers import AutoModelForCausalLM, AutoTokenizer

from onnxlens.models import checkpoint, corpus
from onnxlens.models.batches import Batches, bytes_per_token, windows
from onnxlens.models.train import Budget, Settings, evaluate, train

torch.set_num_threads(1)  # models this small only lose time with more

# Batches


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
