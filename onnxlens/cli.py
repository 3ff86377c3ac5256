"""The root of the command line: which commands there are, and what happens when one fails."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import NoReturn

import click

from onnxlens.commands import NAMES

__all__ = ["cli", "main"]

_INTERRUPTED = 130  # what a shell reports for SIGINT


class _Lazy(click.Group):
    """Imports a command when it is called, or when all are listed; each imports heavy packages only inside.

    Plugins' commands are looked for where none of onnxlens's own has the name, so `--help` loads no plugin.

    Attributes:
        is_debugging: whether errors are shown with their traceback.
    """

    is_debugging = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NAMES:
            from onnxlens.commands.added import find

            return find(ctx, cmd_name)
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

            near = suggestion(args[0], NAMES) if args else ""
            raise click.UsageError(f"{error.message}{near}", ctx) from error


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxlens")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="Use a Python file as a plugin; several may be.")
@click.option("--no-plugins", is_flag=True, help="Load no plugin but those built in.")
def cli(debug: bool, files: tuple[str, ...], no_plugins: bool) -> None:
    """Run GPT-2 anywhere with ONNX Runtime, and see everything that happens inside it.

    Try: onnxlens predict "Data visualization empowers users to"

    Plugins add samplers, visualizers and commands: 'onnxlens plugins' lists them.
    """
    cli.is_debugging = debug
    if files:
        if no_plugins:
            raise click.UsageError("Give either --plugin or --no-plugins.")
        from onnxlens.plugins.sources import checked_files

        checked_files(files)  # one that is not there is an error also where no plugin is used


def main() -> NoReturn:
    """Runs the command line and exits: 0 when all went well, 1 on an error, 2 on wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a narrow encoding lacks is no reason to fail
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    cli.is_debugging = False
    try:
        code = cli.main(arguments, prog_name="onnxlens", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0  # click's own exits are returned: `--help` is one
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and error.option_name in ("--plugin", "--no-plugins", "--debug"):
            print(f"{error.option_name} goes before the command: onnxlens {error.option_name} ...", file=sys.stderr)
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
        if cli.is_debugging:
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
