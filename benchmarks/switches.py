"""Ablation tables: one training per row of a paper's table, equal except for the row's values.

A file of rows names a recipe, values that all rows share, and each row's own:

    recipe: ../../recipes/ttvos-lite.yaml
    common: [stages.0.iterations=400]
    rows:
      whole: []
      no update: [options.update=false]

    python benchmarks/switches.py benchmarks/switches/ttvos.yaml --data DATA --out out/ttvos [--seeds 6 ...]

Of a recipe the first stage alone is trained. Rows that are finished in OUT are not trained again; an interrupted one
is resumed. Features of clips are cached once for all rows that agree on them. OUT/table.md holds the scores of the
recipe's validation, in percent: those after the last step, if `validation.every` is the number of steps. `--seeds`
trains every row again with other seeds, and so with other clips; the scores are then means over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from tqdm import tqdm

from onemask.files import write_bytes
from onemask.training.folder import TrainingFolder
from onemask.training.processes import Hardware
from onemask.training.recipe import read_recipe
from onemask.training.train import train
from onemask.weights.store import described

MEASURES = ("J&F", "J", "F")


def shown(items: Any, total: int | None, what: str) -> Iterator[Any]:
    with tqdm(items, total=total, desc=what, mininterval=30) as bar:
        yield from bar


def scores_of(row: Path, recipe: Path, assignments: list[str], data: Path, cache: Path) -> dict[str, float]:
    """The scores of a row's weights in percent, by measure; trained where that was not done, on the first stage."""
    folder = TrainingFolder(row)
    if not folder.weights("last").exists():
        read = read_recipe(recipe, assignments)
        train(
            replace(read, stages=read.stages[:1]), row, data=data, cache=cache, hardware=Hardware("auto", 1),
            resume=True, progress=shown,
        )  # fmt: skip
    return {name.split()[-1]: value for name, value in described(folder.weights("best")).scores.items()}


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Markdown, of the scores by seed; the difference in J&F is that to the first row, seed by seed."""
    lines = ["| row | J&F | J | F | difference | J&F by seed |", "|---|---:|---:|---:|---:|---|"]
    firsts = next(iter(rows.values()))
    for name, of_seeds in rows.items():
        means = [fmean(scores[measure] for scores in of_seeds) for measure in MEASURES]
        difference = fmean(scores["J&F"] - first["J&F"] for scores, first in zip(of_seeds, firsts, strict=False))
        by_seed = ", ".join(f"{scores['J&F']:.1f}" for scores in of_seeds)
        lines.append(f"| {name} | {' | '.join(f'{mean:.1f}' for mean in means)} | {difference:+.1f} | {by_seed} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the rows")
    parser.add_argument("--data", type=Path, default=Path(), help="what the recipe's folders are relative to")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="of features; default: OUT/cache")
    parser.add_argument("--only", help="some of the rows: beginnings of their names, with commas between")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="besides the recipe's own")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asked = yaml.safe_load(arguments.file.read_text(encoding="utf-8"))
    wanted = tuple(arguments.only.split(",")) if arguments.only else ("",)
    chosen = [name for name in asked["rows"] if name.startswith(wanted)]
    found: dict[str, list[dict[str, float]]] = {}
    for seed, name in itertools.product([None, *arguments.seeds], chosen):
        row, values = re.sub(r"\W+", "-", name), [*asked["common"], *asked["rows"][name]]
        scores = scores_of(
            arguments.out / (row if seed is None else f"{row}-seed-{seed}"), arguments.file.parent / asked["recipe"],
            values if seed is None else [*values, f"seed={seed}"], arguments.data,
            arguments.cache or arguments.out / "cache",
        )  # fmt: skip
        found.setdefault(name, []).append(scores)
        write_bytes(arguments.out / "table.md", table(found).encode())
        print(table(found))


if __name__ == "__main__":
    main()
