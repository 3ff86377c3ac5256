"""What shows activations: visualizers, each from the hook points that it names to a rendering.

Nothing is imported here: `base` says what a visualizer is, `rendering` what it returns, `reading` runs the model for
one, and each built-in visualizer has a module of its name.
"""
