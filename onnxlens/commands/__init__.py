"""The commands, one a module; each module's `command` is loaded by `onnxlens.cli` when it is called."""
