"""The recipe of the small model: the batches it draws, and that training learns."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer
from toy_corpus import documents
from transformers import AutoModelForCausalLM, AutoTokenizer

import recipe.train
from recipe import checkpoint, corpus, lexicon
from recipe.batches import IGNORED, Batches, bytes_per_token, recurring, repeated, windows
from recipe.curve import Curve, smooth
from recipe.lessons import Lessons
from recipe.optimisers import Optimisers, Settings
from recipe.renaming import Renamer
from recipe.shapes import main as shapes_command
from recipe.shapes import measure
from recipe.train import Budget, evaluate, train
from recipe.train import _loss as train_loss
from recipe.unlikelihood import continued, in_repeats, unlikelihood

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


def test_batches_depend_on_the_step_and_the_progress_alone(work: Path) -> None:
    batches = Batches(work, rows=4, length=32)
    read, answers, weights = batches(7, 0.5)
    assert read.shape == answers.shape == weights.shape == (4, 32)
    assert read.dtype == answers.dtype == torch.int64
    for one, other in zip(batches(7, 0.5), Batches(work, rows=4, length=32)(7, 0.5), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(read, batches(8, 0.5)[0])


def test_answers_are_the_tokens_that_follow(work: Path) -> None:
    read, answers, _ = Batches(work, rows=16, length=64)(3, 0.9)
    known = answers[:, :-1] != IGNORED
    assert 0.5 < known.float().mean() < 1
    assert torch.equal(answers[:, :-1][known], read[:, 1:][known])


def test_random_tokens_repeat_and_their_first_occurrence_is_not_asked_for() -> None:
    read, answers = repeated(np.random.default_rng(0), end=100, period=10, length=45)
    assert read.shape == answers.shape == (45,)
    assert read[0] == 100 and read[1:].max() < 100
    assert (answers[:11] == IGNORED).all()
    assert (read[11:] == read[1:-10]).all()
    assert (answers[11:-1] == read[12:]).all() and answers[-1] == read[-10]


def test_segments_come_back_and_only_what_is_certain_is_asked_for() -> None:
    dice = np.random.default_rng(0)
    shares = []
    for _ in range(50):
        read, answers = recurring(dice, end=4000, length=256)
        known = answers != IGNORED
        assert (answers[known] < 4000).all() and (answers[:-1][known[:-1]] == read[1:][known[:-1]]).all()
        for position in np.flatnonzero(known):
            before = np.flatnonzero(read[:position] == read[position])
            assert answers[position] in read[before + 1], "the same token was followed by the answer before"
        shares.append(known.mean())
    assert np.mean(shares) > 0.6


def test_everybody_gets_another_name_throughout_and_held_out_names_are_given_to_nobody(work: Path) -> None:
    rename = Renamer(Tokenizer.from_file(str(work / "tokenizer.json")))
    text = "When Mary and Leo went to the shop, Leo gave a drink to Mary. Mary thanked Leo."
    given = set()
    for seed in range(200):
        renamed = rename(text, np.random.default_rng(seed))
        found = re.fullmatch(
            r"When (\w+) and (\w+) went to the shop, (\w+) gave a drink to (\w+)\. (\w+) thanked (\w+)\.", renamed
        )
        assert found, renamed
        mary, leo = found[1], found[2]
        assert found.groups() == (mary, leo, leo, mary, mary, leo) and mary != leo
        given |= {mary, leo}
    assert not given & set(lexicon.HELD_OUT_RECEIVERS)
    assert given & set(lexicon.NAMES) and given - set(lexicon.NAMES)


def test_a_lesson_asks_for_certain_words_only_and_these_count_for_more(work: Path) -> None:
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    ids, certain = Lessons(tokenizer, Renamer(tokenizer))(np.random.default_rng(0), 8000)
    text = tokenizer.decode(ids)
    asked = Counter(tokenizer.decode([token]) for token in ids[certain])
    assert 0.02 < certain.mean() < 0.25
    assert asked[" are"] and asked[" is"] and asked[")"]
    for given in re.findall(r" gave \w+ \w+ to (\w+)", text):
        assert given not in lexicon.HELD_OUT_RECEIVERS
    assert set(lexicon.HELD_OUT_RECEIVERS) <= set(re.findall(r"\w+", text))  # who are there in other roles
    _, answers, weights = Batches(work, rows=100, length=64)(0, 0.5)
    heavy = weights > 1
    assert 5 < heavy.any(1).sum() < 30 and (weights[~heavy] == 1).all()
    assert (answers[heavy] != IGNORED).float().mean() < 0.25


def test_heavier_answers_weigh_more(work: Path) -> None:
    model, ids = small_model(work), torch.arange(40).view(2, 20)
    read, answers = ids[:, :-1], ids[:, 1:].clone()
    nats = torch.nn.functional.cross_entropy(
        model(input_ids=read).logits.flatten(0, 1), answers.flatten(), reduction="none"
    )
    weights = torch.ones(answers.shape)
    weights[0] = 3
    expected = (3 * nats[:19].sum() + nats[19:].sum()) / (3 * 19 + 19)
    assert train_loss(model, read, answers, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    answers[1] = IGNORED
    assert train_loss(model, read, answers, weights).item() == pytest.approx(nats[:19].mean().item(), rel=1e-5)
    assert train_loss(model, read, torch.full_like(answers, IGNORED), weights).item() == 0


def test_random_tokens_recur_most_often_in_the_lesson(work: Path) -> None:
    def recurring_rows(progress: float) -> int:
        _, answers, weights = Batches(work, rows=400, length=64)(0, progress)
        return int(((answers[:, 0] == IGNORED) & (weights[:, 0] == 1)).sum())

    assert recurring_rows(0.18) > 0.35 * 400
    assert all(0 < recurring_rows(progress) < 0.1 * 400 for progress in (0.0, 0.9))


# Training


def small_model(work: Path) -> checkpoint.GPT2LMHeadModel:
    """A model that trains in no time, with the same weights in every run."""
    torch.manual_seed(0)
    return checkpoint.new_model(work, checkpoint.Shape(layers=1, width=32, heads=2))


def test_the_learning_rates_rise_stay_and_fall() -> None:
    settings = Settings(warm_up=10, decay=0.5)
    scales = [settings.scale(step, step / 100) for step in range(101)]
    assert scales[:10] == sorted(scales[:10]) and scales[0] == pytest.approx(0.1)
    assert all(scale == 1 for scale in scales[10:50])
    assert scales[50:] == sorted(scales[50:], reverse=True) and scales[100] == 0


def test_muon_updates_the_matrices_of_the_blocks_and_nothing_else(work: Path) -> None:
    model = small_model(work)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, rest = (
        {names[id(parameter)] for group in part.param_groups for parameter in group["params"]}
        for part in Optimisers(model, Settings()).parts
    )
    block = "transformer.h.0"
    assert matrices == {f"{block}.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    assert matrices | rest == set(names.values()) and not matrices & rest


def test_weights_decay_and_vectors_do_not(work: Path) -> None:
    model = small_model(work)
    groups = [group for part in Optimisers(model, Settings()).parts for group in part.param_groups]
    for group in groups:
        assert {parameter.ndim for parameter in group["params"]} == ({2} if group["weight_decay"] else {1})


def test_a_few_steps_learn_and_leave_a_checkpoint_that_loads(work: Path) -> None:
    model = small_model(work)
    before, _ = evaluate(model, work, "stories", 32)
    train(
        work,
        model,
        Budget(minutes=1, steps=80),
        Settings(rows=8, length=32, warm_up=5, matrix_rate=1e-2, other_rate=1e-2),
    )
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


def test_resuming_something_else_is_refused(work: Path) -> None:
    settings = Settings(rows=2, length=32)
    train(work, small_model(work), Budget(minutes=1, steps=2), settings)
    longer = Budget(minutes=1, steps=3)
    with pytest.raises(ValueError, match=r"trained with rows 2, and this run has 4: give the same"):
        train(work, small_model(work), longer, Settings(rows=4, length=32), resume=True)
    wider = checkpoint.new_model(work, checkpoint.Shape(layers=1, width=64, heads=2))
    with pytest.raises(ValueError, match=r"has another shape: give its shape, or train without --resume"):
        train(work, wider, longer, settings, resume=True)


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_checkpoint(work: Path) -> None:
    settings = Settings(rows=2, length=32)
    train(work, small_model(work), Budget(minutes=1, steps=2), settings)
    before = (work / "training.pt").read_bytes()
    broken = small_model(work)
    with torch.no_grad():
        broken.transformer.wpe.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="The loss is nan at step 1"):
        train(work, broken, Budget(minutes=1, steps=3), settings)
    assert (work / "training.pt").read_bytes() == before


def test_a_shape_on_the_command_line_that_is_none_is_refused(work: Path) -> None:
    result = CliRunner().invoke(shapes_command, ["4x256", "--work", str(work)])
    assert result.exit_code == 2
    assert "'4x256' is not a shape: give layers, width and heads, as 5x256x4." in result.output


def test_training_without_a_corpus_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Run `python -m recipe\.corpus` first"):
        checkpoint.new_model(tmp_path, checkpoint.Shape())


def test_heads_must_divide_the_width(work: Path) -> None:
    with pytest.raises(ValueError, match=r"7 heads do not divide a width of 32: choose a multiple of 7\."):
        checkpoint.new_model(work, checkpoint.Shape(layers=1, width=32, heads=7))


# Training against loops


def test_the_tokens_of_sequences_that_stood_shortly_before_are_marked() -> None:
    ids = torch.tensor([[1, 2, 3, 9, 1, 2, 3, 8], [1, 2, 3, 4, 5, 6, 7, 8], [5, 5, 5, 5, 5, 1, 2, 1]])
    assert not in_repeats(ids, 3, within=3)[0].any()
    assert in_repeats(ids, 3, within=4).int().tolist() == [
        [0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],
    ]


def test_continuations_are_greedy(work: Path) -> None:
    model = small_model(work)
    ids = continued(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), 5)
    assert ids.shape == (2, 8) and ids[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids[:, :-1]).logits.argmax(-1)[:, 2:], ids[:, 3:])


def test_what_repeats_becomes_less_likely_and_nothing_else_counts(work: Path) -> None:
    model = small_model(work)
    looping = torch.tensor([[1, 2, 3, *[7, 8] * 10]])

    def likely() -> float:
        with torch.no_grad():
            logs = model(input_ids=looping[:, :-1]).logits.log_softmax(-1)
        return float(logs[0, 15:].gather(-1, looping[0, 16:, None]).mean())

    before = likely()
    for _ in range(3):
        loss = unlikelihood(model, looping, prefix=3, size=4)
        assert loss > 0
        torch.autograd.backward(loss)
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 100 * parameter.grad
                parameter.grad = None
    assert likely() < before - 0.01
    assert unlikelihood(model, torch.arange(23)[None], prefix=3, size=4) == 0


def test_the_end_of_training_is_against_loops(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(model: checkpoint.GPT2LMHeadModel, ids: torch.Tensor, prefix: int) -> torch.Tensor:
        seen.append(ids.shape[1] - prefix)
        return unlikelihood(model, ids, prefix)

    monkeypatch.setattr(recipe.train, "unlikelihood", spy)
    settings = Settings(rows=2, length=64, against_loops=0.5)
    train(work, small_model(work), Budget(minutes=1, steps=8), settings)
    assert seen == [100, 100]  # steps 5 and 7, of those from 4 on


# The loss curve


def test_the_curve_shows_its_numbers(tmp_path: Path) -> None:
    def drawn(curve: Curve, tokens_per_step: int = 1000) -> bytes:
        curve.draw(tmp_path / "loss.png", tokens_per_step)
        return (tmp_path / "loss.png").read_bytes()

    losses, bits = [8.0, 7.0, 6.5, 6.0], {"stories": [(2, 3.0), (4, 2.5)]}
    picture = drawn(Curve(losses, bits))
    assert drawn(Curve(losses, bits)) == picture
    assert drawn(Curve([*losses, 5.0], bits)) != picture
    assert drawn(Curve(losses, {"stories": [(2, 3.0), (4, 2.0)]})) != picture
    assert drawn(Curve(losses, bits), 2000) != picture


def test_the_mean_of_few_losses_is_that_of_all_so_far() -> None:
    assert smooth(np.array([4.0, 2.0, 3.0, 7.0]), width=2).tolist() == [4.0, 3.0, 2.5, 5.0]
    assert smooth(np.array([4.0, 2.0]), width=50).tolist() == [4.0, 3.0]


# The choice of a shape


def test_a_shape_is_measured(work: Path) -> None:
    row = measure(
        work, checkpoint.Shape(layers=1, width=32, heads=2), 0.02, Settings(rows=2, length=32), compiled=False
    )
    assert row.vocabulary == checkpoint.new_model(work, checkpoint.Shape()).config.vocab_size and 0 < row.millions < 1
    assert set(row.bits) == set(corpus.KINDS) and all(0 < bits < 10 for bits in row.bits.values())
    assert 0 <= row.copied < 0.5
