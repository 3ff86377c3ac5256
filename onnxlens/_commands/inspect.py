"""`onnxlens inspect`: shows what is in a bundle, and whether it is intact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxlens._commands.options import (
    escape_controls,
    gradients_report,
    json_option,
    model_option,
    print_json,
    print_table,
    rounding,
    status,
)

if TYPE_CHECKING:
    from onnxlens.runtime._bundle.bundle import Bundle


@click.command("inspect")
@model_option
@json_option
def command(model: str | None, as_json: bool) -> None:
    """Show what is in a bundle, and check the hash of each of its files and of those prepared from them."""
    from onnxlens._catalog import find
    from onnxlens.runtime._bundle.bundle import Bundle

    with status("checking") as say:
        bundle = Bundle(find(model))
        bundle.verify(lambda name: say(f"checking {name}"))
        say("checking the prepared files")
        prepared = _prepared(bundle)
    manifest, config = bundle.manifest, bundle.config
    facts: dict[str, Any] = {
        "path": str(bundle.path),
        "intact": True,
        "prepared": prepared,
        "source": manifest.source,
        "parameters": manifest.parameters,
        "precision": manifest.precision,
        "storage": manifest.storage,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "width": config.d_model,
        "mlp_width": config.d_mlp,
        "act_fn": config.act_fn,
        "positions": config.n_ctx,
        "vocabulary": config.d_vocab,
        "tied_embeddings": config.tie_word_embeddings,
        "hook_points": len(manifest.hook_points),
        "gradients": bundle.has_gradients,
        "files": {name: record.size for name, record in manifest.files.items()},
        "made_with": manifest.made_with,
    }
    if as_json:
        print_json({**facts, "verification": manifest.verification})
        return
    from rich.table import Table

    report = manifest.verification
    facts["source"] = ", ".join(str(value) for value in manifest.source.values())
    facts["parameters"] = f"{manifest.parameters:,}"
    facts["files"] = "\n".join(f"{size:>12,}  {escape_controls(name)}" for name, size in facts["files"].items())
    facts["made_with"] = ", ".join(f"{package} {number}" for package, number in manifest.made_with.items())
    facts["gradients"] = "yes" if bundle.has_gradients else "no: exported without --gradients"
    compared = report.get("gradients")
    if isinstance(compared, dict) and _all_numbers(compared, "largest_relative_error", "tolerance"):
        facts["gradients"] += f"; {gradients_report(report)}"
    facts["intact"] = "yes: every file has its SHA-256"
    facts["prepared"] = (
        "\n".join(
            f"in {escape_controls(one['path'])}: "
            + ("intact" if one["intact"] else f"not used, since {escape_controls(one['problem'])}")
            for one in prepared
        )
        or "not for this machine yet; the first run prepares it, or 'onnxlens prepare'"
    )
    if _all_numbers(report, "largest_relative_error", "tolerance") and isinstance(report.get("cases"), list | dict):
        facts["verified"] = (
            f"against {report.get('reference')}, in {len(report['cases'])} cases: largest error "
            f"{report['largest_relative_error']:.1e} of a value's range (allowed {report['tolerance']:.0e})"
        )
    if _all_numbers(report.get("rounding"), "absolute", "relative", "positions", "same_greedy_token"):
        facts["rounding"] = rounding(report, manifest.storage)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(
            name.replace("_", " "), escape_controls(str(value), keep="\n" if name in ("files", "prepared") else "")
        )
    print_table(table)


def _prepared(bundle: Bundle) -> list[dict[str, Any]]:
    """The bundle's prepared folders for this machine, and whether they are intact."""
    from onnxlens.runtime._running.prepare import prepared_folders
    from onnxlens.runtime._running.prepared_folder import damage, distrust
    from onnxlens.runtime._running.providers import candidates

    found = []
    for folder in dict.fromkeys(folder for one in candidates("auto") for folder in prepared_folders(bundle, one)):
        problem = distrust(folder) or damage(folder, thorough=True)
        found.append({"path": str(folder), "intact": problem is None, "problem": problem})
    return found


def _all_numbers(entries: object, *names: str) -> bool:
    """Whether the named entries are all numbers; somebody may have edited them."""
    return isinstance(entries, dict) and all(type(entries.get(name)) in (int, float) for name in names)
