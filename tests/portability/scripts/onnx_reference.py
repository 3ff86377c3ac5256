"""ONNX's own reference evaluator, which is written in NumPy."""

from __future__ import annotations

from cases import cases, checking, close, text_feed
from onnx.reference import ReferenceEvaluator

for case in cases():
    with checking(case, "hook points"):
        model = ReferenceEvaluator(str(case.bundle / "onnx" / "model_hooks.onnx"))
        found = dict(zip(model.output_names, model.run(None, text_feed(case)), strict=True))
        points = {name: value for name, value in case.values.items() if name in found}
        assert len(points) == len(case.values) - 3 - sum(name.startswith("grad.") for name in case.values)
        for point, value in points.items():
            close(found[point], value, point)
