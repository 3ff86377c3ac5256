"""What Runner says of input that it cannot use, by its text."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from yardstick import close

from onnxlens.runtime._running import providers
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import BundleError, ContextLengthError, InputError, ProviderError


def refused(runner, ids, mask=None, **options) -> str:
    with pytest.raises(InputError) as caught:
        runner("base").run(ids, mask, **options)
    return str(caught.value)


@pytest.mark.parametrize(("ids", "first"), [([300], 300), ([5, -1, 400], -1), ([[1, 2], [3, 50257]], 50257)])
def test_an_id_out_of_range_is_named_with_the_range(runner, ids, first):
    assert refused(runner, ids) == f"Token id {first} is out of range: this model's ids are 0 to 299."


def test_the_last_id_is_in_range(runner):
    assert runner("base").run([0, 299]).logits.shape == (1, 2, 300)


@pytest.mark.parametrize("ids", [[[[1]]], [], [[]], np.zeros((2, 0), np.int64)])
def test_ids_of_another_shape(runner, ids):
    shape = list(np.atleast_2d(ids).shape if np.ndim(ids) == 1 else np.shape(ids))
    expected = f"input_ids must be [batch, positions] with at least one token; their shape is {shape}."
    assert refused(runner, ids) == expected


@pytest.mark.parametrize(
    ("ids", "kind"),
    [([1.0, 2.0], "float64"), ([True], "bool"), (["a"], "<U1"), ([None], "object"), ([2**70], "object")],
)
def test_ids_of_another_type(runner, ids, kind):
    assert refused(runner, ids) == f"input_ids must be whole numbers, not {kind}."


def test_rows_of_different_lengths(runner):
    expected = "The rows of input_ids have different lengths; pad shorter ones on the left."
    assert refused(runner, [[1], [2, 3]]) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64, ">i8"])
def test_ids_of_any_integer_type_and_layout_are_the_same(runner, dtype):
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    expected = runner("base").run(ids).logits
    np.testing.assert_array_equal(runner("base").run(np.asfortranarray(ids.astype(dtype))).logits, expected)
    np.testing.assert_array_equal(runner("base").run(ids.astype(dtype).tolist()).logits, expected)


def test_a_mask_of_another_shape(runner):
    expected = "attention_mask has shape [1, 2], expected that of input_ids: [1, 3]."
    assert refused(runner, [1, 2, 3], [[1, 1]]) == expected


def test_a_mask_whose_rows_differ(runner):
    expected = "The rows of attention_mask have different lengths; pad shorter ones on the left."
    assert refused(runner, [[1, 2], [3, 4]], [[1], [1, 1]]) == expected


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_a_mask_of_other_values(runner, value):
    assert refused(runner, [1, 2], [[1, value]]) == "attention_mask must hold 0 and 1 only."


def test_a_mask_may_be_of_booleans_or_floats(runner):
    expected = runner("base").run([[1, 2]], [[0, 1]]).logits
    for dtype in (bool, float, np.int8):
        found = runner("base").run([[1, 2]], np.array([[0, 1]], dtype)).logits
        np.testing.assert_array_equal(found, expected)


def test_last_logits_of_a_row_that_ends_with_padding(runner):
    expected = "Row 1 ends with padding, so it has no logits at the last position; pad on the left."
    assert refused(runner, [[1, 2], [3, 4]], [[1, 1], [1, 0]], logits="last") == expected


def test_another_word_for_logits(runner):
    assert refused(runner, [1], logits="first") == "logits must be 'all', 'last' or 'none', not 'first'."


def test_a_cache_of_another_batch_size(runner):
    cache = runner("base").run([[1], [2]]).kv_cache
    assert refused(runner, [[1], [2], [3]], kv_cache=cache) == "The cache has 2 rows and input_ids has 3."


@pytest.mark.parametrize("name", ["scaled", "untied"])
def test_a_cache_of_another_model(runner, name):
    other = runner(name).run([1, 2]).kv_cache
    with pytest.raises(InputError, match="The cache is not one of this model"):
        runner("base").run([3], kv_cache=other)


@pytest.mark.parametrize("sessions", [0, -1, 1.5, True])
def test_at_least_one_session_is_kept(bundle, sessions):
    with pytest.raises(InputError, match="max_sessions must be a whole number of at least 1"):
        Runner(bundle("base"), max_sessions=sessions)


def test_a_cache_has_no_such_layer(runner):
    cache = runner("base").run([1]).kv_cache
    for layer in (2, -1):
        with pytest.raises(InputError, match=rf"^The cache has no layer {layer}; it has layers 0 to 1\.$"):
            cache.numpy(layer)


@pytest.mark.parametrize("past", [0, 1, 48])
def test_too_long_a_text_states_both_numbers(runner, past):
    model = runner("base")
    cache = model.run([1] * past).kv_cache if past else None
    with pytest.raises(ContextLengthError) as caught:
        model.run([1] * (49 - past), kv_cache=cache)
    assert str(caught.value) == "The text is 49 tokens long, and this model has 48 positions; shorten it."


def test_padding_takes_no_positions(runner):
    model = runner("base")
    ids = np.ones((1, 60), np.int64)
    mask = np.array([[0] * 12 + [1] * 48])
    close(model.run(ids, mask).logits[:, 12:], model.run(ids[:, 12:]).logits)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_positive_number(bundle, threads):
    with pytest.raises(InputError) as caught:
        Runner(bundle("base"), threads=threads)
    assert str(caught.value) == f"threads must be a whole number of at least 1, not {threads!r}."


def test_more_threads_than_any_machine_has_are_refused(bundle):
    with pytest.raises(InputError, match=r"threads must be at most \d+, not 99999999: .*this machine has \d+ proc"):
        Runner(bundle("base"), threads=99_999_999)


def test_the_number_of_threads_reaches_onnx_runtime(bundle):
    program = Runner(bundle("base"), provider="cpu", threads=2)._requests.open
    from onnxlens.runtime._graphs.request import PLAIN

    (part,) = program(PLAIN)._segments
    assert part.session.get().get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("name", ["gpu", "CPU", "", None, "CPUExecutionProvider"])
def test_an_unknown_provider_lists_the_known_ones(bundle, name):
    with pytest.raises(ProviderError) as caught:
        Runner(bundle("base"), provider=name)
    assert str(caught.value) == f"Unknown provider {name!r}; expected one of auto, cpu, cuda."


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def test_cuda_without_cuda_names_the_install_line(bundle, cpu_only):
    with pytest.raises(ProviderError) as caught:
        Runner(bundle("base"), provider="cuda")
    text = str(caught.value)
    assert text.startswith(
        "Provider 'cuda' is not available: the installed onnxruntime was built for CPUExecutionProvider."
    )
    assert "pip install 'onnxlens[cuda]'" in text


def test_auto_without_cuda_takes_the_cpu_and_says_so(bundle, cpu_only, caplog):
    with caplog.at_level("INFO", logger="onnxlens"):
        model = Runner(bundle("base"), provider="auto", threads=1)
    assert model.provider.name == "cpu"
    assert "running base on cpu" in caplog.text


@pytest.fixture(params=["left out without a word", "an exception"])
def cuda_that_does_not_start(request, monkeypatch):
    """An ONNX Runtime that was built with CUDA, on a machine whose driver is missing."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = onnxruntime.InferenceSession

    def session(source, options, providers, **rest):
        assert rest == {"enable_fallback": False}
        if providers[0] == "CUDAExecutionProvider" and request.param == "an exception":
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        return real(source, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(providers.onnxruntime, "InferenceSession", session)


def test_cuda_that_does_not_start_is_an_error_never_the_cpu(bundle, cuda_that_does_not_start, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path))
    with pytest.raises(ProviderError) as caught:
        Runner(bundle("base"), provider="cuda")
    text = str(caught.value)
    assert text.startswith("Provider 'cuda' did not start (")
    assert "CUDA driver version is insufficient" in text or "ONNX Runtime left it out" in text
    assert "Use 'cpu'" in text
    assert "pip install 'onnxlens[cuda]'" in text
    assert list(tmp_path.iterdir()) == []


def test_auto_goes_on_with_the_cpu_and_warns(bundle, cuda_that_does_not_start, caplog):
    model = Runner(bundle("base"), provider="auto", threads=1)
    assert model.provider.name == "cpu"
    assert np.isfinite(model.run([1]).logits).all()
    assert "Provider 'cuda' did not start" in caplog.text
    assert "Running on the CPU." in caplog.text


def test_a_path_opens_like_a_bundle_and_a_wrong_one_is_an_error(bundle, tmp_path):
    assert Runner(str(bundle("base")), provider="cpu", threads=1).bundle.name == "base"
    with pytest.raises(BundleError, match="is not a bundle"):
        Runner(tmp_path)
