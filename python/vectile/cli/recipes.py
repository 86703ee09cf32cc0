"""`vectile recipes` lists the recipes; `vectile train --recipe NAME` runs one with its own options."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vectile import recipes
from vectile.cli import common
from vectile.recipes.registry import COMMON


def add_to(commands: Any) -> None:
    common.command(
        commands,
        "recipes",
        show,
        "list the recipes: networks trained on real data, scored and drawn",
        ["vectile recipes", "vectile train --recipe vit", "vectile train --recipe vit --help"],
    )


def show(arguments: argparse.Namespace) -> int:
    """A table of the recipes in the order to read them in; what is not installed is marked."""
    screen = common.console()
    table = common.table("recipe", "teaches", "also needs")
    for column, justify in zip(table.columns, ("left", "left", "left"), strict=True):
        column.justify, column.no_wrap = justify, False
    table.columns[0].no_wrap = True
    absent = False
    for name, recipe in recipes.recipes().items():
        missing = [m for m in recipe.needs if importlib.util.find_spec(m.partition(".")[0]) is None]
        absent |= bool(missing)
        table.add_row(
            f"[bold]{name}[/]",
            recipe.summary,
            " ".join(
                f"[red]{m}[/]" if m in missing else m
                for m in recipe.needs
                if m in missing or m not in COMMON
            ),
        )
    screen.print(table)
    if absent:
        screen.print("what is red is not installed: pip install 'vectile[recipes]'", markup=False)
    screen.print("\nrun one with: vectile train --recipe NAME   (--help shows its options)")
    return 0


def wanted(words: Sequence[str]) -> bool:
    """Whether a command line is `train … --recipe …`, which has options of its own."""
    return list(words[:1]) == ["train"] and any(w.split("=")[0] == "--recipe" for w in words)


def parse(words: Sequence[str], kind: type[argparse.ArgumentParser]) -> argparse.Namespace:
    """Arguments of `train --recipe NAME …`, as the recipe declares them; ValueError for an unknown name.

    Whole numbers are counts, so that a 0 is refused before training and not after it.
    """
    first = kind(prog="vectile train", add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", required=True, metavar="NAME")
    name, rest = first.parse_known_args(list(words[1:]))
    recipe = recipes.find(name.recipe)
    parser = kind(
        prog=f"vectile train --recipe {recipe.name}",
        description=" ".join(
            [recipe.summary[0].upper() + recipe.summary[1:] + ".", recipe.train.__doc__ or ""]
        ),
        epilog="Ctrl-C ends training early; scores, pictures and the checkpoint are still made.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where everything is written (default: vectile-{recipe.name})",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of weights, data order and noise"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds")
    for option in recipe.options():
        flag = "--" + option.name.replace("_", "-")
        if option.kind is bool:
            parser.add_argument(
                flag,
                dest=option.name,
                action=argparse.BooleanOptionalAction,
                default=option.default,
                help=option.help,
            )
        else:
            note = "" if option.default is None else f" (default: {option.default})"
            parser.add_argument(
                flag,
                dest=option.name,
                type=common.positive if option.kind is int else option.kind,
                choices=option.choices,
                default=option.default,
                metavar=None if option.choices else _METAVAR.get(option.kind, "X"),
                help=option.help + note,
            )
    parser.set_defaults(run=run, chosen=recipe)
    return parser.parse_args(rest)


def run(arguments: argparse.Namespace) -> int:
    """Run the recipe that `parse` found."""
    recipe: recipes.Recipe = arguments.chosen
    options = {option.name: getattr(arguments, option.name) for option in recipe.options()}
    recipes.run_recipe(recipe, arguments.out, arguments.seed, arguments.quick, **options)
    return 0


_METAVAR: dict[Any, str] = {int: "N", Path: "FILE", str: "NAME"}


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer >= 0, got {text}")
    return value
