"""Methods on perturbed videos: objects found again after an occlusion, labels swapped in a crowd.

    onemask perturb DAVIS --split dev --out MADE
    python benchmarks/perturbed.py MADE --out out/made --variant frtm-lite --variant 'old: ttvos-lite returns=false'

Prints one table as Markdown. What is finished in --out is not run again. Results: benchmarks/perturbed.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onemask.data.perturbed import SPLITS
from onemask.evaluation.compare import Variant
from onemask.evaluation.evaluate import evaluate
from onemask.settings import Settings


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="MADE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", action="append", required=True, help="'[LABEL:] METHOD [NAME=VALUE ...]'")
    parser.add_argument("--splits", default=",".join(SPLITS))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    splits = options.splits.split(",")
    print("| method |", " | ".join(f"{split}: J&F | {_events_of(split)}" for split in splits), "|")
    print("|---|", "---:|" * 2 * len(splits), sep="")
    for text in options.variant:
        variant = Variant.parse(text, Settings(device=options.device))
        cells = []
        for split in splits:
            out = options.out / split / variant.folder
            evaluation = evaluate(options.root, out, variant.settings, protocol="davis2017", split=split, resume=True)
            scores = evaluation.scores
            events = scores.events
            said = (
                f"{events.found} of {events.returns}"
                if split == "occluded"
                else f"{events.swaps} ({events.swapped_frames})"
            )
            cells += [f"{100 * scores.J_and_F:.1f}", said]
        print("|", " | ".join([f"`{variant.label}`", *cells]), "|", flush=True)


def _events_of(split: str) -> str:
    return "found again" if split == "occluded" else "label swaps (frames)"


if __name__ == "__main__":
    main()
