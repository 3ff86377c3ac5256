"""The root of the command line: finds commands, and reports their errors."""

from __future__ import annotations

import importlib
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

import click

from onnxlens import _interrupts as interrupts
from onnxlens._commands import NAMES
from onnxlens.runtime._escape import cut, escape_controls

__all__ = ["cli", "main"]

_INTERRUPTED = 130  # what a shell reports for SIGINT
_LONGEST = 4000  # characters of an error


class _Lazy(click.Group):
    """Imports a command when it is called, or when all are listed; each imports heavy packages only inside.

    Plugins' commands are searched only if onnxlens has no command of that name, so `--help` loads no plugin.

    Attributes:
        is_debugging: whether errors are shown with their traceback.
    """

    is_debugging = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NAMES:
            from onnxlens._commands.added import find

            return find(ctx, cmd_name)
        module = importlib.import_module(f"onnxlens._commands.{cmd_name}")
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
@click.option(
    "--plugin", "files", multiple=True, metavar="FILE", help="Use a Python file as a plugin; may be repeated."
)
@click.option("--no-plugins", is_flag=True, help="Load built-in plugins only.")
def cli(debug: bool, files: tuple[str, ...], no_plugins: bool) -> None:
    """Run a language model anywhere with ONNX Runtime, and see everything that happens inside it.

    Try: onnxlens predict "Data visualization empowers users to"

    Plugins add samplers, visualizers and commands: 'onnxlens plugins' lists them.
    """
    cli.is_debugging = debug
    if files:
        if no_plugins:
            raise click.UsageError("Give either --plugin or --no-plugins.")
        from onnxlens.plugins._sources import checked_files

        checked_files(files)  # a missing file is an error even if no plugin is used


def main() -> NoReturn:
    """Runs the command line and exits: 0 when all went well, 1 on an error, 2 on wrong usage."""
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # characters that a narrow encoding lacks are escaped
    code = _run(sys.argv[1:])
    interrupts.end()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if code == _INTERRUPTED:
        os._exit(code)  # partly imported modules may crash when Python shuts down
    sys.exit(code)


def _open_streams() -> None:
    """Opens the null device in place of standard streams that are closed, so that no other file gets their numbers.

    Where standard output is closed, results cannot be printed: that is an error before anything is computed.
    """
    for number in range(3) if os.name == "posix" else ():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open until the process ends)
    if sys.stdout is None:
        _say("Error: Standard output is closed, so there is nowhere to print. Send it to a file, or to /dev/null.")
        sys.exit(1)


def _flush(stream: TextIO) -> None:
    """Flushes a stream; if that fails, keeps Python from trying again at exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    """Prints to standard error; if that is full or closed, the exit code alone reports the error."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _run(arguments: list[str]) -> int:
    cli.is_debugging = False
    try:
        code = cli.main(arguments, prog_name="onnxlens", standalone_mode=False)
        sys.stdout.flush()
        if interrupts.came():  # and somebody caught it
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0  # click's own exits are returned: `--help` is one
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("Interrupted.")
        return _INTERRUPTED
    except BrokenPipeError:
        _flush(sys.stdout)  # the reader left, as in `onnxlens models | head -1`
        return 1  # as click does where it notices first
    except Exception as error:
        if interrupts.came():  # which a library turned into another error
            _say("Interrupted.")
            return _INTERRUPTED
        if cli.is_debugging:
            raise
        from onnxlens.runtime.errors import OnnxLensError

        if isinstance(error, OnnxLensError):
            _say(f"Error: {_line(str(error))}")
        elif isinstance(error, OSError) and error.strerror:
            _say(f"Error: {_line(error.strerror)}")
        else:
            hint = "unexpected; 'onnxlens --debug ...' shows where"
            _say(f"Error: {type(error).__name__}: {_line(str(error))} ({hint})")
        return 1


def _show(error: click.ClickException) -> None:
    """Prints an error about arguments, as click does, on one line and with control characters escaped."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        _say(escape_controls(error.ctx.get_usage(), keep="\n"))
        if error.ctx.command.get_help_option(error.ctx) is not None:
            _say(f"Try '{escape_controls(error.ctx.command_path)} {error.ctx.help_option_names[-1]}' for help.\n")
    _say(f"Error: {_line(error.format_message())}")
    if isinstance(error, click.NoSuchOption) and error.option_name in ("--plugin", "--no-plugins", "--debug"):
        _say(f"{error.option_name} goes before the command: onnxlens {error.option_name} ...")
    if "unexpected extra argument" in error.message:
        _say("A text with spaces needs quotes; a model is named with -m.")


def _line(text: str) -> str:
    return escape_controls(cut(" ".join(text.split()), _LONGEST))
