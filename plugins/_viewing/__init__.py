"""The parts of visualizers: the base class, the run of the model, and shared code."""
