"""Types as a user's checker sees them, and the extension's stub beside the extension."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import typed_example

import vectile
from vectile import _core

PACKAGE = Path(vectile.__file__).parent
HERE = Path(__file__).parent


def stub_arguments() -> dict[str, list[str]]:
    """Names of the stub's functions and classes, with the arguments of the functions."""
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = []
        elif isinstance(node, ast.FunctionDef):
            a = node.args
            found[node.name] = [x.arg for x in a.posonlyargs + a.args + a.kwonlyargs]
    return found


def core_arguments() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in (n for n in dir(_core) if not n.startswith("_")):
        value = getattr(_core, name)
        doc = "" if isinstance(value, type) else value.__doc__.strip().splitlines()[0]
        found[name] = re.findall(r"(\w+): ", doc)
    return found


def test_the_stub_is_what_the_extension_offers():
    """When this fails: python .ci/stubs.py && ruff format python/vectile/_core.pyi"""
    assert stub_arguments() == core_arguments()


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def mypy(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    installed = "site-packages" in PACKAGE.parts
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *arguments],
        cwd=HERE,
        env={**os.environ, "MYPYPATH": "" if installed else str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_mypy_strict_accepts_a_typed_program_and_the_package(tmp_path):
    program = mypy("--follow-imports=silent", "typed_example.py", cache=tmp_path)
    assert program.returncode == 0, program.stdout + program.stderr
    sources = HERE.parents[1] / "python" / "vectile"
    package = mypy(str(sources), cache=tmp_path)
    assert package.returncode == 0, package.stdout + package.stderr


def test_the_typed_program_runs():
    losses = typed_example.main()
    assert losses[-1] < losses[0]
