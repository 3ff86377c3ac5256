"""The root of the command line: which commands there are, and what happens when one fails."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import NoReturn

import click

__all__ = ["cli", "main"]

# Imported when called, or when the list of commands is printed; each imports heavy packages only inside.
_COMMANDS = ("predict", "generate", "search", "hooks", "trace", "analyze", "export", "inspect", "models")

_INTERRUPTED = 130  # what a shell reports for SIGINT


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"onnxlens.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from onnxlens.runtime.errors import suggestion

            near = suggestion(args[0], _COMMANDS) if args else ""
            raise click.UsageError(f"{error.message}{near}", ctx) from error


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxlens")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Run GPT-2 anywhere with ONNX Runtime, and see everything that happens inside it.

    Try: onnxlens predict "Data visualization empowers users to"
    """


def main() -> NoReturn:
    """Runs the command line and exits: 0 when all went well, 1 on an error, 2 on wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a narrow encoding lacks is no reason to fail
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments[:1]
    try:
        code = cli.main(arguments, prog_name="onnxlens", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0  # click's own exits are returned: `--help` is one
    except click.ClickException as error:
        error.show()
        if "unexpected extra argument" in error.message:
            print("A text with spaces needs quotes; a model is named with -m.", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader left, as in `onnxlens models | head -1`; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as click does where it notices first
    except Exception as error:
        if debug:
            raise
        from onnxlens.runtime.errors import OnnxLensError

        if isinstance(error, OnnxLensError):
            print(f"Error: {_line(error)}", file=sys.stderr)
        elif isinstance(error, OSError) and error.strerror:
            print(f"Error: {_line(OSError(error.strerror))}", file=sys.stderr)
        else:
            hint = "unexpected; 'onnxlens --debug ...' shows where"
            print(f"Error: {type(error).__name__}: {_line(error)} ({hint})", file=sys.stderr)
        return 1


def _line(error: Exception) -> str:
    from onnxlens.commands.options import inert

    return inert(" ".join(str(error).split()))
