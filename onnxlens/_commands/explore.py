"""`onnxlens explore`: a page in the browser."""

from __future__ import annotations

import click

from onnxlens._commands.options import RunOptions, print_json, run_options, status
from onnxlens.runtime._escape import escape_controls

_PORT = 8642


@click.command("explore", short_help="See a model think, in the browser.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--port", default=_PORT, show_default=True, metavar="N", help="The port, or one of the next 20; 0 for any."
)
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.  [default: browser]")
@click.option("--save", metavar="FILE", help="Write a page with the model inside, as one file, and serve nothing.")
@click.option("--recorded", is_flag=True, help="With --save: answers for TEXT in place of the model; a smaller file.")
@click.option(
    "--site", metavar="DIR", help="Write a folder for any web server: the model runs in the browser, without Python."
)
@click.option("--add", multiple=True, metavar="NAME", help="A further model of the site; may be repeated.")
@click.option("--edits", metavar="JSON", help="Begin with changes, as the page writes them in its commands.")
@run_options
def command(
    texts: tuple[str, ...],
    host: str,
    port: int,
    browser: bool,
    save: str | None,
    recorded: bool,
    site: str | None,
    add: tuple[str, ...],
    edits: str | None,
    run: RunOptions,
) -> None:
    """Open a page on this machine that shows what happens inside the model while it reads TEXT.

    Nothing leaves this machine. On another address than 127.0.0.1, the link has a token, without which the server does
    not answer. Ctrl-C ends it.

    With --save, one HTML file has the page and the model, which runs in the browser. It opens offline, from a disk or a
    mail. With --recorded, it has answers for TEXT instead.

    With --site, a folder has the page and the model, which runs in the browser of whoever opens it. Put it on any web
    server, or try it with 'python -m http.server -d DIR'. Its examples are the TEXTs, if there are any.
    """
    import ipaddress
    import secrets
    import sys
    from dataclasses import replace
    from urllib.parse import quote

    from onnxlens._catalog import installed
    from onnxlens.runtime.errors import MissingLibraryError, OutputError

    try:
        from onnxlens.plugins.explorer import Engine, serve
        from onnxlens.plugins.explorer._server import BUILT, free_socket
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise MissingLibraryError(
            f"The explorer needs {error.name}, which is not installed: pip install 'onnxlens[explore]'."
        ) from error
    if not (BUILT / "index.html").is_file():
        raise OutputError("The page of the explorer is not built: in a checkout, run 'make explore'.")
    if recorded and save is None:
        raise click.UsageError("--recorded is about a saved page: give --save FILE with it.")
    if add and site is None:
        raise click.UsageError("--add names models of a site: give --site DIR with it.")
    if site is not None:
        if save is not None or edits is not None:
            raise click.UsageError("Give --site without --save and --edits.")
        _write_site(texts, site, [run, *(replace(run, model=name) for name in add)])
        return
    if len(texts) > 1:
        raise click.UsageError("Give one TEXT, in quotes; several are for --site.")
    text = texts[0] if texts else None
    if save is not None:
        if edits is not None:
            raise click.UsageError("Give either --save or --edits: a saved page begins without changes.")
        (_record if recorded else _save)(text, save, run)
        return
    if edits is not None:
        _check_edits(edits)
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    token = None if is_local else secrets.token_urlsafe(24)
    with free_socket(host, port) as bound, run.open_lens() as lens:
        engine = Engine(lens, [found.name for found in installed()], lambda name: replace(run, model=name).open_lens())
        engine.prepare(text)  # so that the first board is there as soon as the page asks for it
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        state = [
            f"text={quote(text)}" if text else "",
            f"edits={quote(edits)}" if edits else "",
            f"key={token}" if token else "",
        ]
        link = address + ("#" + "&".join(filter(None, state)) if any(state) else "")
        if run.as_json:
            print_json({"model": lens.bundle.name, "provider": lens.provider, "address": link}, indent=None)
        else:
            click.echo(f"{escape_controls(lens.bundle.name)}: {link}")
        if browser and click.launch(link) != 0:
            click.echo("No browser could be opened; open this address in one.", err=True)
        sys.stdout.flush()
        serve(engine, bound, token=token)


def _check_edits(text: str) -> None:
    """Checks that edits are a JSON list of objects; the engine checks what they say.

    Raises:
        InputError: they are not.
    """
    import json

    from onnxlens.runtime._escape import quoted
    from onnxlens.runtime.errors import InputError

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"--edits takes a JSON list of changes, as the page writes it, not {quoted(text)}.")


def _write_site(texts: tuple[str, ...], folder: str, runs: list[RunOptions]) -> None:
    """Writes a folder with the page and models that run in the browser."""
    from contextlib import ExitStack
    from pathlib import Path

    from onnxlens.plugins.explorer._server import BUILT
    from onnxlens.plugins.explorer._site import write_site

    with ExitStack() as stack, status("writing") as say:
        lenses = [stack.enter_context(run.open_lens()) for run in runs]
        size = write_site(Path(folder), lenses, BUILT, texts, say)
    if runs[0].as_json:
        print_json({"folder": folder, "models": [lens.bundle.name for lens in lenses], "bytes": size}, indent=None)
    else:
        click.echo(f"{escape_controls(folder)}: {size / 1e6:.1f} MB")


def _save(text: str | None, path: str, run: RunOptions) -> None:
    """Writes a page with the model inside."""
    from onnxlens.plugins.explorer._engine import EXAMPLES
    from onnxlens.plugins.explorer._live import live_page
    from onnxlens.plugins.explorer._server import BUILT
    from onnxlens.runtime._files import check_ending, replaced

    check_ending(path, ".html", "a page is HTML")
    with run.open_lens() as lens, status("writing"):
        content = live_page(lens, BUILT, EXAMPLES[0] if text is None else text).encode()
        with replaced(path) as scratch:
            scratch.write_bytes(content)
    if run.as_json:
        print_json({"file": path, "bytes": len(content)}, indent=None)
    else:
        click.echo(f"{escape_controls(path)}: {len(content) / 1e6:.1f} MB")


def _record(text: str | None, path: str, run: RunOptions) -> None:
    """Writes a page with recorded answers."""
    from onnxlens.plugins.explorer import Engine
    from onnxlens.plugins.explorer._engine import EXAMPLES
    from onnxlens.plugins.explorer._recording import page, record
    from onnxlens.plugins.explorer._server import BUILT
    from onnxlens.runtime._files import check_ending, replaced

    check_ending(path, ".html", "a page is HTML")
    with run.open_lens() as lens, status("recording") as say:
        facts, arrays = record(Engine(lens), EXAMPLES[0] if text is None else text, say)
        content = page(BUILT, facts, arrays).encode()
        with replaced(path) as scratch:
            scratch.write_bytes(content)
    left_out = facts["left_out"]
    if run.as_json:
        print_json({"file": path, "bytes": len(content), "left_out": left_out}, indent=None)
        return
    click.echo(f"{escape_controls(path)}: {len(content) / 1e6:.1f} MB")
    if left_out:
        click.echo(
            f"Too large, so not in the file: {', '.join(left_out[:5])}{' …' if len(left_out) > 5 else ''}", err=True
        )
