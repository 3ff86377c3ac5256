"""Reads a hook point with OpenVINO: pip install openvino."""

import json
import sys
from pathlib import Path

import numpy as np
import openvino

bundle = Path(sys.argv[1])
core = openvino.Core()
graph = core.read_model(bundle / "onnx" / "model_hooks.onnx")
# Without this, OpenVINO computes in bfloat16 on processors that can.
model = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

ids = np.array([[2899, 2759, 258, 728]])  # "Once upon a time" for the model that ships
shape = json.loads((bundle / "genai_config.json").read_text())["model"]["decoder"]
empty = np.zeros((1, shape["num_key_value_heads"], 0, shape["head_size"]), np.float32)
feed = {
    "input_ids": ids,
    "attention_mask": np.ones_like(ids),
    "position_ids": np.arange(ids.shape[1])[np.newaxis],
    **{f"past_key_values.{n}.{part}": empty for n in range(shape["num_hidden_layers"]) for part in ("key", "value")},
}
found = model(feed)
pattern = found["blocks.0.attn.hook_pattern"]
print("shape", *pattern.shape)
print("head 0, last token", *pattern[0, 0, -1].round(4))
print("next token", found["logits"][0, -1].argmax())
