"""A training from its recipe to weights that run: it learns, it can be killed, it can be split over processes."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import SIZE, TINY, a_recipe, history, losses, stage, write_davis, write_recipe
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import onemask.methods
from onemask.cli import main
from onemask.data.mixture import Mixture
from onemask.errors import InputError, Interrupted, OnemaskError, OutputError
from onemask.evaluation.evaluate import evaluate
from onemask.jobs.results import ResultFolder
from onemask.methods import configuration
from onemask.settings import Settings
from onemask.training import train as training
from onemask.training.folder import TrainingFolder
from onemask.training.log import Log
from onemask.training.recipe import ValidationConfig, read_recipe
from onemask.training.train import Hardware, train
from onemask.training.unroll import Unroll
from onemask.training.validation import VideoValidator
from onemask.video.masks import write_mask
from onemask.weights.store import card_of, check, read

CPU = Hardware("cpu")
VALIDATION = {"root": "davis", "split": "dev", "short_side": 64, "every": 3}


def run(recipe, out: Path, data: Path, **options) -> training.Trained:
    return train(recipe, out, data=data, hardware=CPU, **options)


def forked(act) -> multiprocessing.Process:
    """A process that has all modules already, and so begins at once."""
    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    return process


def killed_in(step: int, recipe, out: Path, data: Path) -> None:
    """A training that gets SIGKILL after a step."""
    take = training.Training._step

    def take_and_die(self, *arguments):
        take(self, *arguments)
        if self.reached.steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def act():
        training.Training._step = take_and_die
        run(recipe, out, data)

    process = forked(act)
    process.join()  # with a time limit it would wait for the training's own workers too, for five seconds
    assert process.exitcode == -signal.SIGKILL


def by_two(act: Callable[[], object]) -> list[int | None]:
    """What two processes that train together end with, started as torchrun starts them; none waits for ever."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of_rank(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"TORCHELASTIC_RUN_ID": "test", "GLOO_SOCKET_IFNAME": "lo"}
        act()

    processes = [forked(partial(of_rank, rank)) for rank in range(2)]
    for process in processes:
        process.join(300)
        process.kill()
    return [process.exitcode for process in processes]


def refused_by_two(act: Callable[[], object], error: type[Exception], told: str) -> bool:
    """Whether each of two processes that train together refuses, as `told`."""

    def refused() -> None:
        try:
            act()
        except error as refusal:
            os._exit(7 if re.search(told, str(refusal)) else 8)

    return by_two(refused) == [7, 7]


def state(path: Path) -> dict[str, torch.Tensor]:
    return read(path)


class TestLearning:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_the_loss_falls(self, tmp_path, data, precision):
        recipe = a_recipe(tmp_path, stage(iterations=25, distinct=2, cache=True), precision=precision)
        trained = run(recipe, tmp_path / "out", data)
        curve = losses(tmp_path / "out")
        assert trained.steps == 25
        assert curve[-3:].mean() < 0.7 * curve[:3].mean()

    def test_losses_are_weighed(self, tmp_path, data):
        of_recipe = {"cross_entropy": 2.0, "soft_jaccard": 0.5, "binary_cross_entropy": 1.0}
        recipe = a_recipe(tmp_path, stage(iterations=2, losses=of_recipe))
        run(recipe, tmp_path / "out", data)
        for line in history(tmp_path / "out"):
            assert line["loss"] == pytest.approx(sum(weight * line[name] for name, weight in of_recipe.items()))
            assert line["gradient"] > 0
            assert line["lr"] == 3e-3

    def test_only_the_seed_decides(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=2))
        for name in ("one", "two"):
            torch.rand(len(name) + (name == "one"))  # what was drawn before has no part in it
            run(recipe, tmp_path / name, data)
        other = a_recipe(tmp_path, stage(iterations=2), seed=4)
        run(other, tmp_path / "other", data)
        assert np.array_equal(losses(tmp_path / "one"), losses(tmp_path / "two"))
        assert not np.allclose(losses(tmp_path / "one"), losses(tmp_path / "other"))

    def test_parts_of_a_batch_are_the_batch(self, tmp_path, data):
        for name, accumulate in (("whole", 1), ("parts", 2)):
            values = {"batch": 4, "iterations": 3, "accumulate": accumulate, "clip_gradient": 1.0}
            run(a_recipe(tmp_path, stage(**values)), tmp_path / name, data)
        assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)

    def test_a_cache_changes_little(self, tmp_path, data):
        for name, cache in (("live", False), ("kept", True)):
            run(a_recipe(tmp_path, stage(distinct=4, cache=cache, iterations=4)), tmp_path / name, data)
        assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "live"), rel=5e-3)

    def test_a_clipped_gradient(self, tmp_path, data):
        optimiser = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
        recipe = a_recipe(tmp_path, stage(iterations=1, clip_gradient=1e-3, optimiser=optimiser))
        run(recipe, tmp_path / "out", data)
        torch.manual_seed(recipe.seed)
        before = configuration("frtm-lite", TINY).build().state_dict()
        last = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["network"]
        moved = sum(float(((last[name] - before[name]).float() ** 2).sum()) for name in last) ** 0.5
        assert history(tmp_path / "out")[0]["gradient"] > 1e-3
        assert moved == pytest.approx(1e-3, rel=1e-2)

    def test_what_is_not_finite_stops_it(self, tmp_path, data):
        optimiser = {"name": "sgd", "lr": 1e30}
        recipe = a_recipe(tmp_path, stage(optimiser=optimiser))
        with pytest.raises(InputError, match="the loss or its gradient is not finite in step"):
            run(recipe, tmp_path / "out", data)
        assert history(tmp_path / "out")  # the steps before are told

    def test_batch_norm_measures_in_the_stage_that_says_so(self, tmp_path, data):
        part, rates = "backbone.network.blocks.1", {"lr": 1e-3, "groups": {"backbone.network.blocks.1": 1}}
        stages = stage(iterations=1, optimiser=rates), stage(iterations=1, optimiser=rates, batch_norm=[part])
        run(a_recipe(tmp_path, *stages), tmp_path / "out", data)
        run(a_recipe(tmp_path, *stages[:1]), tmp_path / "first", data)
        after, before = (state(tmp_path / out / "last.safetensors") for out in ("out", "first"))
        changed = {n for n in before if n.endswith("running_mean") and not torch.equal(after[n], before[n])}
        assert changed == {n for n in before if n.endswith("running_mean") and n.startswith(part)}

    def test_a_stage_trains_what_it_says(self, tmp_path, data):
        """The first stage trains the backbone, with batch norm frozen; the second does not."""
        whole = stage(iterations=2, optimiser={"lr": 1e-3, "groups": {"backbone": 0.1}})
        seen = []

        def watch(items, total, what):
            for item in items:
                yield item
                seen.append({k: v.clone() for k, v in training_of[0].network.state_dict().items()})

        training_of: list[training.Training] = []
        built = training.Training.__init__

        def keep(self, *arguments):
            built(self, *arguments)
            training_of.append(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.Training, "__init__", keep)
            run(a_recipe(tmp_path, whole, stage(iterations=2)), tmp_path / "out", data, progress=watch)
        changed = [
            {name for name in after if not torch.equal(after[name], before[name])} for before, after in pairwise(seen)
        ]
        assert any(name.startswith("backbone.") for name in changed[0])
        assert not any("running" in name for name in changed[0])
        assert any(name.startswith("network.") for name in changed[2])
        assert not any(name.startswith("backbone.") for name in changed[2])

    def test_a_later_stage_has_clips_and_random_numbers_of_its_own(self, tmp_path, data, monkeypatch):
        clips, seeds = [], []
        make, forward = Mixture.clip, Unroll.forward

        def counted(self, number, request):
            clips.append(number)
            return make(self, number, request)

        def seeded(self, *arguments):
            seeds.append(torch.initial_seed())
            return forward(self, *arguments)

        monkeypatch.setattr(Mixture, "clip", counted)
        monkeypatch.setattr(Unroll, "forward", seeded)
        run(a_recipe(tmp_path, stage(iterations=2), stage(name="second", iterations=2)), tmp_path / "out", data)
        assert clips == list(range(8))
        assert len(set(seeds)) == 4

    def test_no_graph_is_kept(self, tmp_path, data):
        counts = []

        def watch(items, total, what):
            for item in items:
                yield item
                gc.collect()
                counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))

        run(a_recipe(tmp_path, stage(iterations=4), picture_every=1), tmp_path / "out", data, progress=watch)
        assert counts[-1] <= counts[1]


class TestWhatIsWritten:
    def test_weights_that_run(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(), validation=VALIDATION, average=0.5, note="of moving shapes")
        trained = run(recipe, tmp_path / "out", data)
        assert trained.best == tmp_path / "out" / "best.safetensors"
        lines = history(tmp_path / "out")
        scores = [line["J&F"] for line in lines if "J&F" in line]
        assert [line["step"] for line in lines if "J&F" in line] == [3, 6]
        assert trained.scores["dev J&F"] == pytest.approx(100 * max(scores), abs=0.01)
        for name in ("best", "last"):
            card = check(tmp_path / "out" / f"{name}.safetensors")
            assert card.method == "frtm-lite"
            assert card.architecture["width"] == TINY["width"]
            assert card.data == ["davis2017 davis fit"]
            assert "minimum_pixels: 20" in card.recipe["text"]
            assert card.notes == "of moving shapes"
        assert card_of(trained.best).scores == trained.scores

        method = onemask.methods.load("frtm-lite", weights=trained.best, **TINY)
        running = configuration("frtm-lite", TINY).build(pretrained=False)
        again = VideoValidator(ValidationConfig(**VALIDATION), data, running)(method)
        assert again.criterion == pytest.approx(max(scores), abs=0.01)
        settings = Settings("frtm-lite", TINY, trained.best, short_side=64, device="cpu")
        evaluation = evaluate(data / "davis", tmp_path / "evaluated", settings, split="dev")
        assert evaluation.scores.J_and_F == pytest.approx(max(scores), abs=0.01)

    def test_the_card_names_all_data(self, tmp_path, make_frtm):
        sources = [
            {"kind": "stills", "root": "a", "cutouts": "b", "turntable": "c"},
            {"kind": "stills", "root": "d", "turntable": "c"},
        ]
        recipe = a_recipe(tmp_path, stage(data=sources))
        TrainingFolder(tmp_path / "out").save("last", make_frtm(), recipe, {}, "")
        assert card_of(tmp_path / "out/last.safetensors").data == ["stills a with b and c", "stills d with c"]

    def test_the_best_are_kept(self, tmp_path, data, monkeypatch):
        given = iter([0.3, 0.9, 0.5])
        monkeypatch.setattr(VideoValidator, "scores", lambda self, *_: np.full((1, 2), next(given)))
        kept = {}
        save = training.TrainingFolder.save

        def note(self, name, method, *arguments):
            kept.setdefault(name, []).append({k: v.clone() for k, v in method.state_dict().items()})
            save(self, name, method, *arguments)

        monkeypatch.setattr(training.TrainingFolder, "save", note)
        recipe = a_recipe(tmp_path, stage(iterations=6), validation={**VALIDATION, "every": 2})
        trained = run(recipe, tmp_path / "out", data)
        assert trained.scores == {"dev J&F": 90.0, "dev J": 90.0, "dev F": 90.0}
        assert len(kept["best"]) == 2
        best, last = state(trained.best), state(tmp_path / "out" / "last.safetensors")
        assert torch.allclose(best["network.head.0.weight"], kept["best"][1]["network.head.0.weight"], atol=1e-3)
        assert not torch.equal(best["network.head.0.weight"], last["network.head.0.weight"])

    def test_without_validation_the_last_are_the_best(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        best, last = ((tmp_path / "out" / f"{name}.safetensors").read_bytes() for name in ("best", "last"))
        assert best == last

    def test_the_moving_average_is_what_is_kept(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=2), average=0.75), tmp_path / "out", data)
        at_step = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
        run(a_recipe(tmp_path, stage(iterations=2)), tmp_path / "plain", data)
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "one", data)
        name = "network.head.0.weight"
        # After the first step the average is the weights; the second moves it most of the way, as it is the second.
        after_one, after_two = torch.load(tmp_path / "one/checkpoint.pt")["network"][name], at_step["network"][name]
        assert not torch.allclose(after_one, after_two, atol=1e-4)
        expected = 2 / 11 * after_one + 9 / 11 * after_two
        assert torch.allclose(at_step["average"][f"module.{name}"], expected, atol=1e-6)
        last = state(tmp_path / "out" / "last.safetensors")[name]
        assert torch.allclose(last, at_step["average"][f"module.{name}"], atol=1e-3 * last.abs().max())
        assert torch.equal(at_step["network"][name], torch.load(tmp_path / "plain/checkpoint.pt")["network"][name])

    def test_nothing_beside_its_folder(self, tmp_path, data):
        before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
        recipe = a_recipe(tmp_path, stage(iterations=1, distinct=2, cache=True), validation=VALIDATION)
        run(recipe, tmp_path / "out", data, cache=tmp_path / "cache")
        assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
        assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out", "cache"}
        written = {".onemask", "recipe.yaml", "history.jsonl", "log", "checkpoint.pt"}
        weights = {f"{name}.{suffix}" for name in ("best", "last") for suffix in ("safetensors", "json")}
        assert {path.name for path in (tmp_path / "out").iterdir()} == written | weights
        assert read_recipe(tmp_path / "out" / "recipe.yaml") == recipe

    def test_tensorboard(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=4), picture_every=2, validation=VALIDATION)
        run(recipe, tmp_path / "out", data)
        board = EventAccumulator(str(tmp_path / "out" / "log"))
        board.Reload()
        assert [event.value for event in board.Scalars("train/loss")] == pytest.approx(losses(tmp_path / "out"))
        assert all(0 <= event.value <= 1 for event in board.Scalars("time/waiting"))
        assert [event.step for event in board.Scalars("validation/J&F")] == [3, 4]
        assert [event.step for event in board.Images("clips")] == [2, 4]

    def test_validation_runs_the_method_with_options_of_its_own(self, tmp_path, data, make_frtm):
        method, running = make_frtm().train(), make_frtm(seed=1, capacity=5)
        modes = [module.training for module in method.modules()]
        one = VideoValidator(ValidationConfig(**VALIDATION), data, running)(method)
        assert [module.training for module in method.modules()] == modes
        assert all(torch.equal(tensor, running.state_dict()[name]) for name, tensor in method.state_dict().items())
        assert one == VideoValidator(ValidationConfig(**VALIDATION), data, make_frtm(capacity=5))(method)
        with pytest.raises(InputError, match="change the network"):
            a_recipe(tmp_path, validation={**VALIDATION, "options": {"width": 16}})


STAGES = (stage(iterations=3, losses={"bootstrapped_cross_entropy": 1}), stage(name="second", iterations=3))
VALUES = {"average": 0.9, "checkpoint_every": 2, "validation": VALIDATION}
LATE = VALUES | {"checkpoint_every": 1}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(a_recipe(folder, *STAGES, **VALUES), folder / "out", data)
    return folder / "out"


@pytest.fixture(scope="module")
def late(tmp_path_factory, data) -> Path:
    """A training that was killed with its last step; no test changes it."""
    folder = tmp_path_factory.mktemp("late")
    killed_in(6, a_recipe(folder, *STAGES, **LATE), folder / "out", data)
    return folder / "out"


class TestGoingOn:
    def the_same(self, out: Path, uninterrupted: Path) -> None:
        assert losses(out) == pytest.approx(losses(uninterrupted), abs=1e-6)
        scores = [[line["J&F"] for line in history(each) if "J&F" in line] for each in (out, uninterrupted)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        for name in ("best", "last"):
            one, other = state(out / f"{name}.safetensors"), state(uninterrupted / f"{name}.safetensors")
            assert all(torch.allclose(one[key], other[key], atol=1e-6) for key in other)

    @pytest.mark.parametrize(
        "step",
        [
            1,  # before the first checkpoint
            3,  # a step after one
            6,  # in the second stage
        ],
    )
    def test_killed(self, tmp_path, data, uninterrupted, step):
        path = write_recipe(tmp_path, *STAGES, **VALUES)
        killed_in(step, read_recipe(path, ["workers=1"]), tmp_path / "out", data)
        run(read_recipe(path), tmp_path / "out", data, resume=True)
        self.the_same(tmp_path / "out", uninterrupted)

    @pytest.mark.parametrize("step", [1, 3])  # within a stage, and with its last step
    def test_interrupted(self, tmp_path, data, uninterrupted, step):
        recipe = a_recipe(tmp_path, *STAGES, **VALUES)

        def press(items, total, what):
            for number, item in enumerate(items, 1):
                if what == "main" and number == step:
                    os.kill(os.getpid(), signal.SIGINT)
                yield item

        with pytest.raises(Interrupted, match=r"stopped after .*main; --resume continues"):
            run(recipe, tmp_path / "out", data, progress=press)
        assert len(losses(tmp_path / "out")) == step
        run(recipe, tmp_path / "out", data, resume=True)
        self.the_same(tmp_path / "out", uninterrupted)

    def test_interrupted_while_features_are_kept(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(distinct=4, cache=True, iterations=2))

        def press(items, total, what):
            for item in items:
                yield item
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted, match="stopped while caching features"):
            run(recipe, tmp_path / "out", data, progress=press)
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cache").rglob("*.safetensors")}
        assert 1 <= len(kept) < 4
        run(recipe, tmp_path / "out", data, resume=True)
        assert all(path.stat().st_mtime_ns == made for path, made in kept.items())
        assert len(losses(tmp_path / "out")) == 2

    def test_what_is_finished_is_left_alone(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=2), validation=VALIDATION)
        first = run(recipe, tmp_path / "out", data)
        before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.*") if path.is_file()}
        second = run(recipe, tmp_path / "out", data, resume=True)
        assert second == replace(first, finished_before=True)
        assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.*") if path.is_file()} == before

    def test_lines_that_were_written_too_early_or_by_half(self, tmp_path, data, uninterrupted):
        path = write_recipe(tmp_path, *STAGES, **VALUES)
        recipe = read_recipe(path)
        killed_in(3, recipe, tmp_path / "out", data)
        with (tmp_path / "out" / "history.jsonl").open("a") as file:
            file.write(json.dumps({"step": 3, "loss": 5.0}) + '\n{"step": 4, "lo')
        run(recipe, tmp_path / "out", data, resume=True)
        self.the_same(tmp_path / "out", uninterrupted)

    def test_a_damaged_checkpoint(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        run(recipe, tmp_path / "out", data)
        (tmp_path / "out" / "checkpoint.pt").write_bytes(b"not one")
        with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read .*; start over with --overwrite"):
            run(recipe, tmp_path / "out", data, resume=True)

    @pytest.mark.parametrize("change", ["a shape", "a name", "a part", "the optimiser", "how far it came"])
    def test_a_checkpoint_that_an_upgrade_no_longer_fits(self, tmp_path, data, late, change):
        shutil.copytree(late, tmp_path / "out")
        folder = TrainingFolder(tmp_path / "out")
        found = torch.load(folder.checkpoint, weights_only=True)
        name = next(iter(found["network"]))
        if change == "a shape":
            found["network"][name] = torch.zeros(7)
        elif change == "a name":
            found["network"]["formerly"] = found["network"].pop(name)
        elif change == "a part":
            del found["network"]
        elif change == "the optimiser":
            found["optimiser"]["param_groups"] *= 2
        else:
            found["reached"]["epoch"] = 1
        folder.write_checkpoint(found)
        told = (
            r"the checkpoint in .*out does not fit what this version of onemask trains \(.*\); resume with the version "
            "that began the training, or start over with --overwrite"
        )
        with pytest.raises(InputError, match=told) as refusal:
            run(a_recipe(tmp_path, *STAGES, **LATE), tmp_path / "out", data, resume=True)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        "line", [b'{"step": 2, "lo', b"\x00" * 20, b"\xff{}", b"[2]", b'{"loss": 1}', b'{"step": null}']
    )
    @pytest.mark.parametrize("place", [0, 1, 3])
    def test_unreadable_lines_of_the_history_are_left_out(self, tmp_path, caplog, line, place):
        lines = [json.dumps({"step": step}).encode() for step in (1, 2, 3)]
        lines.insert(place, line)
        (tmp_path / "history.jsonl").write_bytes(b"".join(each + b"\n" for each in lines))
        Log(tmp_path).forget_after(2)
        assert [each["step"] for each in history(tmp_path)] == [1, 2]
        assert "history.jsonl: 1 unreadable lines are left out" in caplog.text

    @pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
    def test_a_damaged_checkpoint_gives_way_to_the_one_before(
        self, tmp_path, data, uninterrupted, late, damage, caplog
    ):
        shutil.copytree(late, tmp_path / "out")
        checkpoint = tmp_path / "out" / "checkpoint.pt"
        content = bytearray(checkpoint.read_bytes())
        if damage == "gone":  # killed between the two renamings
            checkpoint.unlink()
        else:
            content[len(content) // 2] ^= 1
            checkpoint.write_bytes(content if damage == "a bit" else content[: len(content) // 2])
        run(a_recipe(tmp_path, *STAGES, **LATE), tmp_path / "out", data, resume=True)
        assert ("training continues from the one before" in caplog.text) == (damage != "gone")
        self.the_same(tmp_path / "out", uninterrupted)

    def test_of_an_earlier_version(self, tmp_path, data, uninterrupted):
        """What it asked for was written down by keys that have other names now, and one key was not there."""
        killed_in(3, a_recipe(tmp_path, *STAGES, **LATE), tmp_path / "out", data)
        record = tmp_path / "out/.onemask/asked.json"
        asked = json.loads(record.read_text())
        asked["asked"]["options"]["memory"] = asked["asked"]["options"].pop("capacity")
        del asked["asked"]["held_out"]
        for staged in asked["asked"]["stages"].values():
            assert "share_each" not in staged["data"]["0"]  # which came later, and is only named where it acts
            staged["optimiser"]["rate"] = staged["optimiser"].pop("lr")
        record.write_text(json.dumps(asked))
        run(a_recipe(tmp_path, *STAGES, **LATE), tmp_path / "out", data, resume=True)
        self.the_same(tmp_path / "out", uninterrupted)

    def test_a_checkpoint_that_was_damaged_anywhere(self, tmp_path):
        """Written with the keys of earlier versions, which are still read."""
        folder = TrainingFolder(tmp_path)
        folder.write_checkpoint({"place": {"step": 3}, "method": {"weight": torch.arange(500.0)}})
        whole, rng = folder.checkpoint.read_bytes(), random.Random(0)
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            folder.checkpoint.write_bytes(damaged)
            with contextlib.suppress(InputError):
                found = folder.read_checkpoint()  # the byte was of no account
                assert found is not None
                assert torch.equal(found["network"]["weight"], torch.arange(500.0))
                assert found["reached"] == {"step": 3}

    def test_a_full_disk_keeps_what_was_there(self, tmp_path, monkeypatch):
        folder = TrainingFolder(tmp_path)
        folder.write_checkpoint({"step": 1})
        folder.write_checkpoint({"step": 2})

        def full(path, mode):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("onemask.files.open", full, raising=False)
        with pytest.raises(OutputError, match=r"checkpoint\.pt could not be written: No space left on device; free"):
            folder.write_checkpoint({"step": 3})
        assert folder.read_checkpoint() == {"step": 2}


class TestRefusals:
    def test_a_folder_that_holds_something(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        run(recipe, tmp_path / "out", data)
        (tmp_path / "out" / "best.safetensors").write_bytes(b"of before")
        with pytest.raises(OutputError, match="exists already"):
            run(recipe, tmp_path / "out", data)
        run(recipe, tmp_path / "out", data, overwrite=True)
        assert len(losses(tmp_path / "out")) == 1
        check(tmp_path / "out" / "best.safetensors")

    @pytest.mark.parametrize("processes", [1, 2])
    def test_parameters_that_no_loss_reaches(self, tmp_path, data, processes):
        """On one device they would stay as they began, several would wait for their gradients for ever."""
        path = write_recipe(tmp_path, stage(iterations=2), options={**TINY, "transition": True})
        told = (
            r"stages\.0 trains network\.transition\.weight \(and 1 more\), but its losses give it no gradient; add a "
            r"loss that does, or leave it as it is with optimiser\.groups: \{network\.transition: 0\}"
        )
        recipe = read_recipe(path)
        if processes == 1:
            with pytest.raises(InputError, match=told):
                run(recipe, tmp_path / "out", data)
        else:
            assert refused_by_two(lambda: run(recipe, tmp_path / "out", data), InputError, told)
        frozen = stage(iterations=1, optimiser={"groups": {"network.transition": 0}})
        run(a_recipe(tmp_path, frozen, options={**TINY, "transition": True}), tmp_path / "out", data)

    def test_one_that_is_refused_in_its_first_step_leaves_nothing(self, tmp_path, data):
        unreached = {**TINY, "transition": True}
        with pytest.raises(InputError, match="give it no gradient"):
            run(a_recipe(tmp_path, stage(iterations=1), options=unreached), tmp_path / "out", data)
        assert not (tmp_path / "out").exists()
        (tmp_path / "mine").mkdir()  # a folder of the user's own stays
        with pytest.raises(InputError, match="give it no gradient"):
            run(a_recipe(tmp_path, stage(iterations=1), options=unreached), tmp_path / "mine" / "new" / "out", data)
        assert list((tmp_path / "mine").iterdir()) == []
        (tmp_path / "out").mkdir()
        with pytest.raises(InputError, match="give it no gradient"):
            run(a_recipe(tmp_path, stage(iterations=1), options=unreached), tmp_path / "out", data)
        assert list((tmp_path / "out").iterdir()) == []
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)

    def test_one_that_is_refused_in_its_first_step_leaves_its_cache(self, tmp_path, data):
        unreached, cached = {**TINY, "transition": True}, stage(distinct=2, cache=True, iterations=1)
        with pytest.raises(InputError, match="give it no gradient"):
            run(a_recipe(tmp_path, cached, options=unreached), tmp_path / "out", data)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["cache"]
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cache").rglob("*.safetensors")}
        assert len(kept) == 2
        frozen = cached | {"optimiser": {"groups": {"network.transition": 0}}}
        run(a_recipe(tmp_path, frozen, options=unreached), tmp_path / "out", data)
        assert all(path.stat().st_mtime_ns == made for path, made in kept.items())

    def test_one_that_is_refused_later_keeps_what_it_has(self, tmp_path, data, monkeypatch):
        """Resumed, and refused in the first step after that."""
        recipe, out = a_recipe(tmp_path, stage(iterations=4), checkpoint_every=1), tmp_path / "out"
        killed_in(2, recipe, out, data)
        before = (out / "checkpoint.pt").read_bytes()

        def refuse(self, *arguments):
            raise InputError("the data do not fit")

        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "_step", refuse)
            with pytest.raises(InputError, match="the data do not fit"):
                run(recipe, out, data, resume=True)
        assert (out / "checkpoint.pt").read_bytes() == before
        with pytest.raises(OutputError, match="a training that was interrupted; pass --resume or --overwrite"):
            run(recipe, out, data)
        run(recipe, out, data, resume=True)
        assert len(losses(out)) == 4

    @pytest.mark.parametrize("resume", [False, True])
    def test_one_that_was_killed_in_its_first_step_is_not_in_the_way(self, tmp_path, data, resume):
        out = tmp_path / "out"

        def act():
            training.Training._step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            run(a_recipe(tmp_path, stage(iterations=1, batch=4)), out, data)

        process = forked(act)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (out / "recipe.yaml").exists()
        (out / "notes.txt").write_text("the user's")
        with pytest.raises(OutputError, match="exists already"):
            run(a_recipe(tmp_path, stage(iterations=1)), out, data, resume=resume)
        (out / "notes.txt").unlink()
        written = (out / "recipe.yaml").read_text()
        (out / "recipe.yaml").write_text(written + "# the user's\n")
        with pytest.raises(OutputError, match=r"recipe\.yaml was changed since onemask wrote it"):
            run(a_recipe(tmp_path, stage(iterations=1)), out, data, resume=resume)
        (out / "recipe.yaml").write_text(written)
        run(a_recipe(tmp_path, stage(iterations=1)), out, data, resume=resume)
        assert len(losses(out)) == 1

    def test_a_recipe_of_the_users_own_in_the_folder_is_not_taken_for_a_trainings(self, tmp_path, data):
        """As `onemask train MINE/recipe.yaml --out MINE --resume` has it; --resume also starts a training."""
        out = tmp_path / "out"
        out.mkdir()
        path = write_recipe(out, stage(iterations=1), options={**TINY, "transition": True})
        path.write_text("# mine\n" + path.read_text())
        written = path.read_text()
        with pytest.raises(OutputError, match="exists already; choose another place"):
            run(read_recipe(path), out, data, resume=True)
        with pytest.raises(OutputError, match=r"recipe\.yaml is not onemask's"):
            run(read_recipe(path), out, data, overwrite=True)
        assert path.read_text() == written

    @pytest.mark.parametrize("resume", [False, True])
    def test_results_of_another_kind_are_not_taken_for_a_training_without_a_step(self, tmp_path, data, resume):
        out = tmp_path / "out"
        other = ResultFolder(out, "a run", ("run.json",))
        with other.opened({"method": "frtm"}, overwrite=False, resume=False), other.writing("run.json") as path:
            path.write_text("{}")
        asked = (out / ".onemask" / "asked.json").read_text()
        with pytest.raises(OutputError, match="holds a run, not a training; choose another place"):
            run(a_recipe(tmp_path, stage(iterations=1)), out, data, resume=resume)
        assert (out / "run.json").read_text() == "{}"
        assert (out / ".onemask" / "asked.json").read_text() == asked

    def test_nothing_but_its_own_is_removed(self, tmp_path, data):
        recipe, weights = a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out" / "best.safetensors"
        weights.parent.mkdir()
        weights.write_bytes(b"a week of training")
        with pytest.raises(OutputError, match=r"best\.safetensors is not onemask's, so --overwrite does not remove"):
            run(recipe, tmp_path / "out", data, overwrite=True)
        assert weights.read_bytes() == b"a week of training"

    def test_one_process_at_a_time(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        folder = training.TrainingFolder(tmp_path / "out")
        with (
            folder.opened(recipe, "", overwrite=False, resume=False),
            pytest.raises(OutputError, match="has been in use by process"),
        ):
            run(recipe, tmp_path / "out", data, resume=True)

    def test_resuming_begins_goes_on_and_then_says_that_all_is_done(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        assert not run(recipe, tmp_path / "out", data, resume=True).finished_before
        assert run(recipe, tmp_path / "out", data, resume=True).finished_before

    def test_a_training_of_a_version_without_a_manifest_is_gone_on_with(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        run(recipe, tmp_path / "out", data)
        shutil.rmtree(tmp_path / "out" / ".onemask")
        with pytest.raises(OutputError, match="exists already"):
            run(recipe, tmp_path / "out", data)
        assert run(recipe, tmp_path / "out", data, resume=True).finished_before

    def test_data_that_changed(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        own = tmp_path / "data"
        shutil.copytree(data, own)
        run(recipe, tmp_path / "out", own)
        picture = min(own.rglob("*.jpg"))
        with Image.open(picture) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
        with pytest.raises(InputError, match=r"pictures of the training data have changed since .*out was started"):
            run(recipe, tmp_path / "out", own, resume=True)
        run(recipe, tmp_path / "out", own, overwrite=True)

    def test_a_list_of_videos_that_changed(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1))
        shutil.copytree(data, tmp_path / "data")
        run(recipe, tmp_path / "out", tmp_path / "data")
        videos = tmp_path / "data/davis/ImageSets/2017/fit.txt"
        videos.write_text(videos.read_text().splitlines()[0])
        with pytest.raises(InputError, match=r"lists of videos of the training data have changed since .*out was"):
            run(recipe, tmp_path / "out", tmp_path / "data", resume=True)
        record = tmp_path / "out/.onemask/data.json"
        record.write_text(json.dumps(json.loads(record.read_text()).partition("-")[0]))  # as earlier versions wrote it
        run(recipe, tmp_path / "out", tmp_path / "data", resume=True)

    def test_features_of_data_that_changed_are_made_again(self, tmp_path, data):
        recipe = a_recipe(tmp_path, stage(iterations=1, distinct=2, cache=True))
        shutil.copytree(data, tmp_path / "data")
        run(recipe, tmp_path / "out", tmp_path / "data")
        before = losses(tmp_path / "out")
        for path in (tmp_path / "data/davis/JPEGImages").rglob("*.jpg"):
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        run(recipe, tmp_path / "out", tmp_path / "data", overwrite=True)
        run(recipe, tmp_path / "fresh", tmp_path / "data")
        assert losses(tmp_path / "out") != before
        assert losses(tmp_path / "out") == losses(tmp_path / "fresh")

    def test_another_recipe(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        with pytest.raises(InputError, match=r"was started with batch 2 \(now 4\), seed 3 \(now 5\)"):
            run(a_recipe(tmp_path, stage(iterations=1, batch=4), seed=5), tmp_path / "out", data, resume=True)

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"losses": {"dice": 1}}, r"stages\.0\.losses: 'dice' is not known; there are: cross_entropy"),
            ({"size": [64, 90]}, r"stages\.0\.size must be multiples of the method's stride 32, got \[64, 90\]"),
            (
                {"batch_norm": ["network.levels"]},
                r"stages\.0\.batch_norm names modules of the backbone, backbone",
            ),
            ({"optimiser": {"groups": {"hed": 1}}}, r"stages\.0: optimiser\.groups: no parameter's name begins with"),
            ({"cache": True, "distinct": 2, "optimiser": {"groups": {"backbone": 1}}}, "trains the backbone"),
            ({"data": [{"kind": "stills", "root": "nowhere"}]}, "nowhere is not a folder"),
        ],
    )
    def test_before_anything_is_written(self, tmp_path, data, values, told):
        with pytest.raises(InputError, match=told):
            run(a_recipe(tmp_path, stage(**values)), tmp_path / "out", data)
        assert not (tmp_path / "out").exists()

    def test_a_worker_that_is_killed(self, tmp_path, data, monkeypatch):
        def killed(self, *arguments):
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out

        monkeypatch.setattr(Mixture, "clip", killed)
        told = r"^a worker that makes clips was killed \(.*\); if memory ran out, .* from the last checkpoint$"
        with pytest.raises(OnemaskError, match=told):
            run(a_recipe(tmp_path, stage(iterations=1), workers=1), tmp_path / "out", data)

    def test_weights_to_begin_with(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        weights = str(tmp_path / "out" / "last.safetensors")
        rate = {"lr": 1e-12}
        recipe = a_recipe(tmp_path, stage(iterations=1, optimiser=rate), weights=weights)
        run(recipe, tmp_path / "further", data)
        name = "network.head.0.weight"
        assert torch.allclose(state(tmp_path / "further" / "last.safetensors")[name], state(Path(weights))[name])
        with pytest.raises(InputError, match="are for width=8, but the options say width=16"):
            run(a_recipe(tmp_path, weights=weights, options={**TINY, "width": 16}), tmp_path / "other", data)

    def test_weights_to_begin_with_by_their_name(self, tmp_path, data, home, monkeypatch):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        shutil.copytree(home, tmp_path / "home")
        (tmp_path / "home" / "weights").mkdir()
        for suffix in (".safetensors", ".json"):
            shutil.copy(tmp_path / "out" / f"last{suffix}", tmp_path / "home" / "weights" / f"mine{suffix}")
        monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
        still = stage(iterations=1, optimiser={"lr": 1e-12})
        given = state(tmp_path / "out" / "last.safetensors")
        for number, begins in enumerate(({"weights": "mine"}, {"initial": {"network": "mine"}})):
            run(a_recipe(tmp_path, still, seed=9, **begins), tmp_path / f"further{number}", data)
            begun = state(tmp_path / f"further{number}" / "last.safetensors")
            taken = [name for name in given if name.startswith("network.")]
            assert all(torch.allclose(begun[name], given[name], atol=1e-4) for name in taken)

    def test_modules_that_begin_with_anothers_weights(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        weights = str(tmp_path / "out" / "last.safetensors")
        still = stage(iterations=1, optimiser={"lr": 1e-12})
        run(a_recipe(tmp_path, still, seed=9, initial={"network": weights}), tmp_path / "further", data)
        begun, given = state(tmp_path / "further" / "last.safetensors"), state(Path(weights))
        taken = [name for name in given if name.startswith("network.")]
        assert taken
        assert all(torch.allclose(begun[name], given[name], atol=1e-4) for name in taken)

    def test_a_backbone_that_begins_with_a_shallower_ones_weights(self, tmp_path, data):
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        whole = state(tmp_path / "out" / "last.safetensors")
        stages = sorted({name.split(".")[3] for name in whole if name.startswith("backbone.network.blocks.")})
        deepest = f"backbone.network.blocks.{stages[-1]}."
        shallow = {
            name: tensor + (0.05 if tensor.is_floating_point() else 1)
            for name, tensor in whole.items()
            if not name.startswith(deepest)
        }
        save_file(shallow, tmp_path / "shallow.safetensors")
        initial = {"backbone": str(tmp_path / "shallow.safetensors")}
        run(a_recipe(tmp_path, stage(iterations=1), initial=initial), tmp_path / "further", data)
        begun = state(tmp_path / "further" / "last.safetensors")
        changed = {name for name in begun if name.startswith("backbone.") and not torch.equal(begun[name], whole[name])}
        assert changed == {name for name in shallow if name.startswith("backbone.")}

    def test_a_backbone_of_another_network_in_a_checkpoint(self, tmp_path, data):
        """Of one for semantic segmentation, with a head that is of no use here."""
        run(a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out", data)
        place, head = "backbone.network.", {"classifier.weight": torch.zeros(2)}
        own = {n: t for n, t in state(tmp_path / "out" / "last.safetensors").items() if n.startswith(place)}
        other = {n: t + 0.05 for n, t in own.items() if not n.endswith("num_batches_tracked")}
        torch.save({"backbone." + n.removeprefix(place): t for n, t in other.items()} | head, tmp_path / "voc.pth")
        initial = {"backbone": str(tmp_path / "voc.pth")}
        run(a_recipe(tmp_path, stage(iterations=1), initial=initial), tmp_path / "further", data)
        begun = state(tmp_path / "further" / "last.safetensors")
        assert all(torch.allclose(begun[name], tensor, atol=2e-3, rtol=2e-3) for name, tensor in other.items())
        names = [n for n in configuration("frtm-lite", TINY).build(pretrained=False).state_dict() if n in own]
        torch.save({f"features.{n}": own[n] for n in names}, tmp_path / "voc.pth")  # of which the order alone fits
        run(a_recipe(tmp_path, stage(iterations=1), initial=initial), tmp_path / "by order", data)
        begun = state(tmp_path / "by order" / "last.safetensors")
        assert all(torch.equal(begun[name], tensor) for name, tensor in own.items())
        torch.save(head, tmp_path / "voc.pth")
        with pytest.raises(InputError, match=r"initial\.backbone: .*voc\.pth has no .* such as deeplabv3_resnet101"):
            run(a_recipe(tmp_path, initial=initial), tmp_path / "other", data)

    @pytest.mark.parametrize(
        ("initial", "told"),
        [
            ({"nothing": "frtm-lite"}, "initial.nothing: the method has no such module"),
            ({"network": "nowhere.safetensors"}, "there is no file of weights .*nowhere.safetensors"),
            ({"network": "videomatch-lite"}, r"initial.network: .* has no network\."),
            ({"network": "frtm-lite"}, r"initial.network: network\..* there and .* here"),
        ],
    )
    def test_modules_that_cannot(self, tmp_path, data, initial, told):
        with pytest.raises(InputError, match=told):
            run(a_recipe(tmp_path, initial=initial), tmp_path / "out", data)
        assert not (tmp_path / "out").exists()

    def test_a_validation_without_a_frame_to_score(self, data, make_frtm, make_clip, tmp_path):
        with pytest.raises(InputError, match="has no sequence nobody"):
            VideoValidator(ValidationConfig(**VALIDATION, sequences=["nobody"]), data, make_frtm())
        write_davis(tmp_path / "davis", make_clip, frames=2)
        with pytest.raises(InputError, match=r"annotated frames between the first .* the last; shape2 has none"):
            VideoValidator(ValidationConfig(**VALIDATION), tmp_path, make_frtm())

    def test_a_validation_in_which_objects_come_too_late(self, data, make_frtm, tmp_path):
        shutil.copytree(data / "davis", tmp_path / "davis")
        masks = sorted((tmp_path / "davis/Annotations/480p/shape2").iterdir())
        for shown, works in ((len(masks) - 3, True), (len(masks) - 2, False), (len(masks), False)):
            for mask in masks[:shown]:
                write_mask(mask, np.zeros(SIZE, np.uint8))
            if works:
                VideoValidator(ValidationConfig(**VALIDATION), tmp_path, make_frtm())
                continue
            with pytest.raises(InputError, match="between the first that shows an object and the last; shape2 has"):
                VideoValidator(ValidationConfig(**VALIDATION), tmp_path, make_frtm())

    @pytest.mark.parametrize("hardware", [Hardware("abacus"), Hardware("cpu", 0)])
    def test_hardware_that_is_not_there(self, hardware):
        with pytest.raises(InputError, match="is not available here"):
            hardware.fabric("float32")


class TestProcesses:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="it would take the GPU")
    def test_a_cpu_has_one(self):
        fabric = Hardware().fabric("float32")
        assert fabric.world_size == 1
        assert fabric.device.type == "cpu"

    def test_two_are_as_one(self, tmp_path, data):
        stages = (
            stage(batch=4, iterations=3, distinct=6, cache=True),
            stage(name="second", batch=4, accumulate=2, iterations=2, clip_gradient=1.0),
        )
        recipe = a_recipe(tmp_path, *stages, validation=VALIDATION, average=0.9)
        run(recipe, tmp_path / "one", data)
        assert by_two(lambda: run(recipe, tmp_path / "two", data)) == [0, 0]
        assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
        scores = [[line["J&F"] for line in history(tmp_path / name) if "J&F" in line] for name in ("one", "two")]
        assert scores[1] == pytest.approx(scores[0], abs=1e-2)

    def test_the_last_weights_are_saved_once(self, tmp_path, data, monkeypatch):
        """The second process comes to them when the first has saved them already."""
        recipe, last = a_recipe(tmp_path, stage(iterations=1)), tmp_path / "out" / "last.safetensors"
        run(recipe, tmp_path / "out", data)
        last.unlink()
        forget = Log.forget_after

        def slow(self, step):
            forget(self, step)
            if not self.active:
                time.sleep(1)

        monkeypatch.setattr(Log, "forget_after", slow)
        assert by_two(lambda: run(recipe, tmp_path / "out", data, resume=True)) == [0, 0]
        assert last.exists()

    def test_one_of_them_prints_the_result(self, tmp_path, data, capfd):
        path, out = write_recipe(tmp_path, stage(iterations=1)), tmp_path / "out"

        def act() -> None:
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - in place of pytest's
            main(["train", str(path), "--data", str(data), "--out", str(out), "--device", "cpu", "--json"])
            sys.stdout.flush()

        assert by_two(act) == [0, 0]
        assert json.loads(capfd.readouterr().out)["steps"] == 1

    def test_a_rank_that_a_scheduler_gives_to_a_training_of_its_own_silences_nothing(
        self, tmp_path, data, capsys, monkeypatch
    ):
        for name in ("LOCAL_RANK", "SLURM_PROCID"):  # not RANK with WORLD_SIZE, as torchrun sets them
            monkeypatch.setenv(name, "1")
        monkeypatch.setattr("lightning_fabric.utilities.rank_zero.rank_zero_only.rank", 1)
        command = ["train", str(write_recipe(tmp_path, stage(iterations=1))), "--data", str(data), "--device", "cpu"]
        assert main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 1
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert "exists already" in capsys.readouterr().err

    @pytest.mark.parametrize("wrong", ["the recipe", "the data", "the data of one", "the folder"])
    def test_an_error_is_printed_once(self, tmp_path, data, capfd, wrong):
        path, out = write_recipe(tmp_path, stage(iterations=1)), tmp_path / "out"
        if wrong == "the folder":
            out.mkdir()
            (out / "mine.txt").write_text("")

        def act() -> None:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - in place of pytest's
            bad = wrong == "the data" or (wrong == "the data of one" and os.environ["RANK"] == "1")
            recipe = tmp_path / "none.yaml" if wrong == "the recipe" else path
            command = ["train", str(recipe), "--data", str(tmp_path / "nowhere" if bad else data), "--out", str(out)]
            code = main([*command, "--device", "cpu"])
            sys.stderr.flush()
            os._exit(code)

        assert by_two(act) == [2, 2]
        assert capfd.readouterr().err.count("onemask: ") == 1

    def test_refused_in_all_of_them(self, tmp_path, data):
        """The folder is looked at by the first process alone, and the second does not wait for ever."""
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("")
        recipe = a_recipe(tmp_path, stage(batch=4))
        assert refused_by_two(lambda: run(recipe, tmp_path / "out", data), OutputError, "")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
