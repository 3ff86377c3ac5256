"""`onnxlens prepare`: prepares a model before its first run, and removes unused prepared folders."""

from __future__ import annotations

from pathlib import Path

import click

from onnxlens._commands.options import escape_controls, json_option, model_option, print_json, status


@click.command("prepare", short_help="Prepare a model for this machine, before it is run.")
@model_option
@click.option("--gradients", is_flag=True, help="Prepare the graph of the gradients, too.")
@click.option("--provider", default="auto", metavar="auto|cpu|cuda", help="The execution provider.", show_default=True)
@click.option("--clean", is_flag=True, help="Remove unused prepared folders, and prepare nothing.")
@json_option
def command(model: str | None, gradients: bool, provider: str, clean: bool, as_json: bool) -> None:
    """Prepare a model for this machine before its first run, for example while a container image is built.

    Prepared files are in the cache folder, which the variable ONNXLENS_CACHE names. They are for one kind of processor
    and one version of ONNX Runtime; elsewhere, the first run prepares the model again.

    With --clean, remove prepared files for other versions or processors, and for models that are gone or changed.
    """
    from onnxlens.runtime._running.providers import candidates
    from onnxlens.runtime._user_folders import CACHE, cache_folder
    from onnxlens.runtime.errors import OutputError

    if clean and (model is not None or gradients):
        raise click.UsageError("--clean prepares nothing; give neither --model nor --gradients.")
    root = cache_folder()
    if root is None:
        raise OutputError(f"No cache folder is known: name one with {CACHE}, or set HOME.")
    if clean:
        from onnxlens.runtime._running.prepare import remove_unused

        removed = [(str(path), size) for path, size in remove_unused(root, candidates("auto"))]
        if as_json:
            print_json({"removed": [{"path": path, "bytes": size} for path, size in removed]})
            return
        for name, size in removed:
            click.echo(f"removed {escape_controls(name)} ({size / 1e6:,.1f} MB)")
        if not removed:
            click.echo(f"nothing to remove in {escape_controls(str(root))}")
        return
    folders = _prepare(model, provider, gradients)
    rows = [(str(folder), sum(path.stat().st_size for path in folder.iterdir())) for folder in folders]
    if as_json:
        print_json({"prepared": [{"path": path, "bytes": size} for path, size in rows]})
        return
    for path, size in rows:
        click.echo(f"prepared in {escape_controls(path)} ({size / 1e6:,.1f} MB)")


def _prepare(model: str | None, provider: str, gradients: bool) -> list[Path]:
    from onnxlens._catalog import find
    from onnxlens.runtime._bundle.bundle import Bundle
    from onnxlens.runtime._running.prepare import prepare
    from onnxlens.runtime._running.providers import candidates
    from onnxlens.runtime.errors import InputError, ProviderError

    with status("checking") as say:
        bundle = Bundle(find(model), verify=True)
        if gradients and not bundle.has_gradients:
            raise InputError(f"The bundle {bundle.name} was exported without --gradients; leave --gradients out.")
        *others, last = candidates(provider)
        for one in (*others, last):
            try:
                kinds = [False, True] if gradients else [False]
                return [prepare(bundle, one, say, gradients=kind, lasting=True).folder for kind in kinds]
            except ProviderError:
                if one is last:
                    raise
    raise AssertionError("there is always a provider to try")
