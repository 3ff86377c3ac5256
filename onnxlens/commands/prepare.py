"""`onnxlens prepare`: a model prepared before it is first run, and prepared folders that nothing uses removed."""

from __future__ import annotations

from pathlib import Path

import click

from onnxlens.commands.options import escape_controls, json_option, model_option, print_json, status


@click.command("prepare", short_help="Prepare a model for this machine, before it is run.")
@model_option
@click.option("--gradients", is_flag=True, help="Prepare the graph of the gradients, too.")
@click.option("--provider", default="auto", metavar="auto|cpu|cuda", help="What will run it.", show_default=True)
@click.option("--clean", is_flag=True, help="Remove what was prepared and nothing uses any more; prepare nothing.")
@json_option
def command(model: str | None, gradients: bool, provider: str, clean: bool, as_json: bool) -> None:
    """Prepare a model for this machine, which its first run would do otherwise: while an image is built, for example.

    What is prepared goes into the cache folder, which the variable ONNXLENS_CACHE names. It is made for one kind of
    processor and one version of ONNX Runtime; on another machine, the first run prepares the model anew.

    With --clean, remove what was prepared for other versions or processors, and for models that are gone or changed.
    """
    from onnxlens.runtime.errors import OutputError
    from onnxlens.runtime.running.providers import candidates
    from onnxlens.runtime.user_folders import CACHE, cache_folder

    if clean and (model is not None or gradients):
        raise click.UsageError("--clean prepares nothing; give neither --model nor --gradients.")
    root = cache_folder()
    if root is None:
        raise OutputError(f"No cache folder is known: name one with {CACHE}, or set HOME.")
    if clean:
        from onnxlens.runtime.running.prepare import remove_unused

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
    from onnxlens.catalog import find
    from onnxlens.runtime.bundle.bundle import Bundle
    from onnxlens.runtime.errors import InputError, ProviderError
    from onnxlens.runtime.running.prepare import prepare
    from onnxlens.runtime.running.providers import candidates

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
