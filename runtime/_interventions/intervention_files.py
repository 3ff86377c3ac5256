"""Files of interventions: JSON, to be kept, shared and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnxlens.runtime._activations.trace import open_trace
from onnxlens.runtime._bundle.json_file import JsonFileError, read_json
from onnxlens.runtime._escape import quoted
from onnxlens.runtime._files import check_ending, expanded, replaced
from onnxlens.runtime._interventions.interventions import Intervention, listed
from onnxlens.runtime.errors import HookPointError, InputError, TraceError

__all__ = ["read_interventions", "write_interventions"]

_LIMIT = 50_000_000  # bytes; values of a whole model are better kept in a trace


def read_interventions(path: str | Path) -> list[Intervention]:
    """Reads a JSON file of interventions: a list of objects, or one object; see `Intervention.from_dict`.

    For `mean`, `patch` and `freeze`, the value may be `{"trace": FILE}`: a trace, beside the JSON file if its path is
    relative, of whose hook points the intervention takes those that it names. For a mean at each position,
    `{"trace": FILE, "per_position": true}`.

    Raises:
        InputError: the file cannot be read, is not JSON, or an intervention in it is wrong; the text says which.
    """
    path = expanded(path)
    try:
        entries = read_json(path, _LIMIT)
    except JsonFileError as error:
        raise InputError(f"Cannot read the interventions {path}: {error}.") from error
    found = entries if isinstance(entries, list) else [entries]
    if not found:
        raise InputError(f"There is no intervention in {path}.")
    interventions = []
    for number, entry in enumerate(found):
        try:
            interventions.append(_read(entry, path.parent))
        except (InputError, HookPointError, TraceError) as error:
            raise InputError(f"Intervention {number} in {path}: {error}") from error
    return interventions


def write_interventions(interventions: Iterable[Intervention] | Intervention, path: str | Path) -> None:
    """Writes a JSON file that `read_interventions` reads, with every number as it is.

    Raises:
        InputError: something is not an intervention.
        OutputError: the file cannot be written.
    """
    check_ending(path, ".json", "interventions are written as JSON")
    text = json.dumps([one.to_dict() for one in listed(interventions)], indent=1)
    with replaced(expanded(path)) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")


def _read(entry: Any, folder: Path) -> Intervention:
    value = entry.get("value") if isinstance(entry, dict) else None
    if not isinstance(value, dict) or "trace" not in value:
        return Intervention.from_dict(entry)
    if unknown := sorted(value.keys() - {"trace", "per_position"}):
        raise InputError(f"A value from a trace has no entry {quoted(unknown[0])}; it has trace and per_position.")
    if not isinstance(value["trace"], str):
        raise InputError(f"The trace of a value must be a file's name, not {quoted(value['trace'])}.")
    per_position = value.get("per_position", False)
    if not isinstance(per_position, bool):
        raise InputError(f"per_position of a value must be true or false, not {quoted(per_position)}.")
    run = open_trace(folder / expanded(value["trace"]))
    return Intervention.of_run(run, entry, per_position=per_position)
