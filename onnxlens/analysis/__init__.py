"""Analyses: plain functions over a `Lens`, with NumPy only, that return arrays with labelled axes.

Nothing is imported here: `attribution` says which positions, heads and neurons a metric of the logits is due to.
"""
