"""Recipes: short programs that each train a network on real data, score it and draw what it learnt.

`vectile recipes` lists them and `vectile train --recipe NAME` runs one. A recipe is one file in this folder:

    @recipe("tiny", "what a reader learns from it")
    def train(run: Run, *, width: Annotated[int, "units in the hidden layer"] = 32) -> None:
        training, held_out = data.digits()
        settings = {"in_features": 64, "hidden": width, "out_features": 10}
        model = models.MLP(**settings)
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)
        rows = data.shuffled(len(training.labels), 64, run.generator)
        for step in run.steps(1000):
            ...  # one optimiser step
            run.log(loss=loss)
        run.score("held-out accuracy", accuracy, better="higher")
        run.figure("errors", viz.confusion_matrix(held_out.labels, predicted))
        run.checkpoint(model, settings)  # models.load reads it

Keyword arguments become options of the command line: `--width 64`. All randomness comes from `run.generator`
and `vectile.random`, both seeded by `--seed`; with `--quick`, `run.steps` and `run.pick` shrink the work to
seconds. `Run` adds loss.png and report.json at the end, also after Ctrl-C.
"""

from vectile.recipes.registry import Option, Recipe, find, recipe, recipes
from vectile.recipes.run import Run, run_recipe

__all__ = ["Option", "Recipe", "Run", "find", "recipe", "recipes", "run_recipe"]
