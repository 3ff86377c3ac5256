"""Replaces a bundle in one child process after the other, each killed one line later, and looks at what is left.

    python staging_sweep.py FOLDER swapping|renaming replacing|new

Prints how often the target was the old bundle, the new one or nothing, and every outcome that must not be.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

from onnxlens.export import _staging as staging
from onnxlens.export import _target as target
from onnxlens.runtime._bundle.manifest import FileRecord, Manifest

_FILES = (
    "config.json",
    "tokenizer.json",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "onnx/model_hooks.onnx",
)
_OTHERS = ("notes.txt", "onnx/mine", "runs/1/a", "runs/1/b")


def write_bundle(folder: Path, text: str, *more: str, other_files: bool = False) -> None:
    """Writes what counts as a bundle, with the same text in each of its files; perhaps also what a user adds."""
    for name in (*_FILES, *more, *(_OTHERS if other_files else ())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine" if name in _OTHERS else text)
    Manifest(
        name="bundle",
        source={},
        made_with={},
        precision="float32",
        storage="float32",
        parameters=1,
        cfg={},
        residual_stream={},
        normalizations={},
        weights={},
        hook_points=[],
        verification={},
        files={name: FileRecord(size=3, sha256="") for name in (*_FILES, *more)},
    ).write(folder)


def content(folder: Path) -> list[str]:
    """The texts in a bundle's files, each once, so one of a bundle that is whole; '?' where the manifest is missing."""
    if not folder.exists():
        return []
    if not (folder / "onnxlens.json").is_file():
        return ["?"]
    return sorted({(folder / name).read_text() for name in _FILES})


def other_files(folder: Path) -> bool:
    """Whether all that a user added is there."""
    return all((folder / name).is_file() and (folder / name).read_text() == "mine" for name in _OTHERS)


def left_behind(place: Path) -> list[str]:
    """What lies beside a bundle; but for the empty folder of who ended before saying for which target it was."""
    found = [path.relative_to(place.parent) for path in place.parent.rglob("*") if not path.is_relative_to(place)]
    return [str(path) for path in found if len(path.parts) > 1 and path.name != "target.unlocked"]


def replace(place: Path, *, force: bool) -> None:
    with staging.staged(place, force=force) as folder:
        write_bundle(folder, "new")


class Killer:
    """Kills this process before the nth line that runs for the first time in the modules that replace."""

    def __init__(self, count: int) -> None:
        self.files, self.left = {staging.__file__, target.__file__}, count
        self.seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        line = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and line not in self.seen:
            self.seen.add(line)
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def main(folder: Path, way: str, existing: str) -> dict[str, Any]:
    if way == "renaming":
        staging.exchange = lambda first, second: False
    report: dict[str, Any] = defaultdict(int, wrong=[])
    finished, count = False, 0
    while not finished:
        count += 1
        place = folder / str(count) / "bundle"
        place.parent.mkdir()
        if existing == "replacing":
            write_bundle(place, "old", other_files=True)
        child = os.fork()
        if child == 0:
            sys.settrace(Killer(count))
            replace(place, force=existing == "replacing")
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        report["killed"] += not finished
        if existing == "replacing" and way == "swapping" and not place.exists():
            report["wrong"].append(f"{count}: no bundle under the name")
        staging.recover(place.parent)
        found = content(place)
        if found not in (["old"], ["new"]) and (found or existing == "replacing"):
            report["wrong"].append(f"{count}: {found}")
        if existing == "replacing" and not other_files(place):
            report["wrong"].append(f"{count}: a file of the user's is lost")
        if left := left_behind(place):
            report["wrong"].append(f"{count}: {left}")
        report["".join(found) or "nothing"] += 1
    return report


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
