"""Python functions at hook points: TransformerLens's semantics, together with everything else, and their mistakes."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime.errors import HookFunctionError, HookPointError, InputError

IDS = np.random.default_rng(3).integers(0, 300, (2, 7))


def double(activation, hook):
    return activation * 2


def double_in_place(activation, hook):
    activation *= 2


def look(activation, hook):
    return None


@pytest.mark.parametrize("name", ["base", "scaled"])
def test_a_function_does_at_every_hook_point_what_an_intervention_does(runner, name):
    model = runner(name)
    for point in model.hook_names:
        expected = model.run(IDS, names_filter="*", interventions=[Intervention.scale(point, 2.0)])
        for function in (double, double_in_place):
            found = model.run(IDS, names_filter="*", fwd_hooks=[(point, function)])
            assert np.array_equal(found.logits, expected.logits), point
            assert list(found.activations) == list(expected.activations)
            for other, value in expected.activations.items():
                assert np.array_equal(found.activations[other], value), (point, other)


def test_a_function_that_only_looks_sees_what_is_read_and_changes_no_bit(runner):
    model = runner("base")
    seen = {}
    plain = model.run(IDS, names_filter="*")
    hooked = model.run(IDS, fwd_hooks=[("*", lambda activation, hook: seen.update({hook.name: activation.copy()}))])
    assert np.array_equal(hooked.logits, plain.logits)
    assert list(seen) == list(plain.activations)  # in the order of computation
    assert all(np.array_equal(seen[name], value) for name, value in plain.activations.items())


@settings(max_examples=30)
@given(data=st.data())
def test_functions_and_interventions_together_are_interventions_in_that_order(runner, data):
    model = runner("wide")
    names = st.sampled_from(model.hook_names).filter(lambda name: "scale" not in name)
    edits, hooks, both = [], [], []
    for _ in range(data.draw(st.integers(1, 3), label="interventions")):
        edits.append(Intervention.add(data.draw(names), 0.25, positions=slice(2, None)))
    for _ in range(data.draw(st.integers(1, 3), label="functions")):
        name = data.draw(names)
        hooks.append((name, double))
        both.append(Intervention.scale(name, 2.0))
    found = model.run(IDS, names_filter="*", interventions=edits, fwd_hooks=hooks)
    expected = model.run(IDS, names_filter="*", interventions=[*edits, *both])
    assert np.array_equal(found.logits, expected.logits)
    assert all(np.array_equal(found.activations[name], value) for name, value in expected.activations.items())


def test_functions_are_called_in_the_order_given_and_share_what_they_leave(runner):
    model = runner("base")
    called = []

    def first(activation, hook):
        called.append(("first", hook.name, hook.layer()))
        hook.ctx["seen"] = True
        return activation + np.float32(1)

    def second(activation, hook):
        called.append(("second", hook.name, hook.layer(), hook.ctx.get("seen")))
        return activation * 2

    name = "blocks.1.hook_resid_pre"
    found = model.run(IDS, names_filter=name, fwd_hooks=[(name, first), (lambda n: n == name, second)])
    assert called == [("first", name, 1), ("second", name, 1, True)]
    plain = model.run(IDS, names_filter=name).activations[name]
    assert np.array_equal(found.activations[name], (plain + 1) * 2)


def test_what_functions_leave_stays_until_it_is_cleared(runner):
    lens = Lens(runner("base"))
    seen = []

    def count(activation, hook):
        hook.ctx["calls"] = hook.ctx.get("calls", 0) + 1
        seen.append(hook.ctx["calls"])

    for _ in range(2):
        lens.run_with_hooks(IDS, [("blocks.*.hook_resid_pre", count)])
    assert seen == [1] * lens.config.n_layers + [2] * lens.config.n_layers  # each hook point has its own
    lens.clear_contexts()
    lens.run_with_hooks(IDS, [("blocks.0.hook_resid_pre", count)])
    assert seen[-1] == 1


def test_a_graph_is_cut_no_oftener_than_the_order_of_calls_needs(runner):
    model = runner("base")
    heads = model.plan(IDS, fwd_hooks=[("blocks.0.attn.hook_[qkv]", look)])
    assert len(model._requests.open(heads.request)._segments) == 2  # queries, keys and values are computed side by side
    every = model.plan(IDS, fwd_hooks=[("blocks.*.hook_resid_post", look)])
    assert len(model._requests.open(every.request)._segments) == 3
    last = model.plan(IDS, fwd_hooks=[("ln_final.hook_normalized", look)], names_filter="*", pos_slice=-1)
    assert model.execute(last).activations["ln_final.hook_normalized"].shape == (2, 1, 32)


def test_a_stop_and_chosen_positions_hold_with_functions(runner):
    model = runner("scaled")
    full = model.run(IDS, names_filter="*", fwd_hooks=[("blocks.1.*", double)])
    part = model.run(IDS, names_filter="*", fwd_hooks=[("blocks.1.*", double)], stop_at_layer=-2, pos_slice=[1, -1])
    assert part.logits.shape == (2, 0, 300)
    assert list(part.activations) == [
        *(n for n in model.hook_names if re.match(r"hook|blocks\.[01]", n)),
        "blocks.2.hook_resid_pre",
    ]
    for name, value in part.activations.items():
        axis = 2 if name.endswith(("attn_scores", "pattern")) else 1
        assert np.array_equal(value, full.activations[name].take([1, 6], axis)), name
    assert np.array_equal(part.residual, full.activations["blocks.2.hook_resid_pre"][:, [1, 6]])


def test_generating_calls_with_the_new_positions_and_is_computing_everything_anew(runner):
    model, shapes = runner("base"), []

    def shift(activation, hook):
        shapes.append(activation.shape)
        return activation + np.float32(0.3)

    hooks = [("blocks.0.hook_resid_post", shift)]
    steps = list(
        generate_ids(model, [5, 6, 7], lambda logits, *_: int(logits.argmax()), max_new_tokens=4, fwd_hooks=hooks)
    )
    assert shapes == [(1, 3, 32)] + [(1, 1, 32)] * 3
    ids = [5, 6, 7, *(step.token for step in steps)]
    for number, step in enumerate(steps):
        again = model.run(ids[: 3 + number], fwd_hooks=hooks)
        close(step.logits, again.logits[0, -1])


def fails(activation, hook):
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (fails, "The function 'fails' at 'blocks.1.hook_mlp_out' raised ZeroDivisionError: by nothing"),
        (lambda a, hook: a[:, 1:], "returned shape [2, 6, 32]; it must be that of the activation, [2, 7, 32]."),
        (lambda a, hook: a.astype(float), "returned float64; it must be float32, as the activation is. Add .astype("),
        (lambda a, hook: a.tolist(), "returned a list; it must return an array or, to leave it as it is, None."),
        (lambda a: a, "raised TypeError"),
    ],
)
def test_a_mistake_of_a_function_names_function_and_hook_point(runner, function, text):
    model = runner("base")
    with pytest.raises(HookFunctionError, match=r"at 'blocks.1.hook_mlp_out'") as refused:
        model.run(IDS, fwd_hooks=[("blocks.1.hook_mlp_out", function)])
    assert text in str(refused.value)
    if function is fails:
        assert isinstance(refused.value.__cause__, ZeroDivisionError)


def by_keyword(activation, *, hook):
    return activation * 2 if hook.name == "hook_embed" else None


def with_more(activation, factor, hook):
    return activation * factor


@pytest.mark.parametrize(
    "function",
    [
        by_keyword, partial(with_more, factor=2), lambda a, any_name: a * 2, lambda *all_of_it: all_of_it[0] * 2,
        lambda a, **named: a * 2, lambda a, h, **more: a * 2, lambda a, hook=None, flag=True: a * 2 if flag else None,
    ],
)  # fmt: skip
def test_a_function_gets_the_hook_by_its_name_or_else_second(runner, function):
    model = runner("base")
    expected = model.run(IDS, interventions=[Intervention.scale("hook_embed", 2.0)]).logits
    assert np.array_equal(model.run(IDS, fwd_hooks=[("hook_embed", function)]).logits, expected)


def test_what_is_no_hook_is_refused(runner):
    model = runner("base")
    with pytest.raises(HookPointError, match=r"Unknown hook point 'hook_z'. Did you mean 'blocks.0.attn.hook_z'"):
        model.run(IDS, fwd_hooks=[("hook_z", look)])
    with pytest.raises(InputError, match=r"Entry 0 of fwd_hooks must be a pair of a hook point .* not 'hook_embed'"):
        model.run(IDS, fwd_hooks=["hook_embed"])
    with pytest.raises(HookPointError, match=r"'blocks.1.hook_mlp_out' is never reached"):
        model.run(IDS, fwd_hooks=[("blocks.1.hook_mlp_out", look)], stop_at_layer=0)
    with pytest.raises(InputError, match="With the functions, some logits are NaN or infinite"):
        model.run(IDS, fwd_hooks=[("hook_embed", lambda a, hook: np.full_like(a, np.nan))])
