"""The commands, one a module; each module's `command` is loaded by `onnxlens._cli` when it is called."""

__all__ = ["NAMES"]

# In the order in which they are listed. Plugins add others, and cannot take these.
NAMES = (
    "predict", "generate", "search", "view", "explore", "hooks", "trace", "analyze", "export", "inspect", "prepare",
    "models", "plugins",
)  # fmt: skip
