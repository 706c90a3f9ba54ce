"""`onemask train`."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..extras import how_to_install
from ..weights.card import as_typed
from .arguments import add_overwrite, add_resume, show

if TYPE_CHECKING:
    from ..training.recipe import Recipe


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask train`: train weights from a recipe."""
    train = commands.add_parser(
        "train",
        help="train a method from a recipe",
        description="Train a method, or the proposal network of DMN-AOA, from a recipe (see recipes/). Any value can "
        "be overridden: seed=1, stages.0.optimiser.lr=3e-4. `tensorboard --logdir DIR` shows the progress. Needs the "
        "extra `train`.",
    )
    train.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    train.add_argument("set", nargs="*", metavar="KEY=VALUE", help="override a value of the recipe")
    train.add_argument("--out", metavar="DIR", help="folder for weights, their cards, logs and checkpoints")
    train.add_argument(
        "--data", default=".", metavar="DIR", help="folder that holds the recipe's datasets (default: .)"
    )
    train.add_argument("--cache", metavar="DIR", help="folder for cached features (default: --out/cache)")
    train.add_argument("--preview", metavar="FILE", help="write a contact sheet of training clips and exit")
    add_resume(train)
    train.add_argument("--device", default="auto", help="cpu, cuda, mps, auto (default)")
    train.add_argument("--devices", default="auto", metavar="N", help="number of devices per host (default: all)")
    train.add_argument(
        "--hosts", type=int, default=1, metavar="N", help="number of hosts that `torchrun` starts (default: 1)"
    )
    add_overwrite(train)
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> None:
    try:
        from ..training.preview import preview
        from ..training.processes import is_first, is_first_of_host, told_once
        from ..training.recipe import read_recipe
        from ..training.train import Hardware, train
    except ModuleNotFoundError as error:
        raise InputError(f"training needs the package {error.name}: {how_to_install('train')}") from error
    with told_once(by=is_first_of_host):
        recipe = read_recipe(options.recipe, options.set)
    if options.preview:
        preview(recipe, options.preview, data=options.data, overwrite=options.overwrite)
        options.answer = {"preview": options.preview}
        print(f"training clips are in {options.preview}")
        return
    if not options.out:
        with told_once(by=is_first_of_host):
            raise InputError("training needs --out DIR, a folder for its weights and logs")
    trained = train(
        recipe,
        options.out,
        data=options.data,
        cache=options.cache,
        hardware=Hardware(options.device, options.devices, options.hosts),
        overwrite=options.overwrite,
        resume=options.resume,
        progress=partial(show, unit="step"),
    )
    options.answer, options.told_by_another = trained, not is_first()
    if options.told_by_another:
        return
    if trained.finished_before:
        print(f"{options.out} already holds the finished training")
    scores = ", ".join(f"{name} {value:.1f}" for name, value in trained.scores.items()) or "not validated"
    print(f"{trained.steps} steps, {100 * trained.waiting:.1f} % of their time spent waiting for data; {scores}")
    print(f"weights are in {trained.best}; use them with {_way_to_use(recipe)}")


def _way_to_use(recipe: Recipe) -> str:
    """The options of other commands that use what the recipe trained."""
    from ..training.recipe import needed_options

    if recipe.method == "maskrcnn-lite":
        return "--method dmn-aoa-lite --set proposals=FILE"
    needed = [f"--set {name}={as_typed(value)}" for name, value in needed_options(recipe).items()]
    return " ".join([f"--method {recipe.method}", *needed, "--weights FILE"])
