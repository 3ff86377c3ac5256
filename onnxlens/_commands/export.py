"""`onnxlens export`: from PyTorch to ONNX."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from onnxlens._commands.options import (
    console,
    escape_controls,
    gradients_report,
    json_option,
    plugins,
    print_json,
    rounding,
    status,
)

if TYPE_CHECKING:
    from onnxlens.runtime._bundle.weights import Storage


@click.command("export", short_help="Export a checkpoint to ONNX, and prove it.")
@click.argument("source")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--revision", metavar="REV", help="Branch, tag or commit, where SOURCE is a hub id.")
@click.option(
    "--tokenizer",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A tokenizer.json or its folder, where the checkpoint has none.",
)
@click.option(
    "--storage",
    metavar="float32|float16",
    default="float32",
    help="How matrices and embeddings are stored: float16 halves the bundle and rounds them; computing stays float32.",
    show_default=True,
)
@click.option("--gradients", is_flag=True, help="Add the graph of the model's gradients; it shares the weights.")
@click.option("--force", is_flag=True, help="Replace an existing bundle, once the new one is whole.")
@json_option
def command(
    source: str,
    target: Path | None,
    revision: str | None,
    tokenizer: Path | None,
    storage: Storage,
    gradients: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export a checkpoint to ONNX, with every intermediate value named, and prove it.

    SOURCE is a hub id, such as openai-community/gpt2, a folder with config.json and weights, or a GGUF file. TARGET is
    the folder to write, models/NAME if left out. `onnxlens plugins` lists the families whose models can be exported.
    ONNX Runtime is compared with PyTorch on every hook point, and a bundle that differs is not written.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # so that a terminated export cleans up like an interrupted one
    from onnxlens.export._destination import destination

    destination(source, target, force=force)  # errors in the target are reported before PyTorch is loaded
    with status("loading PyTorch") as say:
        try:
            from onnxlens.export import export
        except ModuleNotFoundError as error:
            from onnxlens.runtime.errors import ExportError

            raise ExportError(
                f"Exporting needs PyTorch and more, and {error.name} is not installed: pip install 'onnxlens[export]'"
            ) from error
        bundle = export(
            source,
            target,
            revision=revision,
            tokenizer=tokenizer,
            storage=storage,
            gradients=gradients,
            force=force,
            plugins=plugins(),
            progress=say,
        )
    report = bundle.manifest.verification
    if as_json:
        print_json(
            {
                "path": str(bundle.path),
                "parameters": bundle.manifest.parameters,
                "storage": bundle.manifest.storage,
                "gradients": bundle.has_gradients,
                "bytes": sum(record.size for record in bundle.manifest.files.values()),
                "verification": report,
            }
        )
        return
    worst = max(report["errors"], key=lambda name: report["errors"][name]["relative"])
    console().print(
        f"{escape_controls(str(bundle.path))}: {bundle.manifest.parameters:,} parameters, "
        f"{sum(record.size for record in bundle.manifest.files.values()) / 1e6:,.1f} MB\n"
        f"{len(report['errors'])} values compared with PyTorch in {len(report['cases'])} cases; largest error "
        f"{report['largest_relative_error']:.1e} of a value's range, in {worst}"
        + ("\n" + gradients_report(report) if bundle.has_gradients else "")
        + ("\n" + rounding(report, bundle.manifest.storage) if "rounding" in report else ""),
        soft_wrap=True,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
