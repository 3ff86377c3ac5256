"""Changing what happens inside, through the front door and on the command line."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import load_file
from yardstick import approximately

import onnxlens
from onnxlens import Intervention
from onnxlens.runtime._interventions.intervention_files import write_interventions
from onnxlens.runtime.errors import HookFunctionError, HookPointError, InputError, OutputError

HEAD = Intervention.zero("blocks.1.attn.hook_z", heads=2)
SHIFT = ("blocks.0.hook_resid_post", lambda activation, hook: activation + np.float32(0.5))


@pytest.fixture(scope="module")
def lens(bundle):
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def test_every_kind_of_run_makes_the_same_changes(lens, tmp_path):
    write_interventions([HEAD], tmp_path / "edits.json")
    logits, cache = lens.run_with_cache("the cat sat", interventions=HEAD, fwd_hooks=[SHIFT])
    plain, _ = lens.run_with_cache("the cat sat")
    assert not np.array_equal(logits, plain)
    assert (cache["blocks.1.attn.hook_z"][:, :, 2] == 0).all()
    assert [str(one) for one in cache.applied] == ["zero at blocks.1.attn.hook_z, head 2"]
    for given in (HEAD, [HEAD], tmp_path / "edits.json", str(tmp_path / "edits.json")):
        assert np.array_equal(lens.run_with_hooks("the cat sat", [SHIFT], interventions=given), logits)
    prediction = lens.predict("the cat sat", interventions=[HEAD], fwd_hooks=[SHIFT])
    assert np.array_equal(prediction.logits, logits[0, -1])
    assert prediction.applied == cache.applied
    generation = lens.generate("the cat sat", max_new_tokens=3, temperature=0, interventions=[HEAD], fwd_hooks=[SHIFT])
    first = next(generation)
    assert first.id == logits[0, -1].argmax()
    list(generation)
    assert generation.applied == cache.applied


def test_a_with_block_changes_every_run_inside_it_and_none_after(lens):
    plain = lens.predict("the cat").logits
    expected = lens.predict("the cat", interventions=HEAD, fwd_hooks=[SHIFT]).logits
    with lens.hooks([SHIFT]) as same:
        assert same is lens
        shifted = lens.predict("the cat").logits
        with lens.hooks(interventions=HEAD):
            assert np.array_equal(lens.predict("the cat").logits, expected)
        assert np.array_equal(lens.predict("the cat").logits, shifted)
    assert np.array_equal(lens.predict("the cat").logits, plain)
    with pytest.raises(HookFunctionError), lens.hooks([("hook_embed", lambda activation, hook: 1)]):
        lens.predict("the cat")
    assert np.array_equal(lens.predict("the cat").logits, plain)


def test_a_stop_gives_the_residual_stream_and_computes_no_more(lens):
    _, full = lens.run_with_cache("the cat sat")
    for stop, name in (
        (1, "blocks.1.hook_resid_pre"),
        (-1, "blocks.1.hook_resid_pre"),
        (2, "blocks.1.hook_resid_post"),
    ):
        residual, cache = lens.run_with_cache("the cat sat", stop_at_layer=stop)
        assert np.array_equal(residual, full[name])
        assert list(cache)[-1] == name
        assert all(np.array_equal(cache[one], full[one]) for one in cache)
    plan = lens.runner.plan([1, 2], names_filter="*", stop_at_layer=1)
    (part,) = lens.runner._requests.open(plan.request)._segments
    assert not [name for name in part.outputs if name.startswith(("logits", "present", "blocks.1.attn"))]
    residual, cache = lens.run_with_cache("the cat sat", names_filter="hook_embed", stop_at_layer=0)
    assert list(cache) == ["hook_embed"]
    assert np.array_equal(residual, full["blocks.0.hook_resid_pre"])
    with pytest.raises(InputError, match="stop_at_layer must be a whole number from -2 to 2, not 3"):
        lens.run_with_cache("the cat", stop_at_layer=3)
    with pytest.raises(HookPointError, match=r"'blocks.1.hook_mlp_out' is never reached"):
        lens.run_with_cache("the cat", names_filter="blocks.1.hook_mlp_out", stop_at_layer=1)


def test_chosen_positions_are_those_of_the_whole_run(lens):
    texts = ["the cat sat", "dog sat"]
    _, full = lens.run_with_cache(texts)
    assert full.attention_mask.all()
    length = full.tokens.shape[1]
    parts = {0: 0, -1: -1, (1, 3): slice(1, 3), (2,): slice(2), (0, 3, 2): slice(0, 3, 2)}
    for pos_slice, index in [*parts.items(), *((one, one) for one in ([1, 0], slice(1, None), np.array([0])))]:
        chosen = np.atleast_1d(np.arange(length)[index])
        _, cache = lens.run_with_cache(texts, pos_slice=pos_slice)
        for name, value in cache.items():
            axis = 2 if name.endswith(("attn_scores", "pattern")) else 1
            assert np.array_equal(value, full[name].take(chosen, axis)), name
        assert cache.positions == chosen.tolist()
        if np.size(chosen) > 1:
            assert np.array_equal(full.decompose_resid(pos_slice=pos_slice), cache.decompose_resid())
    for wrong, text in (
        (length, "is out of range"), (slice(3, 3), "selects none of the"), ("1", "must be a number, a slice"),
        ((), "as a tuple is"), (slice(0, 1, 0), "whose step is not 0"), (True, "must be a number"),
        ((0.5, 2), "must be a slice of whole numbers"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            lens.run_with_cache("the cat sat", pos_slice=wrong)


def test_chosen_positions_of_a_padded_batch_count_from_the_end(lens):
    texts = ["the cat sat", "dog"]
    _, full = lens.run_with_cache(texts)
    assert full.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    for pos_slice in (-1, [-2, -1], slice(-2, None), (-2, -1), slice(None, -3, -1)):
        _, cache = lens.run_with_cache(texts, pos_slice=pos_slice)
        index = slice(*pos_slice) if isinstance(pos_slice, tuple) else pos_slice
        chosen = np.atleast_1d(np.arange(3)[index])
        assert np.array_equal(cache["resid_post", 1], full["resid_post", 1][:, chosen])
    for pos_slice in (0, 2, [0, -1], slice(1, None), (0, 2), slice(None, -1), slice(None)):
        with pytest.raises(
            InputError, match=r"Row 1 of the batch has 1 position of padding, so pos_slice .* would mean"
        ):
            lens.run_with_cache(texts, pos_slice=pos_slice)
    with pytest.raises(InputError, match="pos_slice -3 names padding in row 1 of the batch, whose text has 2 tok"):
        lens.run_with_cache(texts, pos_slice=-3)


def test_the_bytes_of_a_run_are_known_before_it_and_a_limit_refuses_it(lens):
    options = {"names_filter": "blocks.*.attn.hook_pattern", "pos_slice": -1}
    estimate = lens.estimate("the cat sat", **options)
    logits, cache = lens.run_with_cache("the cat sat", **options)
    assert estimate == {"logits": logits.nbytes, **{name: value.nbytes for name, value in cache.items()}}
    total = sum(estimate.values())
    lens.run_with_cache("the cat sat", memory_limit=total, **options)
    with pytest.raises(InputError, match=f"take {total:,} bytes, and memory_limit is {total - 1:,}; read fewer"):
        lens.run_with_cache("the cat sat", memory_limit=total - 1, **options)


def test_interventions_need_the_positions_of_one_text(lens):
    with pytest.raises(
        InputError, match="Interventions hold for the positions of one text, at most 48, and this gener"
    ):
        lens.generate("the cat", max_new_tokens=60, overflow="slide", interventions=HEAD)


def test_commands_change_and_report(lens, command, tmp_path):
    bundle = str(lens.runner.bundle.path)
    write_interventions([Intervention.scale("hook_embed", 0.5)], tmp_path / "edits.json")
    edits = [Intervention.scale("hook_embed", 0.5), HEAD]
    changes = ["--intervene", str(tmp_path / "edits.json"), "--ablate-head", "1.2", "--json", "-m", bundle]
    applied = [{"intervention": 0, "operation": "scale", "hook": "hook_embed"},
               {"intervention": 1, "operation": "zero", "hook": "blocks.1.attn.hook_z", "heads": [2]}]  # fmt: skip
    document = command("predict", "the cat", "--top", "1", *changes).json
    assert document["top"][0]["logit"] == approximately(lens.predict("the cat", interventions=edits).logits.max())
    assert [{k: v for k, v in one.items() if v is not None} for one in document["applied"]] == applied
    lines = command("generate", "the cat", "-n", "2", "--temperature", "0", *changes).out.splitlines()
    text = list(lens.generate("the cat", max_new_tokens=2, temperature=0, interventions=edits))
    assert [json.loads(line)["id"] for line in lines[:-1]] == [token.id for token in text]
    assert len(json.loads(lines[-1])["applied"]) == 2
    command("trace", "the cat", "--hooks", "blocks.1.attn.hook_z", "-o", str(tmp_path / "a.safetensors"), *changes)
    from safetensors.numpy import load_file

    assert (load_file(tmp_path / "a.safetensors")["blocks.1.attn.hook_z"][:, :, 2] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--ablate-head", "1.4"],
            "Error: The intervention at 'blocks.1.attn.hook_z' names head 4, and it has heads 0 t",
        ),
        (["--ablate-head", "2.0"], "Error: Unknown hook point 'blocks.2.attn.hook_z': this model has blocks 0 to 1."),
        (
            ["--ablate-head", "1"],
            "Error: --ablate-head takes a layer and a head with a dot between, such as 3.5, not '1'",
        ),
        (
            ["--intervene", "nothing.json"],
            "Error: Cannot read the interventions nothing.json: no such file or directory.",
        ),
    ],
)
def test_commands_refuse_in_one_line(lens, command, arguments, text):
    ran = command("predict", "the cat", "-m", lens.runner.bundle.path, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert text in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("length", [1, 3, 6, 7])
@pytest.mark.parametrize("names", [None, ["blocks.0.ln1.hook_scale", "blocks.0.attn.hook_pattern", "*.hook_resid_mid"]])
def test_where_activations_go_changes_no_bit(lens, tmp_path, length, names):
    ids = np.arange(5, 5 + length)
    logits, cache = lens.run_with_cache(ids, names_filter=names)
    same, trace = lens.run_with_cache(ids, names_filter=names, out=tmp_path / "a.safetensors")
    assert np.array_equal(same, logits)
    assert list(trace) == list(cache)
    for name, value in cache.items():
        assert np.array_equal(trace[name], value), name
    onnxlens.open_trace(tmp_path / "a.safetensors", verify=True)
    assert set(load_file(tmp_path / "a.safetensors")) == {*cache, "tokens", "attention_mask"}


def test_activations_can_go_straight_into_a_trace(lens, tmp_path):
    options = {"names_filter": ["blocks.0.*", "*.hook_result"], "pos_slice": [1, 0], "interventions": HEAD}
    logits, cache = lens.run_with_cache("the cat sat", fwd_hooks=[SHIFT], **options)
    same, trace = lens.run_with_cache("the cat sat", fwd_hooks=[SHIFT], out=tmp_path / "a.safetensors", **options)
    assert np.array_equal(same, logits)
    assert list(trace) == list(cache)
    assert all(np.array_equal(trace[name], value) for name, value in cache.items())
    assert isinstance(trace["blocks.0.hook_resid_pre"], np.memmap)
    cache.save(tmp_path / "b.safetensors")
    saved = onnxlens.open_trace(tmp_path / "b.safetensors", verify=True)
    opened = onnxlens.open_trace(tmp_path / "a.safetensors", verify=True, model=lens)
    for name in ("applied", "positions", "str_tokens", "model", "model_hash", "made_with"):
        assert getattr(opened, name) == getattr(saved, name), name
    assert np.array_equal(opened.tokens, saved.tokens)
    limit = logits.nbytes
    lens.run_with_cache("the cat sat", out=tmp_path / "a.safetensors", memory_limit=limit)
    with pytest.raises(InputError, match="and memory_limit is"):
        lens.run_with_cache("the cat sat", out=tmp_path / "a.safetensors", memory_limit=limit - 1)


def test_a_trace_that_cannot_be_finished_leaves_what_was_there(lens, tmp_path):
    def fail(activation, hook):
        raise RuntimeError("no")

    (tmp_path / "a.safetensors").write_text("precious")
    with pytest.raises(HookFunctionError):
        lens.run_with_cache("the cat", out=tmp_path / "a.safetensors", fwd_hooks=[("hook_embed", fail)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_text() == "precious"
    with pytest.raises(OutputError, match="there is no folder"):
        lens.run_with_cache("the cat", out=tmp_path / "no" / "a.safetensors")


def test_threads_that_share_a_lens_change_only_their_own_runs(lens):
    heads = range(lens.config.n_heads)

    def without(head):
        return Intervention.zero("blocks.1.attn.hook_z", heads=head)

    def run(head):
        with lens.hooks(interventions=without(head)):
            return lens.run_with_hooks("the cat sat", [])

    plain = lens.run_with_hooks("the cat sat", [])
    expected = [lens.run_with_hooks("the cat sat", [], interventions=without(head)) for head in heads]
    with ThreadPoolExecutor(4) as pool, lens.hooks([SHIFT]):
        found = list(pool.map(run, [*heads] * 6))
        assert lens.is_changed
        assert not pool.submit(lambda: lens.is_changed).result()
    assert all(np.array_equal(one, expected[number % len(heads)]) for number, one in enumerate(found))
    assert not lens.is_changed
    assert np.array_equal(lens.run_with_hooks("the cat sat", []), plain)


def test_blocks_may_end_in_any_order(lens):
    plain, both, head = (
        lens.predict("the cat", interventions=edits, fwd_hooks=hooks).logits
        for edits, hooks in (((), ()), (HEAD, [SHIFT]), (HEAD, ()))
    )
    first, second = lens.hooks([SHIFT]), lens.hooks(interventions=HEAD)
    first.__enter__()
    second.__enter__()
    assert np.array_equal(lens.predict("the cat").logits, both)
    first.__exit__(None, None, None)
    assert np.array_equal(lens.predict("the cat").logits, head)
    second.__exit__(None, None, None)
    assert np.array_equal(lens.predict("the cat").logits, plain)


def test_a_block_ends_everywhere_also_when_another_thread_ends_it(lens):
    block = lens.hooks([SHIFT])
    block.__enter__()
    thread = Thread(target=block.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not lens.is_changed


def test_tasks_that_share_a_lens_change_only_their_own_runs(lens):
    async def changed(number):
        with lens.hooks([SHIFT] * number):
            await asyncio.sleep(0)
            return len(lens._changes(None, None).fwd_hooks)

    async def every():
        return await asyncio.gather(*map(changed, range(4)))

    assert asyncio.run(every()) == [0, 1, 2, 3]


def test_a_block_changes_its_own_lens_only(lens):
    other = onnxlens.Lens(lens.runner)
    with lens.hooks([SHIFT]):
        assert (lens.is_changed, other.is_changed) == (True, False)


def test_a_generation_keeps_the_changes_with_which_it_began(lens):
    options = {"max_new_tokens": 3, "temperature": 0}
    expected = [token.id for token in lens.generate("the cat", fwd_hooks=[SHIFT], **options)]
    with lens.hooks([SHIFT]):
        generation = lens.generate("the cat", **options)
    assert [token.id for token in generation] == expected


def test_changes_that_are_none_are_no_changes(lens):
    plain = lens.predict("the cat").logits
    assert np.array_equal(lens.predict("the cat", interventions=None, fwd_hooks=None).logits, plain)
    assert np.array_equal(lens.run_with_hooks("the cat", None)[0, -1], plain)
    with lens.hooks(None, interventions=None):
        assert not lens.is_changed
        assert [token.id for token in lens.generate("the cat", max_new_tokens=1, temperature=0, fwd_hooks=None)] == [
            plain.argmax()
        ]
    output = lens.runner.run([1, 2], interventions=None, fwd_hooks=None)
    assert (output.applied, output.called) == ((), ())
    assert lens.runner.run([1, 2], interventions=HEAD).applied[0].heads == (2,)


def raises(name):
    raise KeyError(name)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda lens: lens.predict("the", interventions=3), InputError, "interventions must be an Interv"),
        (lambda lens: lens.predict("the", interventions=[3]), InputError, "Expected an Intervention, not 3"),
        (lambda lens: lens.predict("the", fwd_hooks=3), InputError, "fwd_hooks must be a list of pairs"),
        (lambda lens: lens.runner.run([1], interventions=3), InputError, "interventions must be an Intervention, or"),
        (lambda lens: Intervention.zero(None), InputError, "or several of these, not None."),
        (lambda lens: Intervention.patch(None, {}), InputError, "or several of these, not None."),
        (lambda lens: Intervention.zero([]), InputError, "or several of these, not []."),
        (
            lambda lens: lens.run_with_cache("the", names_filter=raises),
            HookFunctionError,
            "The function 'raises', which chooses hook points, raised KeyError at 'hook_embed': 'hook_embed'",
        ),
        (
            lambda lens: lens.run_with_hooks("the", [(raises, SHIFT[1])]),
            HookFunctionError,
            "The function 'raises', which chooses hook points, raised KeyError",
        ),
        (lambda lens: lens.predict(np.zeros((1, 1, 2), int)), InputError, "not an array of shape [1, 1, 2]."),
        (lambda lens: lens.run_with_cache("the", memory_limit=-1), InputError, "memory_limit must be a number"),
        (lambda lens: lens.run_with_cache("the", memory_limit="1"), InputError, "of at least 0, not '1'."),
    ],
)  # fmt: skip
def test_what_is_no_change_is_named(lens, call, kind, text):
    with pytest.raises(kind) as refused:
        call(lens)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"fwd_hooks": [("blocks.9.nope", SHIFT[1])]}, HookPointError, "Unknown hook point 'blocks.9.nope'"),
        ({"fwd_hooks": [SHIFT[1]]}, InputError, "Entry 0 of fwd_hooks must be a pair"),
        ({"interventions": Intervention.zero("hook_z")}, HookPointError, "Unknown hook point 'hook_z'. Did you mean"),
        (
            {"interventions": Intervention.zero("blocks.0.attn.hook_z", heads=9)},
            InputError,
            "names head 9, and it has heads 0 to 3.",
        ),
        ({"interventions": Intervention.zero("hook_embed", heads=1)}, InputError, "'hook_embed' has no heads"),
        ({"interventions": Intervention.zero("hook_embed", keys=1)}, InputError, "'hook_embed' has no keys: its axes"),
    ],
)  # fmt: skip
def test_a_block_refuses_what_does_not_fit_as_it_is_entered(lens, changes, kind, text):
    with pytest.raises(kind) as refused, lens.hooks(**changes):
        pytest.fail("the block was entered")
    assert text in str(refused.value)
    assert not lens.is_changed


def test_what_is_no_number_is_refused_where_a_run_stops_early_too(lens):
    broken = [("blocks.0.hook_resid_post", lambda x, hook: np.full_like(x, np.nan))]
    for pos_slice in (None, -1):
        with pytest.raises(
            InputError, match="With the functions, some values of the residual stream are NaN or infinite"
        ):
            lens.run_with_cache(["the cat", "the"], fwd_hooks=broken, stop_at_layer=1, pos_slice=pos_slice)
