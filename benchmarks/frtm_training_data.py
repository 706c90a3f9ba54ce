"""FRTM's table 4, by how much data the segmentation network is trained: three trainings, four evaluations, one command.

    python benchmarks/frtm_training_data.py DATA --out out/table4

DATA holds youtube-vos/ with train/, valid/ and the authors' list ImageSets/jjtrain.txt (docs/evaluation.md). FRTM
is trained on all of its videos, on every second and on every fourth, for as many steps each; the paper does not say
which half and quarter it took. The last row is the target model alone, for which nothing is trained. Each is run on the
videos of --split, and gets a ZIP for the benchmark's server, OUT/ROW.zip; where the annotations are there, as those of
a split of one's own (--split jjvalid), OUT/table.md has the scores, in percent.

What is finished in OUT is not done again, and an interrupted training or evaluation is gone on with. --set changes
the recipe, as `onemask train` has it, and --option the method that is evaluated:

    python benchmarks/frtm_training_data.py DATA --out out/quick --split jjvalid --set stages.0.iterations=500
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from onemask.evaluation.evaluate import evaluate
from onemask.files import write_bytes
from onemask.methods.options import parse_assignments
from onemask.settings import Settings
from onemask.training.processes import Hardware
from onemask.training.recipe import read_recipe
from onemask.training.train import train

RECIPE = Path(__file__).parents[1] / "recipes/frtm-youtube-vos.yaml"
SHARES = (100, 50, 25)  # percent of the videos
TARGET_ALONE = "D-only"
COLUMNS = ("G", "J-Seen", "J-Unseen", "F-Seen", "F-Unseen")
OF_ALL = ("J&F-Mean", "J-Mean", "F-Mean")  # where videos have no classes


def shown(items: Any, total: int | None, what: str) -> Iterator[Any]:
    with tqdm(items, total=total, desc=what, mininterval=30) as bar:
        yield from bar


def with_lists(dataset: Path, names: str, folder: Path) -> Path:
    """A dataset in `folder` that is the one given, with lists NAMES-SHARE of its list NAMES; nothing is copied."""
    videos = (dataset / "ImageSets" / f"{names}.txt").read_text(encoding="utf-8").split()
    (folder / "ImageSets").mkdir(parents=True, exist_ok=True)
    if not (folder / "train").exists():
        (folder / "train").symlink_to((dataset / "train").resolve(), target_is_directory=True)
    for share in SHARES:
        chosen = "\n".join(videos[:: 100 // share]) + "\n"
        write_bytes(folder / "ImageSets" / f"{names}-{share}.txt", chosen.encode())
    return folder


def trained_on(share: int, root: Path, names: str, arguments: argparse.Namespace) -> Path:
    """The weights of a training on that share of the videos, in percent."""
    assignments = [f"stages.0.data.0.root={root.resolve()}", f"stages.0.data.0.split={names}-{share}"]
    read = read_recipe(arguments.recipe, [*arguments.set, *assignments])
    return train(
        read, arguments.out / f"training-{share}", data=arguments.data, cache=arguments.out / "cache",
        hardware=Hardware("auto", arguments.devices), resume=True, progress=shown,
    ).best  # fmt: skip


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown, in percent."""
    columns = COLUMNS if all("G" in row for row in rows.values()) else OF_ALL
    lines = [f"| data | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for label, row in rows.items():
        lines.append(f"| {label} | {' | '.join(f'{100 * row[name]:.1f}' for name in columns)} |")
    return "\n".join(lines) + "\n"


def main(given: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the recipe")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the evaluated method")
    parser.add_argument("--split", default="valid", help="to evaluate on")
    parser.add_argument("--size", type=int, default=480, help="short side to evaluate at in pixels; 0: the frames' own")
    parser.add_argument("--devices", type=int, default=1, help="to train on")
    arguments = parser.parse_args(None if given is None else list(given))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe, options = read_recipe(arguments.recipe, arguments.set), parse_assignments(arguments.option)
    source = recipe.stages[0].data[0]
    dataset = arguments.data / source.root
    root, found = with_lists(dataset, source.split, arguments.out / "youtube-vos"), {}
    for share in (*SHARES, 0):
        row = f"{share}%" if share else TARGET_ALONE
        weights = trained_on(share, root, source.split, arguments) if share else None
        settings = Settings(
            recipe.method,
            options if share else options | {"target_only": "true"},
            weights,
            short_side=arguments.size or None,
        )
        place = arguments.out / (f"evaluation-{share}" if share else "evaluation-target")
        judged = evaluate(
            dataset, place, settings, protocol="youtube-vos", split=arguments.split, resume=True, progress=shown,
            submission=arguments.out / f"{share or TARGET_ALONE}.zip",
        )  # fmt: skip
        found[row] = judged.scores.figures if judged.scores.rows else {}
        print(judged.table())
    if any(found.values()):
        write_bytes(arguments.out / "table.md", table(found).encode())
        print(table(found))
    else:
        print(f"annotations of {arguments.split} are not there: submit the ZIPs in {arguments.out}")


if __name__ == "__main__":
    main()
