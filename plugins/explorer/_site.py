"""A folder with the explorer and models that run in the browser: for any web server, with nothing behind it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save

from onnxlens.plugins.explorer._costs import cost_parts
from onnxlens.plugins.explorer._engine import EXAMPLES, Engine
from onnxlens.plugins.explorer._page import json_script
from onnxlens.plugins.explorer._requests import BOARD, Answer, ModelRequest, RunRequest, SweepRequest
from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH, HOOKS_GRAPH, TOKENIZER, WEIGHTS, sha256_of
from onnxlens.runtime._graphs.editable import changeable, editable_graph, final_state, lens_graph
from onnxlens.runtime._graphs.graph_file import read_graph
from onnxlens.runtime._graphs.names import cache_inputs
from onnxlens.runtime.errors import OnnxLensError, OutputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["board_of", "write_model", "write_site"]

_TOKENIZER_CONFIG = "tokenizer_config.json"
_REPEATED = [5, 6, 7]  # any text: the scores of heads are those on random tokens
# Everything comes from the folder itself; WebAssembly is compiled, and workers are started.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)

Progress = Callable[[str], None]


def write_site(
    folder: Path,
    lenses: Sequence[Lens],
    built: Path,
    texts: Sequence[str] = (),
    progress: Progress = lambda text: None,
) -> int:
    """Writes a folder with the page and models, which run in the browser.

    The boards of the examples are computed now, so that the page shows them before the model is loaded.

    Args:
        folder: what to write; it must not exist, or be empty. Nothing is left half-written.
        lenses: the models, the one to begin with first.
        built: the folder of the page that `make explore` built.
        texts: the examples of the page, the one to begin with first; without them, those of the explorer.
        progress: called with what is being written.

    Returns:
        The size of all files, in bytes.

    Raises:
        OutputError: the folder is not empty or cannot be written, or two models have one name.
        OnnxLensError: a model cannot run the text.
    """
    names = [lens.bundle.name for lens in lenses]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise OutputError(f"Two of the models are named {twice!r}; rename the folder of one.")
    target = folder.expanduser().resolve()
    scratch = None
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"Cannot write {target}: it is not an empty folder; name one that is new or empty.")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".onnxlens-site-", dir=target.parent))
        shutil.copytree(built, scratch, dirs_exist_ok=True)
        models = []
        for number, lens in enumerate(lenses):
            progress(lens.bundle.name)
            path = f"models/{number}"  # a name may have letters that an address has not
            engine = Engine(lens)
            models.append(write_model(scratch / path, lens, engine, path, _boards(engine, texts)))
        index = (built / "index.html").read_text(encoding="utf-8")
        head = f'<meta http-equiv="content-security-policy" content="{_POLICY}" />\n    {_APP}\n    <title>'
        index = re.sub("<title>", head, index, count=1)
        body = f"<body>\n    {json_script('site', {'models': models})}"
        (scratch / "index.html").write_text(index.replace("<body>", body, 1), encoding="utf-8")
        (scratch / "_headers").write_text(_HEADERS, encoding="utf-8")
        scratch.chmod(0o755)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)  # gone where it became the target
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


# What a browser needs to install the page as an app.
_APP = '<link rel="manifest" href="./app.webmanifest" />'
# For hosts that read such a file: threads need these two.
_HEADERS = """/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
"""


def write_model(
    folder: Path, lens: Lens, engine: Engine, path: str, boards: Mapping[str, Answer], *more: str
) -> dict[str, Any]:
    """Writes the files of a model that runs in the browser, into a new folder.

    Args:
        folder: what to write.
        lens: the model.
        engine: its answers.
        path: where the page finds the folder.
        boards: texts with their boards, which the page shows before the model is loaded: its examples.
        more: further examples.

    Returns:
        What the page knows of the model before it is opened; `Site` in `web/src/engine/browser/site.ts`.
    """
    import onnx

    folder.mkdir(parents=True)
    bundle = lens.runner.bundle
    description = bundle.description
    for name in (TOKENIZER, _TOKENIZER_CONFIG):
        (folder / name).write_bytes(bundle.read(name))
    for name in (WEIGHTS, *([GRADIENTS_GRAPH] if bundle.has_gradients else [])):
        shutil.copyfile(bundle.path / name, folder / Path(name).name)
    portable = read_graph(bundle, HOOKS_GRAPH)
    for name, graph in (
        ("explorer.onnx", editable_graph(portable, description)),
        ("lens.onnx", lens_graph(portable, description)),
    ):
        onnx.save(graph, str(folder / name))
        onnx.checker.check_model(str(folder / name))
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())}
    model = {**engine.model(ModelRequest()), "examples": [*boards, *more], "provider": "WebAssembly"}
    model["visualizers"] = []  # which need Python
    for name, facts in (("model.json", model), ("details.json", {**_details(lens, engine), "files": files})):
        (folder / name).write_text(json.dumps(facts, separators=(",", ":"), allow_nan=False), encoding="utf-8")
    for number, board in enumerate(boards.values()):
        content = save(board.arrays, {"facts": json.dumps(board.facts)})
        (folder / f"board-{number}.safetensors").write_bytes(content)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"name": lens.bundle.name, "path": path, "size": size, "boards": list(boards)}


def board_of(engine: Engine, text: str) -> Answer:
    """What the page asks first of a text.

    Raises:
        OnnxLensError: the model cannot run the text.
    """
    return engine.run(RunRequest(text=text, reads=BOARD))


def _boards(engine: Engine, texts: Sequence[str]) -> dict[str, Answer]:
    """The boards of texts; without texts, of those examples that the model can run.

    Raises:
        OnnxLensError: the model cannot run a text, or none of the examples.
    """
    if texts:
        return {text: board_of(engine, text) for text in texts}
    found = {}
    for text in EXAMPLES:
        with contextlib.suppress(OnnxLensError):
            found[text] = board_of(engine, text)
    return found or {EXAMPLES[0]: board_of(engine, EXAMPLES[0])}


def _details(lens: Lens, engine: Engine) -> dict[str, Any]:
    """What the worker needs of a model besides its files; `Details` in `web/src/engine/browser/site.ts`."""
    description = lens.runner.bundle.description
    vocabulary, tokenizer = range(lens.config.d_vocab), lens.tokenizer
    scores = engine.sweep(SweepRequest(ids=_REPEATED, kind="head_scores"))
    on_text = ("distance", "entropy")  # which the browser computes
    empty = tokenizer.token_ids("", add_special_tokens=True)
    return {
        "weights": {
            name: {**view.to_dict(), "tensor": view.tensor, "shape": list(lens.weights[name].shape)}
            for name, view in description.weights.items()
        },
        "hash": lens.runner.bundle.facts.hash,
        "changeable": changeable(description),
        "final": final_state(description),
        "products": {
            point.name: {"activation": point.product.activation, "weight": point.product.weight}
            for point in description.points.values()
            if point.product is not None
        },
        "costs": cost_parts(lens),
        "caches": cache_inputs(description.cfg),
        "key_value_heads": description.cfg.key_value_heads,
        "labels": [tokenizer.pieces([token])[0] for token in vocabulary],
        "bytes": [tokenizer.token_bytes(token).hex() for token in vocabulary],
        "ends": list(tokenizer.eos_token_ids),
        "start": None if empty or not tokenizer.eos_token_ids else tokenizer.encode("")[0],
        "scores": {
            "facts": scores.facts,
            "arrays": {
                name: {"shape": list(array.shape), "data": array.ravel().tolist()}
                for name, array in scores.arrays.items()
                if name not in on_text
            },
        },
    }
