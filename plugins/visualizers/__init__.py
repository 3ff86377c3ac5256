"""The built-in visualizers, one in each module; `onnxlens.plugins` has the parts of which they are made."""
