"""The gradients against autograd in float64, with autograd in float32 as the yardstick, and central differences."""

from __future__ import annotations

import json

import numpy as np
import onnx
import oracle
import pytest
from checkpoints import MODELS
from eager import Eager, autograd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yardstick import Errors, close

from onnxlens import Lens
from onnxlens._catalog import SHIPPED, places
from onnxlens.metrics import Metric
from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH
from onnxlens.runtime._graphs.backward import GradientRequest, backward_graph, forward_graph
from onnxlens.runtime._graphs.names import COTANGENT
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import BundleError, ContextLengthError, HookPointError, InputError

NAMES = [*(f"{name}-gradients" for name in MODELS), "base-float16-gradients"]
BASE = "base-gradients"


def batch(runner, lengths, seed=0):
    """Ids and mask of random rows, shorter ones padded on the left, and a cotangent that is 0 at padding."""
    rng = np.random.default_rng(seed)
    total = max(lengths)
    mask = (np.arange(total) >= total - np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, rng.integers(0, runner.config.d_vocab, mask.shape), 0)
    cotangent = rng.normal(size=(*mask.shape, runner.config.d_vocab)) * mask[..., None]
    return ids, mask, cotangent.astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_is_as_exact_as_in_pytorch(runner, name):
    model = runner(name)
    errors, eager = Errors(), Eager(model)
    for seed, lengths in enumerate([(1,), (2, 2), (7,), (3, 12, 8), (model.config.n_ctx,)]):
        ids, mask, cotangent = batch(model, lengths, seed)
        output = model.gradients.run(ids, mask, cotangent=lambda logits, given=cotangent: given)
        exact = autograd(model, ids, mask, cotangent).gradients
        references = list(eager.gradients(ids, mask, cotangent))
        assert [*output.gradients] == [*exact] == [*model.gradients.hook_names]
        for point, true in exact.items():
            assert output.gradients[point].dtype == np.float32
            errors.add(point, output.gradients[point], true, [reference[point] for reference in references])
    assert not errors.too_large()


def test_a_gradient_that_is_off_by_a_hundred_thousandth_would_be_noticed(runner):
    model = runner(BASE)
    ids, mask, cotangent = batch(model, (3, 12, 8))
    errors, point = Errors(), "blocks.0.attn.hook_q"
    found = model.gradients.run(ids, mask, cotangent=lambda logits: cotangent).gradients[point]
    exact = autograd(model, ids, mask, cotangent).gradients[point]
    references = [reference[point] for reference in Eager(model).gradients(ids, mask, cotangent)]
    errors.add("as it is", found, exact, references)
    errors.add("skewed", found * np.float32(1 + 1e-5), exact, references)
    assert [*errors.too_large()] == ["skewed"]


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_values_are_those_of_the_graph_with_hook_points(runner, name):
    model = runner(name)
    ids, mask, cotangent = batch(model, (3, 12, 8))
    output = model.gradients.run(ids, mask, cotangent=lambda logits: cotangent, activations="*")
    expected = model.run(ids, mask, names_filter=[*output.activations])
    assert [*output.activations] == [*model.gradients.hook_names]
    close(output.logits, expected.logits)
    for point, value in expected.activations.items():
        close(output.activations[point], value, name=point)


# The bias that is added to a value at every position, and which third of it for q, k and v.
BIASES = {
    "hook_attn_out": ("attn.c_proj.bias", 0),
    "hook_mlp_out": ("mlp.c_proj.bias", 0),
    "mlp.hook_pre": ("mlp.c_fc.bias", 0),
    "attn.hook_q": ("attn.c_attn.bias", 0),
    "attn.hook_k": ("attn.c_attn.bias", 1),
    "attn.hook_v": ("attn.c_attn.bias", 2),
}


@pytest.mark.parametrize("name", NAMES[:4])
def test_gradients_equal_central_differences_of_the_oracle(runner, name):
    """A bias moves a value at all positions alike, so the gradients there add up to the bias's derivative."""
    model = runner(name)
    config = json.loads((model.bundle.path / "config.json").read_text())
    weights = {key: value.astype(np.float64) for key, value in model.bundle.weights.items()}
    ids, _, cotangent = batch(model, (9,))
    found = model.gradients.run(ids, cotangent=lambda logits: cotangent).gradients
    rng = np.random.default_rng(1)
    for layer in range(model.config.n_layers):
        for point, (parameter, part) in BIASES.items():
            gradient = found[f"blocks.{layer}.{point}"]
            summed = gradient.reshape(ids.size, -1).sum(axis=0, dtype=np.float64)
            step = np.zeros_like(weights[f"h.{layer}.{parameter}"])
            direction = step[part * summed.size : (part + 1) * summed.size]
            direction[:] = rng.normal(size=summed.size)
            measured = difference(config, weights, {f"h.{layer}.{parameter}": step}, ids, cotangent)
            # ReLU has no derivative at 0; a step of 1e-6 across it is far below the tolerance.
            scale = np.abs(direction).max() * along(gradient)
            close(summed @ direction, measured, scale=scale, name=f"layer {layer}, {point}")


@pytest.mark.parametrize("name", NAMES[:4])
def test_gradients_at_the_embeddings_are_central_differences(runner, name):
    model = runner(name)
    config = json.loads((model.bundle.path / "config.json").read_text())
    weights = {key: value.astype(np.float64) for key, value in model.bundle.weights.items()}
    # The embedding alone is to move, and not the unembedding that may be tied to it.
    weights.setdefault("lm_head.weight", weights["wte.weight"])
    config["tie_word_embeddings"] = False
    ids = np.array([[7, 3, 11, 250, 40]])  # all different, so that each row of the table belongs to one position
    cotangent = np.random.default_rng(0).normal(size=(*ids.shape, 300)).astype(np.float32)
    found = model.gradients.run(ids, cotangent=lambda logits: cotangent, names_filter="hook_*embed").gradients
    for point, parameter, rows in (("hook_embed", "wte.weight", ids[0]), ("hook_pos_embed", "wpe.weight", range(5))):
        step = np.zeros_like(weights[parameter])
        direction = np.random.default_rng(1).normal(size=found[point][0].shape)
        step[list(rows)] = direction
        measured = difference(config, weights, {parameter: step}, ids, cotangent)
        close((found[point][0] * direction).sum(), measured, scale=along(found[point]), name=point)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # -inf minus -inf, masked out after
@pytest.mark.parametrize("name", [*NAMES[:4], SHIPPED])
def test_every_gradient_equals_a_central_difference_of_the_oracle_with_an_added_step(runner, name):
    """At each hook point of each layer a random step is added in the oracle, in float64, forwards and backwards."""
    lens = Lens(Runner(places()["shipped"] / SHIPPED, provider="cpu", threads=1) if name == SHIPPED else runner(name))
    model = lens.runner
    config = json.loads((model.bundle.path / "config.json").read_text())
    weights = {key: value.astype(np.float64) for key, value in model.bundle.weights.items()}
    rng = np.random.default_rng(2)
    ids = rng.integers(0, model.config.d_vocab, (1, 9))
    cotangent = rng.normal(size=(*ids.shape, model.config.d_vocab)).astype(np.float32)
    metric = Metric(lambda logits: (logits * cotangent).sum((1, 2)), lambda logits: cotangent)
    found = lens.grad(ids, metric=metric, names_filter="*").gradients
    assert {*found} == {point for point in model.hook_names if not point.endswith("hook_result")}
    for point, gradient in found.items():
        direction = rng.normal(size=gradient.shape)

        def at(size, point=point, direction=direction):
            def change(name, value):
                return value + size * direction if name == point else value

            return (oracle.run(config, weights, ids, change=change)["logits"] * cotangent).sum()

        measured = (at(1e-6) - at(-1e-6)) / 2e-6
        close((gradient * direction).sum(), measured, scale=along(gradient), name=point)


def along(gradient):
    """The size of what rounding acts on in a product with a random direction.

    The rounding of float32 is relative to the largest gradient, and adds up over the values like a random walk.
    """
    return np.abs(gradient).max() * np.sqrt(gradient.size)


def difference(config, weights, steps, ids, cotangent, size=1e-6):
    """The derivative of sum(cotangent * logits) along steps of the weights, by central differences in float64."""

    def at(factor):
        moved = {**weights, **{name: weights[name] + factor * step for name, step in steps.items()}}
        return (oracle.run(config, moved, ids)["logits"] * cotangent).sum()

    return (at(size) - at(-size)) / (2 * size)


def test_rows_do_not_mix_and_padding_has_no_gradient(runner):
    model = runner(BASE)
    ids, mask, cotangent = batch(model, (3, 12, 8))
    together = model.gradients.run(ids, mask, cotangent=lambda logits: cotangent)
    for row, length in enumerate((3, 12, 8)):
        alone = model.gradients.run(ids[row, -length:], cotangent=lambda logits: cotangent[row : row + 1, -length:])  # noqa: B023
        for point in ("hook_embed", "blocks.1.hook_resid_mid", "blocks.0.attn.hook_z"):
            close(together.gradients[point][row, -length:], alone.gradients[point][0], name=point)
            assert not together.gradients[point][row, :-length].any()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_gradient_does_not_depend_on_what_else_is_asked_for(runner, data):
    model = runner(BASE)
    names = list(model.gradients.hook_names)
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    read = data.draw(st.none() | st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    ids, mask, cotangent = batch(model, (4, 6), seed=3)
    everything = model.gradients.run(ids, mask, cotangent=lambda logits: cotangent, activations="*")
    some = model.gradients.run(ids, mask, cotangent=lambda logits: cotangent, names_filter=wanted, activations=read)
    assert [*some.gradients] == [name for name in names if name in wanted]
    assert [*some.activations] == [name for name in names if name in (read or [])]
    np.testing.assert_array_equal(some.logits, everything.logits)
    for name in some.gradients:
        np.testing.assert_array_equal(some.gradients[name], everything.gradients[name], err_msg=name)
    for name in some.activations:
        np.testing.assert_array_equal(some.activations[name], everything.activations[name], err_msg=name)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(-4, 4).map(np.float32))
def test_gradients_are_linear_in_the_cotangent(runner, seed, factor):
    model = runner(BASE)
    ids, _, first = batch(model, (6,), seed=1)
    second = np.random.default_rng(seed).normal(size=first.shape).astype(np.float32)
    parts, whole = (
        [
            model.gradients.run(ids, cotangent=lambda logits, c=c: c, names_filter="hook_embed").gradients["hook_embed"]
            for c in cotangents
        ]
        for cotangents in ((first, second), (first + factor * second,))
    )
    close(whole[0], parts[0] + factor * parts[1], scale=[parts[0], factor * parts[1]])


def test_only_what_is_needed_is_computed(runner):
    model = runner(BASE)
    prepared = model.gradients._prepared.graph

    def halves(gradients, reads=()):
        request = GradientRequest(gradients=gradients, reads=reads)
        forward = forward_graph(prepared, request)
        types = {value.name: 1 for value in forward.graph.output}
        return forward, backward_graph(prepared, request, types)

    _, all_the_way = halves(("hook_embed",))
    _, short = halves(("blocks.1.hook_resid_post",))
    assert not any("h.0." in name for node in short.graph.node for name in node.input)
    assert len(short.graph.node) < len(all_the_way.graph.node) / 4
    forward, _ = halves((), ("hook_embed",))
    assert {value.name for value in forward.graph.output} == {"logits", "hook_embed"}
    assert COTANGENT not in {name for node in forward.graph.node for name in node.input}


def test_every_node_of_a_compiled_graph_is_needed(runner):
    model = runner(BASE)
    request = GradientRequest(gradients=("blocks.0.mlp.hook_post",), reads=("blocks.1.attn.hook_z",))
    forward = forward_graph(model.gradients._prepared.graph, request)
    backward = backward_graph(model.gradients._prepared.graph, request, {})
    for graph in (forward.graph, backward.graph):
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        assert all(used.intersection(node.output) for node in graph.node)
        assert {tensor.name for tensor in graph.initializer} <= used


def test_embeddings_in_place_of_those_of_the_tokens(runner):
    model = runner(BASE)
    ids, mask, cotangent = batch(model, (5, 9))
    arguments = {"cotangent": lambda logits: cotangent, "activations": "*"}
    expected = model.gradients.run(ids, mask, **arguments)
    other = np.where(mask == 1, (ids + 1) % 300, 0)
    own = expected.activations["hook_embed"]
    fed = model.gradients.run(other, mask, embeddings=own, **arguments)
    np.testing.assert_array_equal(fed.logits, expected.logits)
    for name in expected.gradients:
        np.testing.assert_array_equal(fed.gradients[name], expected.gradients[name], err_msg=name)
        np.testing.assert_array_equal(fed.activations[name], expected.activations[name], err_msg=name)
    step = np.linspace(
        -1, 1, own.shape[-1], dtype=np.float32
    )  # the same for all coordinates, a layer norm would remove
    moved = model.gradients.run(ids, mask, embeddings=own + step, **arguments)
    assert np.abs(moved.logits - expected.logits).max() > 0.1
    change = moved.activations["blocks.0.hook_resid_pre"] - expected.activations["blocks.0.hook_resid_pre"]
    close(change, np.broadcast_to(step, change.shape), scale=moved.activations["blocks.0.hook_resid_pre"])


def test_without_gradients_the_cotangent_is_not_called(runner):
    model = runner(BASE)
    output = model.gradients.run(
        [1, 2], cotangent=lambda logits: pytest.fail("called"), names_filter=None, activations="hook_embed"
    )
    assert output.gradients == {}
    np.testing.assert_array_equal(output.activations["hook_embed"][0], model.bundle.weights["wte.weight"][[1, 2]])


def test_sessions_are_kept_and_the_oldest_goes(bundle):
    gradients = Runner(bundle(BASE), provider="cpu", threads=1, max_sessions=2).gradients
    for name in ("hook_embed", "hook_pos_embed", "hook_embed", "blocks.0.hook_resid_mid", "hook_pos_embed"):
        gradients.run([1, 2, 3], cotangent=np.ones_like, names_filter=name)
    found = gradients._compiled.cache_info()
    assert (found.hits, found.misses, found.currsize) == (1, 4, 2)


def test_what_was_prepared_is_used_again_and_keeps_its_weights_in_one_file(bundle):
    first = Runner(bundle(BASE), provider="cpu", threads=1).gradients._prepared
    second = Runner(bundle(BASE), provider="cpu", threads=1).gradients._prepared
    assert first.folder == second.folder != Runner(bundle(BASE), provider="cpu")._requests._opener._prepared.folder
    graph = onnx.load(first.folder / "prepared.onnx", load_external_data=False)
    large = [tensor for tensor in graph.graph.initializer if np.prod(tensor.dims) >= 1024]
    assert large
    assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in large)


def test_a_bundle_without_the_graph_says_how_to_get_one(runner):
    model = runner("base")
    with pytest.raises(BundleError) as caught:
        _ = model.gradients
    assert str(caught.value) == (
        "The bundle base has no graph of its gradients (onnx/model_gradients.onnx). Export the model again with it: "
        f"'onnxlens export SOURCE {model.bundle.path} --gradients --force'."
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cotangent": lambda logits: logits[0]}, r"The cotangent must have shape \[1, 3, 300\], not \[3, 300\]\."),
        (
            {"cotangent": lambda logits: np.ones(logits.shape, int)},
            "The cotangent must be floating-point numbers, not int64.",
        ),
        (
            {"cotangent": lambda logits: np.where(logits == logits.max(), np.nan, logits)},
            "The cotangent must be finite, and 1 of its numbers are not.",
        ),
        (
            {"cotangent": lambda logits: logits.astype(np.float64) + 1e39},
            "The cotangent must be finite, and 900 of its numbers are not.",
        ),
        ({"embeddings": np.zeros((1, 2, 32))}, r"embeddings must have shape \[1, 3, 32\], not \[1, 2, 32\]\."),
    ],
)
def test_arrays_that_do_not_fit(runner, arguments, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        runner(BASE).gradients.run([1, 2, 3], **{"cotangent": np.ones_like, **arguments})


def test_texts_that_cannot_be_run(runner):
    gradients = runner(BASE).gradients
    with pytest.raises(ContextLengthError, match="49 tokens long, and this model has 48 positions"):
        gradients.run(np.ones((1, 49), int), cotangent=np.ones_like)
    with pytest.raises(InputError, match="Token id 300 is out of range"):
        gradients.run([300], cotangent=np.ones_like)
    with pytest.raises(InputError, match="attention_mask must hold 0 and 1 only"):
        gradients.run([1, 2], [[2, 1]], cotangent=np.ones_like)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("blocks.7.hook_z", "Unknown hook point 'blocks.7.hook_z': this model has blocks 0 to 1"),
        ("*hook_result", "'hook_result', which '\\*hook_result' selects"),
    ],
)
def test_hook_points_without_a_gradient(runner, names, text):
    with pytest.raises(HookPointError, match=text):
        runner(BASE).gradients.run([1], cotangent=np.ones_like, names_filter=names)


def test_a_graph_that_does_not_fit_the_configuration(bundle, tmp_path, monkeypatch):
    import shutil

    from onnxlens.runtime._bundle.bundle import sha256_of

    folder = shutil.copytree(bundle(BASE), tmp_path / "altered")
    graph = onnx.load(folder / GRADIENTS_GRAPH, load_external_data=False)
    del graph.graph.output[-1]
    (folder / GRADIENTS_GRAPH).write_bytes(graph.SerializeToString())
    manifest = json.loads((folder / "onnxlens.json").read_text())
    path = folder / GRADIENTS_GRAPH
    manifest["files"][GRADIENTS_GRAPH] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "onnxlens.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"model_gradients\.onnx does not fit the bundle's manifest\.$"):
        _ = Runner(folder, provider="cpu").gradients
