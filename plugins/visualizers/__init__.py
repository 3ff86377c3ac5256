"""The built-in visualizers, one a module; `onnxlens.plugins` has what a visualizer is made of."""
