"""The runtimes, with the packages that each needs: the one place that names versions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVIRONMENTS", "EXAMPLES", "RUNTIMES", "Environment", "Example", "Runtime"]


@dataclass(frozen=True)
class Environment:
    """A folder of its own with packages, at exact versions.

    Attributes:
        python: packages of PyPI, one call of pip for each group: of packages that depend on PyTorch, the newest builds
            would come along, unless it is there already.
        npm: packages of npm, installed without their scripts.
        files: files to take out of an npm package that is large: its name and version, the folder and its new name.
    """

    python: tuple[tuple[str, ...], ...] = ()
    npm: tuple[str, ...] = ()
    files: tuple[str, str, str] | None = None


ENVIRONMENTS = {
    # 1.17 is the first with opset 20; of its wheels none was built for NumPy 2.
    "onnxruntime-oldest": Environment(python=(("onnxruntime==1.17.0", "numpy<2"),)),
    "onnxruntime": Environment(
        python=(("onnxruntime==1.32.0", "onnx==1.23.2", "tokenizers==0.23.3", "sympy==1.14.0"),)
    ),
    "openvino": Environment(python=(("openvino==2026.4.1",),)),
    "genai": Environment(python=(("onnxruntime-genai==0.18.0",),)),
    "optimum": Environment(
        python=(
            ("torch==2.13.0",),
            ("torch==2.13.0", "optimum-onnx==0.1.0", "transformers==4.57.6", "onnxruntime==1.32.0"),
        )
    ),
    "browser": Environment(python=(("playwright==1.65.2", "netron==9.3.3", "numpy"),)),
    "javascript": Environment(
        npm=("onnxruntime-web@1.30.0", "onnxruntime-node@1.30.0", "@huggingface/transformers@4.3.1")
    ),
    # No package has only the headers of the C API.
    "headers": Environment(
        files=("com.github.asus4.onnxruntime@0.4.9", "ios-arm64/onnxruntime.framework/Headers", "include")
    ),
}


@dataclass(frozen=True)
class Runtime:
    """A program that runs bundles.

    Attributes:
        name: in the table, with the version.
        environment: the environment that has it.
        script: the file in `scripts/`.
        checks: what the script must report of each bundle, in the words of the table. `gradients` are in most bundles.
        in_page: whether the script is JavaScript for a page, and not for Node.
    """

    name: str
    environment: str
    script: str
    checks: tuple[str, ...]
    in_page: bool = False


_GRAPHS = ("logits", "hook points", "gradients")
RUNTIMES = (
    Runtime("ONNX Runtime 1.17.0, Python", "onnxruntime-oldest", "plain_onnxruntime.py", ("tokens", *_GRAPHS)),
    Runtime("ONNX Runtime 1.32.0, Python", "onnxruntime", "plain_onnxruntime.py", ("tokens", *_GRAPHS)),
    Runtime("onnxruntime-web 1.30.0, Node", "javascript", "onnxruntime_web.mjs", _GRAPHS),
    Runtime("onnxruntime-web 1.30.0, Chromium", "javascript", "onnxruntime_web.mjs", _GRAPHS, in_page=True),
    Runtime("transformers.js 4.3.1, Node", "javascript", "transformers_js.mjs", ("tokens", "batches", "texts")),
    Runtime(
        "transformers.js 4.3.1, Chromium",
        "javascript",
        "transformers_js.mjs",
        ("tokens", "batches", "texts"),
        in_page=True,
    ),
    Runtime("Optimum (optimum-onnx 0.1.0)", "optimum", "plain_optimum.py", ("tokens", "batches", "logits")),
    Runtime("onnxruntime-genai 0.18.0", "genai", "plain_genai.py", ("tokens", "batches", "appending")),
    Runtime("OpenVINO 2026.4.1, CPU", "openvino", "plain_openvino.py", ("tokens", *_GRAPHS)),
    Runtime("onnx.reference 1.23.2", "onnxruntime", "onnx_reference.py", ("hook points",)),
    Runtime("Netron 9.3.3", "browser", "plain_netron.py", ("hook points",)),
)


@dataclass(frozen=True)
class Example:
    """A file in docs/examples, which is run on the model that ships.

    Attributes:
        file: its name.
        environment: the environment that has what it needs.
        prints: `hook point` or `text`: what it must print.
        needs: for a page, files and folders of npm packages that lie beside it, by their names there.
    """

    file: str
    environment: str
    prints: str
    needs: tuple[tuple[str, str], ...] = ()


_WEB = "onnxruntime-web/dist"
_TRANSFORMERS = "@huggingface/transformers"
EXAMPLES = (
    Example("hook_points.py", "onnxruntime", "hook point"),
    Example("hook_points.mjs", "javascript", "hook point"),
    Example(
        "hook_points.html",
        "javascript",
        "hook point",
        tuple(
            (file, f"{_WEB}/{file}")
            for file in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
        ),
    ),
    Example("hook_points.c", "headers", "hook point"),
    Example("hook_points_openvino.py", "openvino", "hook point"),
    Example("quantized.py", "onnxruntime", "quantized"),
    Example("generate.mjs", "javascript", "text"),
    Example(
        "generate.html",
        "javascript",
        "text",
        (
            ("transformers.min.js", f"{_TRANSFORMERS}/dist/transformers.min.js"),
            ("wasm", f"{_TRANSFORMERS}/node_modules/onnxruntime-web/dist"),
        ),
    ),
    Example("generate_genai.py", "genai", "text"),
    Example("generate_optimum.py", "optimum", "text"),
)
