"""Results, models and errors that are pickled: into files, and from process to process."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlens
from onnxlens import analysis
from onnxlens._lens import Lens
from onnxlens.decoding import beam_search
from onnxlens.metrics import logit_difference
from onnxlens.runtime import errors
from onnxlens.runtime._bundle import bundle as bundle_module
from onnxlens.runtime._bundle.shorthand import KeyNotFoundError
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import BundleError, InputError

IDS, OTHERS = [5, 6, 7], [5, 9, 7]
METRIC = logit_difference(5, 6)


@pytest.fixture(scope="module")
def lens(bundle) -> Lens:
    return Lens(Runner(bundle("base-gradients"), provider="cpu", threads=1))


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def assert_equal(one: object, other: object) -> None:
    """Compares values with whatever they consist of."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert np.array_equal(one, other, equal_nan=True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_equal(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif type(one).__module__.startswith("onnxlens") and hasattr(one, "__dict__"):
        assert_equal(vars(one), vars(other))
    elif not callable(one) and type(one).__module__ == "builtins":
        assert one == other


RESULTS = {
    "prediction": lambda lens: lens.predict(IDS, interventions=[Intervention.zero("blocks.0.hook_mlp_out")]),
    "output": lambda lens: lens.run(np.array(IDS)).activations,
    "explanation": lambda lens: lens.explain_sampling(IDS, seed=1),
    "estimate": lambda lens: lens.estimate(IDS),
    "ablation": lambda lens: analysis.ablate_heads(lens, IDS, METRIC),
    "patching": lambda lens: analysis.patch_activations(lens, IDS, OTHERS, METRIC),
    "path patching": lambda lens: analysis.patch_path(lens, IDS, OTHERS, METRIC, sender=(0, 0), receiver="logits"),
    "gradient times input": lambda lens: analysis.gradient_times_input(lens, IDS, METRIC),
    "attribution patching": lambda lens: analysis.attribution_patching(lens, IDS, OTHERS, METRIC),
    "integrated gradients": lambda lens: analysis.integrated_gradients(lens, IDS, METRIC, steps=2),
    "statistics": lambda lens: analysis.activation_statistics(lens, [IDS], "blocks.0.mlp.hook_post", units=[1]),
    "logit lens": lambda lens: analysis.logit_lens(lens, IDS),
    "logit attribution": lambda lens: analysis.attribute_logit(lens, IDS),
    "rollout": lambda lens: analysis.attention_rollout(lens, IDS),
    "head scores": lambda lens: analysis.head_scores(lens, length=5, count=2),
    "surprisal": lambda lens: analysis.surprisal(lens, IDS),
    "beams": lambda lens: beam_search(lens, IDS, num_beams=2, max_new_tokens=2),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_a_result_is_the_same_when_it_is_unpickled(lens, make):
    result = make(lens)
    assert_equal(pickled(result), result)


def test_a_cache_has_its_weights_and_tokenizer_again_without_carrying_them(lens):
    _, cache = lens.run_with_cache(IDS)
    for original in (cache, cache.folded(), cache.folded(fold_value_biases=False)):
        found = pickled(original)
        assert_equal(dict(found.items()), dict(original.items()))
        scores = [one.logit_attrs(one.decompose_resid(), "a") for one in (found, original)]
        assert np.array_equal(*scores)
        assert len(pickle.dumps(original)) < original.nbytes + 10_000
    gradients = lens.grad(IDS, metric=METRIC, activations=True)
    assert_equal(dict(pickled(gradients).gradients.items()), dict(gradients.gradients.items()))


def test_a_cache_can_be_unpickled_where_its_bundle_is_not(bundle, tmp_path, monkeypatch):
    path = Path(shutil.copytree(bundle("base"), tmp_path / "copy"))
    _, cache = Lens(Runner(path, provider="cpu", threads=1)).run_with_cache(IDS)
    data = pickle.dumps(cache)
    path.rename(tmp_path / "away")
    bundle_module.bundle_at.cache_clear()
    for there in (False, True):  # no bundle, and another one in its place
        if there:
            shutil.copytree(bundle("untied"), path)
        found = pickle.loads(data)
        assert_equal(dict(found.items()), dict(cache.items()))
        with pytest.raises(InputError, match="needs the model's weights, which this cache does not have"):
            found.logit_attrs(found.decompose_resid(), 5)
    again = found.with_model(Lens(Runner(tmp_path / "away", provider="cpu", threads=1)))
    assert np.array_equal(*(one.logit_attrs(one.decompose_resid(), 5) for one in (again, cache)))


def test_an_opened_trace_and_a_copy_of_a_cache_keep_what_they_know(lens, tmp_path):
    lens.run_with_cache(IDS, out=tmp_path / "trace")
    trace = onnxlens.open_trace(tmp_path / "trace", model=lens)
    for found in (pickled(trace), copy.copy(trace), copy.deepcopy(trace)):
        assert_equal([np.asarray(value) for value in found.values()], [np.asarray(value) for value in trace.values()])
        assert found.logit_attrs(found.decompose_resid(), 5).shape == (6, 1, 3)


def test_a_generation_is_pickled_when_it_has_ended(lens):
    generation = lens.generate(IDS, max_new_tokens=3, seed=1, explain=True, names_filter="*.hook_resid_post")
    with pytest.raises(InputError, match=r"can be pickled or copied once it has ended; read its \.text first"):
        pickle.dumps(generation)
    _ = generation.text
    found = pickled(generation)
    for name in ("text", "ids", "prompt_ids", "seed", "finish_reason", "applied"):
        assert getattr(found, name) == getattr(generation, name)
    assert_equal(dict(found.cache.items()), dict(generation.cache.items()))
    assert [token.text for token in found] == [token.text for token in generation]
    assert list(found) == []


def test_a_kv_cache_goes_on_in_another_process(lens):
    output = pickled(lens.run(np.array(IDS)))
    expected = lens.run(np.array([8]), kv_cache=lens.run(np.array(IDS)).kv_cache).logits
    assert np.array_equal(lens.run(np.array([8]), kv_cache=output.kv_cache).logits, expected)


@pytest.mark.parametrize("name", ["tokens", "attention", "generation", "logit_lens", "sampling", "flow"])
def test_a_rendering_shows_the_same_when_it_is_unpickled(lens, name):
    options = {"max_new_tokens": 2} if name == "generation" else {}
    rendering = lens.view(name, IDS, **options)
    found = pickled(rendering)
    assert found.formats == rendering.formats
    assert found.json() == rendering.json()


def test_a_model_is_pickled_as_its_path_and_options(lens):
    again = pickled(lens)
    assert len(pickle.dumps(lens)) < 2_000
    assert (again.runner.bundle.path, again.runner.threads) == (lens.runner.bundle.path, 1)
    assert np.array_equal(again.predict(IDS).logits, lens.predict(IDS).logits)
    assert pickled(lens).runner is again.runner  # open once in a process, however many tasks it gets
    again.close()
    assert np.array_equal(pickled(lens).predict(IDS).logits, lens.predict(IDS).logits)
    assert pickled(lens.runner.bundle).model_hash == lens.runner.bundle.model_hash
    assert pickled(lens.tokenizer).encode("ab c") == lens.tokenizer.encode("ab c")


def test_a_model_that_was_replaced_since_is_refused(bundle, tmp_path):
    path = Path(shutil.copytree(bundle("base"), tmp_path / "copy"))
    data = pickle.dumps(Lens(Runner(path, provider="cpu", threads=1)))
    shutil.rmtree(path)
    shutil.copytree(bundle("untied"), path)
    with pytest.raises(BundleError, match="now holds another model than the one that was pickled"):
        pickle.loads(data)


def test_what_would_not_come_along_is_an_error(bundle):
    lens = Lens(Runner(bundle("base"), provider="cpu", threads=1))
    with lens.hooks([("hook_embed", print)]), pytest.raises(InputError, match="while hooks change its runs"):
        pickle.dumps(lens)
    lens.close()
    with pytest.raises(InputError, match="was closed"):
        pickle.dumps(lens)


def test_every_error_reaches_the_process_that_asked():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    for kind in [*kinds, KeyNotFoundError]:
        found = pickled(kind("What 'went' wrong."))
        assert (type(found), str(found)) == (kind, "What 'went' wrong.")


_POOL = """
import multiprocessing, sys
import numpy as np
from onnxlens._lens import Lens
from onnxlens.runtime.errors import InputError
from onnxlens.runtime._running.runner import Runner

if __name__ == "__main__":
    lens = Lens(Runner(sys.argv[1], provider="cpu", threads=2))
    texts = ["a b", "ab", "b", "a"]
    expected = [lens.predict(text).logits for text in texts]
    for method in sys.argv[2:]:
        with multiprocessing.get_context(method).Pool(1) as pool:
            found = pool.map_async(lens.predict, texts, 1).get(100)
            assert all(np.array_equal(one.logits, other) for one, other in zip(found, expected, strict=True)), method
            try:
                pool.apply_async(lens.predict, [""], {"top": 0}).get(100)
            except InputError as error:
                print(method, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_pool_of_processes_predicts_with_spawn_and_fork(bundle, tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(_POOL)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", script, bundle("base"), "fork", "spawn"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["fork", "spawn"]
