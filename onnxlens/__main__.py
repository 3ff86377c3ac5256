"""`python -m onnxlens` is `onnxlens`."""

from onnxlens.cli import main

main()
