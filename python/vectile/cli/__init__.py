"""The `vectile` command: demo, train, recipes, generate, quantize, advise, bench, info."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import vectile
from vectile.cli import advise, bench, demo, generate, info, quantize, recipes, train
from vectile.extras import MissingExtra

_COMMANDS: tuple[ModuleType, ...] = (
    demo,
    train,
    recipes,
    generate,
    quantize,
    advise,
    bench,
    info,
)


class Parser(argparse.ArgumentParser):
    """Prints one line for a wrong option, where argparse prints the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line. Every command module adds itself with `add_to`."""
    root = Parser(
        prog="vectile",
        description="SIMD kernels for deep learning: train, generate, quantize, measure.",
        epilog="examples:\n  vectile demo\n  vectile train --corpus stdlib --out run.safetensors\n"
        "  vectile COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"vectile {vectile.__version__}")
    commands = root.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    for module in _COMMANDS:
        module.add_to(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. A foreseeable failure is one line on stderr."""
    words = sys.argv[1:] if argv is None else argv
    try:
        of_recipe = recipes.wanted(words)
        arguments = recipes.parse(words, Parser) if of_recipe else parser().parse_args(words)
        return int(arguments.run(arguments) or 0)
    except (OSError, ValueError, MemoryError, OverflowError, MissingExtra) as error:
        print(f"vectile: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vectile: interrupted", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
