"""A training in a process of its own, as `torchrun` starts it: OUT DATA RECIPE."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from onemask.training.recipe import read_recipe
from onemask.training.train import Hardware, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    out, data, recipe = sys.argv[1:]
    train(read_recipe(Path(recipe)), out, data=data, hardware=Hardware("cpu"))
