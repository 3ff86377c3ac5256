"""The graph for the browser reads what the runner reads, and its inputs change hook points as interventions do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from yardstick import close

from onnxlens.runtime import Intervention
from onnxlens.runtime._graphs.editable import changeable, editable_graph, final_state, lens_graph
from onnxlens.runtime._graphs.names import cache_inputs, edit_inputs

IDS = np.array([[3, 1, 4, 1, 5, 9]])


class Portable:
    """The portable graph of a model, and the two that are made from it, in ONNX Runtime."""

    def __init__(self, runner, folder):
        self.runner, self.model = runner, runner.bundle.description
        source = runner.bundle.path / "onnx"
        (folder / "model.onnx_data").write_bytes((source / "model.onnx_data").read_bytes())
        portable = onnx.load(str(source / "model_hooks.onnx"), load_external_data=False)
        graphs = {"hooks": portable, "explorer": editable_graph(portable, self.model)}
        self.sessions = {}
        for name, graph in {**graphs, "lens": lens_graph(portable, self.model)}.items():
            onnx.save(graph, str(folder / f"{name}.onnx"))
            onnx.checker.check_model(str(folder / f"{name}.onnx"))
            self.sessions[name] = onnxruntime.InferenceSession(
                folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
            )

    def run(self, name, feeds):
        session = self.sessions[name]
        inputs = {one.name for one in session.get_inputs()}
        outputs = [one.name for one in session.get_outputs()]
        return dict(zip(outputs, session.run(None, {key: feeds[key] for key in inputs}), strict=True))

    def feeds(self, edits=None):
        """Inputs for `IDS`; `edits` are factor and value of a hook point, with a mask of where."""
        cfg, count = self.model.cfg, IDS.shape[1]
        feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "position_ids": np.arange(count)[np.newaxis]}
        empty = np.zeros((1, cfg.key_value_heads, 0, cfg.d_head), np.float32)
        feeds |= dict.fromkeys(cache_inputs(cfg), empty)
        for index, name in enumerate(changeable(self.model)):
            ones = [1] * len(self.model.points[name].axes)
            where, factor, value = (edits or {}).get(name, (False, 1, 0))
            for key, array in zip(edit_inputs(index, "affine"), (where, value, factor), strict=True):
                array = np.asarray(array, bool if key.endswith("where") else np.float32)
                feeds[key] = array if array.ndim else array.reshape(ones)
        return feeds


@pytest.fixture(scope="module", params=["base", "llama", "base-float16", "untied"])
def portable(request, runner, tmp_path_factory):
    return Portable(runner(request.param), tmp_path_factory.mktemp("editable"))


def test_neutral_inputs_change_no_bit(portable):
    expected, found = portable.run("hooks", portable.feeds()), portable.run("explorer", portable.feeds())
    before = [name for name in portable.model.points if not name.startswith("ln_final") and name in expected]
    assert set(before) <= set(found)
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name
    final = final_state(portable.model)
    rest = portable.run("lens", {final: found[final]})
    assert {"logits", "ln_final.hook_scale", "ln_final.hook_normalized"} == set(rest)
    for name, value in rest.items():
        assert np.array_equal(value, expected[name]), name


def test_each_input_changes_its_hook_point_as_an_intervention_does(portable):
    model, final = portable.model, final_state(portable.model)
    for name in changeable(model):
        shape = model.points[name].shape(model.cfg, 1, IDS.shape[1])
        where = np.zeros(shape, bool)
        where[..., -1:, :] = True
        positions = slice(None) if name.endswith("hook_z") else -1
        place = {"heads": model.cfg.n_heads - 1} if name.endswith("hook_z") else {"positions": positions}
        change = Intervention.scale(name, 0.5, **place)
        expected = portable.runner.run(IDS, names_filter=final, interventions=[change]).activations[final]
        found = portable.run("explorer", portable.feeds({name: (where, 0.5, 0)}))
        close(found[final], expected, name=name)
