"""Reads a hook point with ONNX Runtime: pip install onnxruntime tokenizers."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

bundle = Path(sys.argv[1])
ids = np.array([Tokenizer.from_file(str(bundle / "tokenizer.json")).encode("Once upon a time").ids])  # [1, 4]

model = json.loads((bundle / "genai_config.json").read_text())["model"]["decoder"]
empty = np.zeros((1, model["num_key_value_heads"], 0, model["head_size"]), np.float32)
feed = {
    "input_ids": ids,
    "attention_mask": np.ones_like(ids),
    "position_ids": np.arange(ids.shape[1])[np.newaxis],
    **{f"past_key_values.{n}.{part}": empty for n in range(model["num_hidden_layers"]) for part in ("key", "value")},
}
session = onnxruntime.InferenceSession(bundle / "onnx" / "model_hooks.onnx")
logits, pattern = session.run(["logits", "blocks.0.attn.hook_pattern"], feed)
print("shape", *pattern.shape)
print("head 0, last token", *pattern[0, 0, -1].round(4))
print("next token", logits[0, -1].argmax())
