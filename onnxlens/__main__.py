"""The command line: `python -m onnxlens`, and the script `onnxlens`.

Interrupts are watched before anything else is imported.
"""

from onnxlens import _interrupts as interrupts

__all__ = ["main"]


def main() -> None:
    """Runs the command line and ends the process: 0 when all went well, 1 on an error, 2 on wrong usage."""
    try:
        interrupts.watch()
        from onnxlens._cli import main as run

        run()
    except (KeyboardInterrupt, ImportError):
        if not interrupts.came():
            raise
        interrupts.end()
        import os
        import sys

        print("Interrupted.", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    main()
