"""The order of clips: the same for any number of processes and workers, from any step on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import a_recipe, stage

from onemask.data.clip import Clip
from onemask.data.mixture import Mixture
from onemask.data.sources import open_mixture
from onemask.errors import InputError, OnemaskError
from onemask.training.feed import Feed, Order, Parts, worker_deaths_told
from onemask.training.recipe import StageConfig


def a_stage(folder: Path, **values) -> StageConfig:
    return a_recipe(folder, stage(**values)).stages[0]


class Broken:
    """A source of clips whose third cannot be made."""

    def __len__(self) -> int:
        return 1

    def clip(self, index, request, rng) -> Clip:
        raise InputError("picture.png cannot be read; repair it")


class TestOrder:
    def test_new_clips_for_ever(self):
        order = Order(3, 0, seed=0)
        assert [order.clips(step) for step in range(2)] == [[0, 1, 2], [3, 4, 5]]
        assert Order(3, 0, seed=0, first=10).clips(1) == [13, 14, 15]

    def test_distinct_clips_each_once_a_pass(self):
        order = Order(2, 5, seed=0)
        seen = [clip for step in range(10) for clip in order.clips(step)]
        passes = [seen[start : start + 5] for start in range(0, 20, 5)]
        assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
        assert len({tuple(one) for one in passes}) > 1

    def test_a_batch_may_be_larger_than_a_pass(self):
        clips = Order(5, 2, seed=0).clips(0)
        assert sorted(clips[:2]) == sorted(clips[2:4]) == [0, 1]

    def test_the_seed_decides(self):
        orders = [Order(8, 8, seed).clips(0) for seed in (0, 0, 1)]
        assert orders[0] == orders[1] != orders[2]


class TestParts:
    def test_processes_and_parts_share_a_batch(self, tmp_path, data):
        staged = a_stage(tmp_path, batch=8, accumulate=2)
        mixture, order = open_mixture(staged.data, 0, data), Order(8, 0, 0)
        whole = Parts(mixture, a_stage(tmp_path, batch=8), 3, order)[2]
        shares = [Parts(mixture, staged, 3, order, rank=rank, of=2) for rank in range(2)]
        assert [len(parts) for parts in shares] == [6, 6]
        found = [frames for parts in shares for item in (4, 5) for frames in parts[item].frames]
        assert len(found) == 8
        assert {frames.numpy().tobytes() for frames in found} == {frames.numpy().tobytes() for frames in whole.frames}

    def test_what_is_asked_changes_over_the_stage(self, tmp_path):
        asked = []

        class Asked(Broken):
            def clip(self, index, request, rng) -> Clip:
                asked.append(request.max_skip)
                shape = (request.length, *request.size)
                return Clip("", np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint8), 1)

        staged = a_stage(tmp_path, batch=1, max_skip=[2, 10])
        parts = Parts(Mixture([(Asked(), 1)], 0), staged, 4, Order(1, 0, 0))
        assert [parts[item].objects.item() for item in range(4)] == [1] * 4
        assert asked == [2, 4, 6, 8]


class TestFeed:
    def test_workers_change_nothing(self, tmp_path, data):
        source = [
            {"kind": "stills", "root": "stills", "options": {"least_pixels": 50, "least_visible": 10}},
            {"kind": "davis2017", "root": "davis", "split": "fit", "options": {"minimum_pixels": 20}},
        ]
        staged = a_stage(tmp_path, data=source)
        parts = Parts(open_mixture(staged.data, 0, data), staged, 5, Order(2, 0, 0))
        alone, made_ahead = list(Feed(parts, 0, 0)), list(Feed(parts, 0, 2))
        assert len(alone) == len(made_ahead) == 5
        for one, other in zip(alone, made_ahead, strict=True):
            assert torch.equal(one.frames, other.frames)
            assert torch.equal(one.labels, other.labels)
        later = list(Feed(parts, 3, 2))
        assert len(later) == 2
        assert torch.equal(later[0].frames, alone[3].frames)

    def test_waiting_is_measured(self, tmp_path, data):
        staged = a_stage(tmp_path)
        feed = Feed(Parts(open_mixture(staged.data, 0, data), staged, 2, Order(2, 0, 0)), 0, 0)
        list(feed)
        assert feed.waited > 0

    @pytest.mark.parametrize("workers", [0, 1])
    def test_what_cannot_be_made_is_one_clear_error(self, tmp_path, workers):
        parts = Parts(Mixture([(Broken(), 1)], 0), a_stage(tmp_path), 2, Order(2, 0, 0))
        with pytest.raises(InputError) as caught:
            list(Feed(parts, 0, workers))
        assert str(caught.value) == "picture.png cannot be read; repair it"

    def test_a_worker_that_is_killed_is_one_clear_error(self, tmp_path):
        class Killed(Broken):
            def clip(self, index, request, rng) -> Clip:
                os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
                raise AssertionError

        parts = Parts(Mixture([(Killed(), 1)], 0), a_stage(tmp_path), 2, Order(2, 0, 0))
        told = r"a worker that makes clips was killed \(DataLoader worker .*\); if memory ran out, set fewer workers"
        with pytest.raises(OnemaskError, match=told), worker_deaths_told():
            list(Feed(parts, 0, 1))
        with pytest.raises(RuntimeError, match="of another kind"), worker_deaths_told():
            raise RuntimeError("of another kind")
