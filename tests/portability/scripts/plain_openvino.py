"""OpenVINO on the CPU, computing in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from cases import Case, Run, cases, checking, close, decode, gradient_feed, run_cached, text_feed

CORE = openvino.Core()


def opened(path: Path) -> Run:
    """A graph, as a function of its inputs."""
    # OpenVINO would compute in bfloat16 on processors that can.
    model = CORE.compile_model(CORE.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = model(feed)
        return {output.get_any_name(): np.array(found[output]) for output in model.outputs}

    return run


def check(case: Case) -> None:
    """All three graphs."""
    with checking(case, "logits"):
        run = opened(case.bundle / "onnx" / "model.onnx")
        close(run(text_feed(case))["logits"], case.values["logits"], "logits")
        close(run_cached(case, run), case.values["logits"][:, -2:], "logits after a cache")
    with checking(case, "tokens"):
        assert decode(case, run) == case.greedy, "other tokens"
    ours = {name for name in case.values if not name.startswith("grad.")}
    for check, name, feed, points in (
        ("hook points", "model_hooks.onnx", text_feed(case), ours),
        ("gradients", "model_gradients.onnx", gradient_feed(case) if case.has_gradients else {}, case.values.keys()),
    ):
        if feed:
            with checking(case, check):
                found = opened(case.bundle / "onnx" / name)(feed)
                for point in points - feed.keys():
                    close(found[point], case.values[point], point)


for each in cases():
    check(each)
