"""CUDA computes what the CPU does: logits, every hook point, and what is generated."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from checkpoints import MODELS
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.analysis import ablate_heads, patch_activations
from onnxlens.metrics import logit, loss
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime._running.runner import Runner

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="needs an NVIDIA GPU, and onnxruntime-gpu in place of onnxruntime",
    ),
]
# Float32 throughout, which sums in another order than the CPU: an H200 was off by 8e-7. TF32 was off by 1.6e-3.
FLOAT32 = 2e-5


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_every_hook_point_equal_those_of_the_cpu(runner, bundle, name):
    cpu, cuda = runner(name), Runner(bundle(name), provider="cuda")
    assert cuda.provider.name == "cuda"
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 300, (3, 30))
    mask = np.ones_like(ids)
    mask[1, :9] = 0
    expected, found = (model.run(ids, mask, names_filter="*") for model in (cpu, cuda))
    close(found.logits[mask == 1], expected.logits[mask == 1], within=FLOAT32)
    for point, value in expected.activations.items():
        rows = [0, 2]  # the ones without padding
        close(found.activations[point][rows], value[rows], within=FLOAT32, name=point)


def test_every_gradient_equals_that_of_the_cpu(runner, bundle):
    cpu, cuda = runner("base-gradients"), Runner(bundle("base-gradients"), provider="cuda")
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 300, (3, 30))
    cotangent = rng.normal(size=(3, 30, 300)).astype(np.float32)
    expected, found = (model.gradients.run(ids, cotangent=lambda logits: cotangent) for model in (cpu, cuda))
    for point, value in expected.gradients.items():
        close(found.gradients[point], value, within=FLOAT32, name=point)


@pytest.mark.parametrize("name", MODELS)
def test_passes_on_a_cache_that_stays_on_the_gpu(runner, bundle, name):
    cuda = Runner(bundle(name), provider="cuda")
    ids = np.random.default_rng(2).integers(0, 300, (2, 12))
    first = cuda.run(ids[:, :7])
    assert {value.device_name() for value in first.kv_cache.values.values()} == {"cuda"}
    second = cuda.run(ids[:, 7:], kv_cache=first.kv_cache)
    close(second.logits, runner(name).run(ids).logits[:, 7:], within=FLOAT32)


def test_greedy_generation_equals_that_of_the_cpu(runner, bundle):
    def greedy(model: Runner) -> list[int]:
        steps = generate_ids(model, [11, 60, 7], lambda logits, ids, step: int(logits.argmax()), max_new_tokens=30)
        return [step.token for step in steps]

    assert greedy(Runner(bundle("base"), provider="cuda")) == greedy(runner("base"))


def test_interventions_and_functions_do_on_the_gpu_what_they_do_on_the_cpu(runner, bundle):
    cuda, ids = Runner(bundle("base"), provider="cuda"), np.random.default_rng(3).integers(0, 300, (2, 9))
    edits = [
        Intervention.zero("blocks.0.attn.hook_z", heads=1, rows=0),
        Intervention.add("blocks.1.hook_resid_pre", 0.5, positions=slice(3, None)),
        Intervention.scale("blocks.1.attn.hook_result", 0.5, heads=2),
    ]
    hooks = [("blocks.*.hook_resid_mid", lambda activation, hook: activation * np.float32(0.9))]
    options = {"names_filter": "*", "interventions": edits, "fwd_hooks": hooks, "pos_slice": [-1, 2]}
    expected, found = (model.run(ids, **options) for model in (runner("base"), cuda))
    close(found.logits, expected.logits, within=FLOAT32)
    for point, value in expected.activations.items():
        close(found.activations[point], value, within=FLOAT32, name=point)
    assert found.applied == expected.applied


def test_a_sweep_measures_on_the_gpu_what_it_does_on_the_cpu(runner, bundle):
    ids = np.random.default_rng(4).integers(0, 300, (2, 9))
    for metric in (logit(7), loss()):  # at the last position, and at all of them
        expected, found = (
            [
                ablate_heads(lens, ids[0], metric).values,
                patch_activations(lens, ids[0], ids[1], metric).values,
                patch_activations(lens, ids[0], ids[1], metric, hook="z").values,
            ]
            for lens in (Lens(runner("base")), Lens(Runner(bundle("base"), provider="cuda")))
        )
        logits = runner("base").run(ids).logits
        for one, other in zip(expected, found, strict=True):
            close(other, one, scale=logits, within=FLOAT32)
