"""The worker's process: its label maps are those of `onemask run`."""

from __future__ import annotations

import pytest

from onemask.jobs import plan
from onemask.propagation import Propagation
from onemask.session import Session
from onemask.studio import bench
from onemask.studio.messages import PropagationJob, pack, unpack
from onemask.studio.project import MethodChoice
from onemask.video.reader import open_video
from videos import Scene, Unsure, gap_where_a_correction_begins


class Pipe:
    """Keeps what is said, and has no message."""

    def __init__(self):
        self.said = []

    def send(self, message):
        self.said.append(message)

    def poll(self):
        return False


@pytest.mark.parametrize("wanted", [range(4, 8), range(9), (2, 4, 6)])
def test_stretches_are_as_in_a_whole_run(wanted):
    scene, method = Scene.of(ids=(1, 7)), Unsure()
    given, video = gap_where_a_correction_begins(scene.labels[0]), open_video(scene.images)
    keys = {index: plan.Key.of(label_map, 48) for index, label_map in given.items()}
    choice = MethodChoice("unsure", short_side=48, device="cpu", runtime="torch")
    packed = {index: pack(label_map) for index, label_map in given.items()}
    worker = bench._Bench(pipe := Pipe(), video, ("unsure", method))
    worker.handle(PropagationJob(choice, packed, tuple(plan.stretches(keys, wanted))))
    assert pipe.said[-1] == ("end", None)
    made = {message[1]: unpack(message[2]) for message in pipe.said if message[0] == "mask"}
    whole = [labelled.label_map for labelled in Propagation(Session(method, short_side=48, device="cpu"), video, given)]
    assert list(made) == list(wanted)
    assert all((label_map == whole[index]).all() for index, label_map in made.items())
