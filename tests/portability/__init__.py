"""Runs bundles in every other runtime, each in an environment of its own: `make portability`.

`runtimes` says which runtimes there are, with packages and versions; `scripts/` has one file for each, which runs in
the runtime's own environment and imports nothing of onnxlens; `bundles` makes the bundles and writes, once, what
onnxlens's own runner computes with them; `examples` runs the examples of the documentation; `table` writes what was
found into docs/runtimes.md.
"""
