"""ONNX Runtime from Python, on a machine without onnxlens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from cases import Case, Run, cases, checking, close, decode, gradient_feed, run_cached, text_feed


def opened(path: Path) -> Run:
    """A graph, as a function of its inputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


def check(case: Case) -> None:
    """All three graphs."""
    with checking(case, "logits"):
        run = opened(case.bundle / "onnx" / "model.onnx")
        close(run(text_feed(case))["logits"], case.values["logits"], "logits")
        close(run_cached(case, run), case.values["logits"][:, -2:], "logits after a cache")
    with checking(case, "tokens"):
        assert decode(case, run) == case.greedy, "other tokens"
    for check, name, feed in (
        ("hook points", "model_hooks.onnx", text_feed(case)),
        ("gradients", "model_gradients.onnx", gradient_feed(case) if case.has_gradients else {}),
    ):
        if feed:
            with checking(case, check):
                found = opened(case.bundle / "onnx" / name)(feed)
                expected = {
                    n: v for n, v in case.values.items() if n not in feed and (check == "gradients" or "grad." not in n)
                }
                assert expected.keys() <= found.keys()
                for point, value in expected.items():
                    close(found[point], value, point)


for each in cases():
    check(each)
