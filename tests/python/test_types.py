"""Types as a user's checker sees them, and the extension's stub beside the extension."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
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
            found[node.name] = [a.arg for a in node.args.posonlyargs + node.args.args]
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


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_typed_program_passes_mypy_strict(tmp_path):
    installed = "site-packages" in PACKAGE.parts
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"),
            *("--cache-dir", str(tmp_path), "--config-file", os.devnull, "typed_example.py"),
        ],
        cwd=HERE,
        env={**os.environ, "MYPYPATH": "" if installed else str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_typed_program_runs():
    losses = typed_example.main()
    assert losses[-1] < losses[0]
