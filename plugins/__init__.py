"""What turns logits and activations into something: so far the samplers, in `onnxlens.plugins.samplers`."""
