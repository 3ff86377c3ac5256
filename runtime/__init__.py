"""From a bundle on disk to logits and activations, with numpy and ONNX Runtime only.

Nothing is imported here, so that `import onnxlens` stays light: `runner` has `Runner`, `bundle` has `Bundle`, `hooks`
names what can be read, `activations` holds what was read, `generation` continues a text on the KV cache, `tokenizer`
turns text into ids and back, and `errors` has every error that onnxlens raises.
"""
