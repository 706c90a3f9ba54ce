"""Runtimes: the same label maps as PyTorch's by every method, and PyTorch wherever there is no other."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import onemask
from onemask import InputError, Session
from onemask.geometry import Geometry
from onemask.methods.ensemble import EnsembleConfig
from onemask.methods.ensemble.model import Ensemble
from onemask.methods.frtm import FRTMConfig
from onemask.methods.frtm.model import FRTM
from onemask.methods.method import Features, Memory, Method
from onemask.methods.videomatch import VideoMatchConfig
from onemask.runtime import cache, choice, computation, encoder, engines, graphs, segmenter
from onemask.runtime import part as part_module
from onemask.testing import moving_shapes
from onemask.video.sample import sample_clip

LITE = {name: {} for name in ("videomatch-lite", "pmvos-lite", "ttvos-lite", "dmn-aoa-lite", "fusion-fast")}
LITE["frtm-lite"] = {"finetune_iterations": 0}  # fine-tuning takes most of a minute, and is PyTorch's own
LITE["best"] = {
    "members": [
        "frtm-lite finetune_iterations=0 least_side=0",
        "videomatch-lite least_side=0",
        "fusion-fast:2 magnify=1.333 least_side=0",
    ]
}
CPU = torch.device("cpu")


def tiny_frtm(seed: int = 0, *, own_networks: bool = False) -> Method:
    torch.manual_seed(seed)
    few = {"capacity": 8, "first_samples": 2, "first_iterations": (2, 2), "first_last_iterations": 2}
    if own_networks:
        few |= {"refiner": "per_object", "finetune_iterations": 1, "finetune_samples": 1, "finetune_batch": 1}
    return FRTMConfig("test_efficientnet", channels=8, width=8, **few).build(pretrained=False)


def tiny_ensemble(*members: Method) -> Ensemble:
    return Ensemble(members, EnsembleConfig(tuple(f"m{n}" for n in range(len(members))))).eval()


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def graph_runtime() -> str:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    return "onnx"


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    video = onemask.open_video(sample_clip().path)
    return [frame.image for frame, _ in zip(video.frames(), range(4), strict=False)]


def label_maps(session: Session, frames: list[np.ndarray], first: np.ndarray) -> np.ndarray:
    return np.stack([session.annotate(frames[0], first), *(session.step(frame) for frame in frames[1:])])


@pytest.mark.parametrize("name", LITE)
def test_every_method_gives_pytorchs_label_maps(name, frames):
    pytest.importorskip("onnx", reason="needs the extras onnx and openvino")
    method, first = onemask.load(name, **LITE[name]), sample_clip().annotations[0]
    wanted = label_maps(Session(method, short_side=96, device="cpu", runtime="torch"), frames, first)
    for runtime in ("onnx", "openvino"):
        pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime), reason=f"needs the extra {runtime}")
        session = Session(method, short_side=96, device="cpu", runtime=runtime)
        found = label_maps(session, frames, first)
        assert session.runtime == runtime  # and no PyTorch in its place
        assert (found != wanted).mean() < 1e-3


@dataclass
class Shade(Features):
    shade: torch.Tensor | None = None


class Elsewhere(Method):
    """A method of another package, with a network that is none of onemask's backbones."""

    stride, memory_type = 8, Memory
    memorize = segment = update = None

    def __init__(self, network: str, *, traceable: bool):
        super().__init__()
        self.traceable, self.its_name = traceable, network
        self.add_module(network, torch.nn.Conv2d(3, 1, 1))

    def encode(self, frames: torch.Tensor, constant: object = None) -> Shade:
        return Shade(frames, shade=self.get_submodule(self.its_name)(frames))


@pytest.mark.parametrize("network", ["backbone", "other"])
@pytest.mark.parametrize("traceable", [True, False])
def test_methods_of_other_packages_need_no_backbone_of_onemask(graph_runtime, network, traceable, caplog):
    method, frames = Elsewhere(network, traceable=traceable).eval(), torch.rand(1, 3, 64, 64)
    chosen = encoder.encoder_of(method, graph_runtime, device=CPU, precision="float32")
    with torch.no_grad():
        assert torch.allclose(chosen(frames).shade, method.encode(frames).shade, atol=1e-5)
    assert chosen.runtime == (graph_runtime if traceable else "torch")
    assert ("runs in PyTorch alone" in caplog.text) == (not traceable)
    if not traceable:
        with pytest.raises(InputError, match="mine cannot be exported: a method whose class says `traceable = True`"):
            graphs.refuse_without_backbone(method, "mine", "exported")


def test_what_is_fitted_online_does_not_enlarge_a_runtimes_rounding(graph_runtime, frames):
    """At this size two cells of the last mask, half covered, fell to another class, and with them 0.12 % of pixels."""
    method, first = onemask.load("fusion-fast"), np.zeros(frames[0].shape[:2], np.uint8)
    first[40:160, 28:122] = 1  # not an object's outline: what is fitted is not clear
    found, wanted = (
        label_maps(Session(method, short_side=360, device="cpu", runtime=runtime), frames, first)
        for runtime in (graph_runtime, "torch")
    )
    assert (found != wanted).mean((1, 2)).max() < 1e-4


def test_networks_besides_the_backbone_are_graphs_where_encode_as_a_whole_is_none(graph_runtime, frames, caplog):
    session = Session(onemask.load("dmn-aoa-lite"), short_side=96, device="cpu", runtime=graph_runtime)
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        label_maps(session, frames[:2], sample_clip().annotations[0])
    computed = [record.message for record in caplog.records if "gives PyTorch's result" in record.message]
    assert len(computed) == 3
    for part in ("features", "generator.network.backbone", "refine"):
        assert any(f"for {part} " in line for line in computed)


def test_parts_of_encode_are_graphs_where_pytorch_computes_the_backbone(graph_runtime, frames, caplog, monkeypatch):
    def failing(method, size):
        raise RuntimeError("no graph")

    monkeypatch.setattr(encoder, "onnx_of", failing)
    method, first = onemask.load("dmn-aoa-lite"), sample_clip().annotations[0]
    session = Session(method, short_side=96, device="cpu", runtime=graph_runtime)
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        found = label_maps(session, frames, first)
    assert session.runtime == "torch"
    computed = [record.message for record in caplog.records if "gives PyTorch's result" in record.message]
    assert any("for generator.network.backbone " in line for line in computed)
    assert not any("for features " in line for line in computed)
    wanted = label_maps(Session(method, short_side=96, device="cpu", runtime="torch"), frames, first)
    assert (found != wanted).mean() < 1e-3


def test_the_networks_of_an_ensembles_members_are_graphs(graph_runtime, own_home, monkeypatch, caplog):
    """A backbone that members share is one graph; a restored session goes on as the saved one does."""
    own, method = tiny_frtm(seed=1), tiny_ensemble(tiny_frtm(), tiny_frtm(), tiny_frtm(seed=1))
    assert method._sources == {0: 0, 1: 0}
    assert not torch.equal(next(own.backbone.parameters()), next(method.members[0].backbone.parameters()))
    clip, made, ran = moving_shapes(4, 2), computation.onnx_engine, []

    def noting(graph, threads):
        run, number = made(graph, threads), len(graph)
        return lambda given: ran.append(number) or run(given)

    wanted = label_maps(Session(method, device="cpu", runtime="torch"), clip.frames, clip.label_maps[0])
    monkeypatch.setattr(computation, "onnx_engine", noting)
    before = {name: (module.training, set(vars(module))) for name, module in method.named_modules()}
    session = Session(method, device="cpu", runtime=graph_runtime)
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        found = label_maps(session, clip.frames[:2], clip.label_maps[0])
    computed = [record.args[1] for record in caplog.records if "gives PyTorch's result" in record.message]
    assert computed == ["members.0.backbone", "members.2.backbone", *(f"members.{n}.network" for n in range(3))]
    assert (session.runtime, session.precision) == (graph_runtime, "float32")
    session.save(own_home / "session")
    restored = Session.restore(own_home / "session", method, device="cpu")
    ran.clear()
    for frame, expected in zip(clip.frames[2:], wanted[2:], strict=True):
        label_map = session.step(frame)
        assert (label_map != expected).mean() < 1e-3
    assert len(ran) == 2 * (2 + 3 * 2)  # in each frame two backbones, and three networks for each of two objects
    for frame in clip.frames[2:]:
        label_map = restored.step(frame)
    assert np.array_equal(restored.probabilities[1], session.probabilities[1])
    assert restored.runtime == graph_runtime
    assert (found != wanted[:2]).mean() < 1e-3
    assert {name: (module.training, set(vars(module))) for name, module in method.named_modules()} == before


def test_a_member_that_combines_modules_into_a_part_has_a_backbone_too(graph_runtime):
    """Fusion has a `graph_part` of its own; here no other member's backbone runs for it."""
    torch.manual_seed(0)
    fusion = onemask.methods.configuration("fusion-fast", {"backbone": "test_efficientnet"}).build(pretrained=False)
    method, clip = tiny_ensemble(fusion, tiny_frtm(seed=1)), moving_shapes(2)
    assert method.graph_part("members.0.backbone") is fusion.backbone
    session = Session(method, device="cpu", runtime=graph_runtime)
    label_maps(session, clip.frames, clip.label_maps[0])
    assert session.runtime == graph_runtime


def test_the_runtime_of_an_ensemble_is_what_its_backbones_have_come_to(graph_runtime, monkeypatch, caplog):
    made, failing = computation.onnx_engine, []

    def breaking(graph, threads):
        run = made(graph, threads)

        def sometimes(given):
            if failing and given["x0"].shape[1] == 3:
                raise failing.pop()
            return run(given)

        return sometimes

    monkeypatch.setattr(computation, "onnx_engine", breaking)
    session, clip = (
        Session(tiny_ensemble(tiny_frtm(), tiny_frtm(seed=1)), device="cpu", runtime="onnx"),
        moving_shapes(4),
    )
    label_maps(session, clip.frames[:2], clip.label_maps[0])
    assert session.runtime == "onnx"
    for frame, told in zip(clip.frames[2:], ("torch and onnx", "torch"), strict=True):
        failing.append(RuntimeError("illegal instruction"))
        session.step(frame)
        assert session.runtime == told
    assert session.precision == "float32"
    assert caplog.text.count("PyTorch continues, in float32") == 2


def test_a_restored_session_of_an_ensemble_has_each_backbone_where_auto_chose_it(graph_runtime, own_home, monkeypatch):
    for module in (encoder, segmenter):
        monkeypatch.setattr(module, "WORTH_IT", 0)
    monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
    monkeypatch.setattr(computation, "GRAPHS", ("onnx",))
    monkeypatch.setattr(computation, "choose", lambda ways, given, what, *_: "onnx" if "1.back" in what else "torch")
    method, clip, path = tiny_ensemble(tiny_frtm(), tiny_frtm(seed=1)), moving_shapes(3), own_home / "session"
    session = Session(method, device="cpu")
    label_maps(session, clip.frames[:2], clip.label_maps[0])
    session.save(path)
    restored = Session.restore(path, method, device="cpu")
    restored.step(clip.frames[2])
    session.step(clip.frames[2])
    assert np.array_equal(restored.probabilities[1], session.probabilities[1])
    assert restored.runtime == session.runtime == "torch and onnx"


def test_an_ensemble_whose_objects_have_backbones_of_their_own_is_told_of_its_features_alone(graph_runtime, caplog):
    options = {"backbone": "test_efficientnet", "finetune": "1", "finetune_samples": "1"}
    method = tiny_ensemble(onemask.methods.configuration("videomatch-lite", options).build(pretrained=False))
    clip = moving_shapes(2)
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        label_maps(Session(method, device="cpu", runtime=graph_runtime), clip.frames, clip.label_maps[0])
    assert "PyTorch computes this method's features" in caplog.text
    assert "gives PyTorch's result for members.0.backbone" in caplog.text
    assert "in PyTorch alone" not in caplog.text


def test_a_restored_session_of_an_ensemble_goes_on_in_pytorch(graph_runtime, own_home, monkeypatch):
    for module in (encoder, segmenter):
        monkeypatch.setattr(module, "WORTH_IT", 0)
    monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
    monkeypatch.setattr(computation, "GRAPHS", ("onnx",))
    fastest = {"backbone": "torch", "network": "torch"}
    monkeypatch.setattr(computation, "choose", lambda ways, given, what, *_: fastest[what.split(".")[-1]])
    method, clip, path = tiny_ensemble(tiny_frtm(), tiny_frtm(seed=1)), moving_shapes(3), own_home / "session"
    session = Session(method, device="cpu")
    label_maps(session, clip.frames[:2], clip.label_maps[0])
    assert session.runtime == "torch"
    session.save(path)
    fastest["backbone"] = "onnx"
    restored = Session.restore(path, method, device="cpu")
    assert np.array_equal(restored.step(clip.frames[2]), session.step(clip.frames[2]))
    assert np.array_equal(restored.probabilities[1], session.probabilities[1])
    assert restored.runtime == "torch"
    fresh = Session(method, device="cpu")
    label_maps(fresh, clip.frames[:2], clip.label_maps[0])
    assert fresh.runtime == "onnx"


@pytest.mark.parametrize(
    ("register", "said"), [(False, "has no part extra"), (True, "did not call it in its first frame")]
)
def test_a_part_that_is_never_used_is_told_once(register, said, graph_runtime, caplog):
    class WithOneMore(FRTM):
        graph_parts = ("network", "extra")

        def graph_part(self, name):
            return torch.nn.Identity() if name == "extra" else super().graph_part(name)

    method, clip = tiny_frtm(), moving_shapes(3)
    method.__class__ = WithOneMore
    if register:
        method.register_module("extra", None)
    session = Session(method, device="cpu", runtime=graph_runtime)
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        label_maps(session, clip.frames, clip.label_maps[0])
        told = label_maps(Session(tiny_frtm(), device="cpu", runtime=graph_runtime), clip.frames, clip.label_maps[0])
    assert told.any()
    assert [said in record.message and "extra" in record.message for record in caplog.records].count(True) == 1


def test_the_method_is_never_written_to(graph_runtime):
    method, clip = tiny_frtm().eval(), moving_shapes(2)
    before = {name: (module.training, set(vars(module))) for name, module in method.named_modules()}
    label_maps(Session(method, device="cpu", runtime=graph_runtime), clip.frames, clip.label_maps[0])
    assert {name: (module.training, set(vars(module))) for name, module in method.named_modules()} == before


def test_each_objects_network_is_computed_by_the_one_graph(graph_runtime, monkeypatch):
    made, rows = engines.onnx_engine, []

    def noting(graph, threads):
        run = made(graph, threads)
        return lambda given: rows.append(len(given["x0"])) or run(given) if "x0" in given else run(given)

    monkeypatch.setattr(computation, "onnx_engine", noting)
    method, clip = tiny_frtm(own_networks=True), moving_shapes(2, 3)
    session, wanted = (Session(method, device="cpu", runtime=runtime) for runtime in (graph_runtime, "torch"))
    found, expected = (label_maps(one, clip.frames, clip.label_maps[0]) for one in (session, wanted))
    assert rows == [1] * 5  # two to be checked with, then a call for each object
    assert (found != expected).mean() < 1e-3


def test_weights_of_a_part_are_looked_at_once_a_frame(graph_runtime, monkeypatch):
    looked, state_of = [], part_module.state_of
    monkeypatch.setattr(part_module, "state_of", lambda network: looked.append(network) or state_of(network))
    method, clip = tiny_frtm(), moving_shapes(3, 3)
    session = Session(method, device="cpu", runtime=graph_runtime)
    label_maps(session, clip.frames[:2], clip.label_maps[0])
    looked.clear()
    before = session.step(clip.frames[2])
    assert len(looked) == 1  # and not for each of three objects
    assert before.any()


def test_backbones_of_single_objects_are_computed_by_one_graph_and_no_other_is_made(graph_runtime, caplog):
    options = {"finetune": 2, "finetune_samples": 1, "finetune_lr": 1e-2, "foreground": 48, "background": 192}
    torch.manual_seed(0)
    config = VideoMatchConfig("test_efficientnet", (8,), 0, learned=16, added=16, **options)
    method, clip = config.build(pretrained=False), moving_shapes(3, 2)
    session, wanted = (Session(method, device="cpu", runtime=runtime) for runtime in (graph_runtime, "torch"))
    with caplog.at_level(logging.INFO, "onemask.runtime"):
        found, expected = (label_maps(one, clip.frames, clip.label_maps[0]) for one in (session, wanted))
    assert session.runtime == graph_runtime
    (line,) = [record.message for record in caplog.records if "gives PyTorch's result" in record.message]
    assert "for backbone" in line  # that which all objects would share has nothing to compute
    assert (found != expected).mean() < 1e-3
    with pytest.raises(InputError, match="each object has its own backbone"):
        Session(method, device="cpu", precision="int8", runtime=graph_runtime)


def test_frames_in_a_batch_are_those_one_by_one(graph_runtime):
    session, clip = Session(tiny_frtm(), device="cpu", runtime=graph_runtime), moving_shapes(3)
    together = session.encode(clip.frames)
    for frame, encoded in zip(clip.frames, together, strict=True):
        alone = session.encode([frame])[0].features
        for a, b in zip(graphs._tensors(alone), graphs._tensors(encoded.features), strict=True):
            assert torch.equal(a, b)


def test_a_graph_follows_its_weights(graph_runtime):
    method = tiny_frtm().eval()
    made = encoder.encoder_of(method, graph_runtime, device=CPU, precision="float32")
    frame = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        made(frame)
    with torch.no_grad():
        next(method.backbone.parameters()).mul_(-1)
    with torch.inference_mode():
        assert torch.allclose(made(frame).target, method.encode(frame).target, atol=1e-4)


def test_a_graph_follows_weights_that_are_replaced(graph_runtime):
    method, frame = tiny_frtm().eval(), torch.rand(1, 3, 64, 96)
    made = encoder.encoder_of(method, graph_runtime, device=CPU, precision="float32")
    for _ in range(2):  # the second time the new tensors are as untouched as those that they replace
        method.load_state_dict({name: 0.7 * tensor for name, tensor in method.state_dict().items()}, assign=True)
        with torch.inference_mode():
            assert torch.allclose(made(frame).target, method.encode(frame).target, atol=1e-4)


def test_threads_are_pytorchs_whenever_a_frame_comes(graph_runtime, monkeypatch):
    made, asked = engines.onnx_engine, []
    monkeypatch.setattr(
        computation, "onnx_engine", lambda graph, threads: asked.append(threads) or made(graph, threads)
    )
    session, clip = Session(tiny_frtm(), device="cpu", runtime=graph_runtime), moving_shapes(1)
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            session.encode(clip.frames)
    finally:
        torch.set_num_threads(1)
    assert asked == [1, 2]


def test_graphs_are_exported_in_several_threads_at_once(graph_runtime):
    begin, methods = threading.Barrier(3), [tiny_frtm(seed=seed).eval() for seed in range(3)]

    def export(method) -> bytes:
        begin.wait()
        return graphs.onnx_of(method, (32, 32))

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(export, methods))) == 3


def test_sessions_share_what_is_compiled_and_a_saved_one_takes_it_up(graph_runtime, own_home, monkeypatch):
    method, clip = tiny_frtm(), moving_shapes(4)
    session = Session(method, device="cpu", runtime=graph_runtime)
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.save(own_home / "session")
    monkeypatch.setattr(graphs, "onnx_of", None)  # a second export would fail: the graph is kept on disk
    restored = Session.restore(own_home / "session", method, device="cpu")
    assert np.array_equal(session.copy().step(clip.frames[1]), restored.step(clip.frames[1]))
    assert restored.runtime == graph_runtime


def test_a_graph_that_is_off_is_not_used(graph_runtime, caplog, monkeypatch):
    monkeypatch.setattr(computation, "onnx_engine", lambda graph, threads: lambda given: [torch.zeros(1)] * 9)
    check_fallback(caplog, "PyTorch computes it", "features", "network")


@pytest.mark.parametrize(("part", "failing_call"), [("frame", 5), ("x1", 4)])  # after three checks, and after two
def test_a_runtime_that_fails_in_mid_video_gives_way(part, failing_call, graph_runtime, caplog, monkeypatch):
    made, calls = engines.onnx_engine, []

    def failing(graph, threads):
        run = made(graph, threads)

        def sometimes(given):
            if part in given:
                calls.append(given)
                if len(calls) == failing_call:
                    raise RuntimeError("illegal instruction")
            return run(given)

        return sometimes

    monkeypatch.setattr(computation, "onnx_engine", failing)
    check_fallback(caplog, "PyTorch continues", "illegal instruction")
    assert len(calls) == failing_call


def check_fallback(caplog, said: str, *parts: str) -> None:
    """One line in the log for each part, and PyTorch's label maps."""
    method, clip = tiny_frtm(), moving_shapes(4)
    session = Session(method, device="cpu", runtime="onnx")
    with caplog.at_level(logging.WARNING):
        found = label_maps(session, clip.frames, clip.label_maps[0])
    wanted = label_maps(Session(method, device="cpu", runtime="torch"), clip.frames, clip.label_maps[0])
    assert (found != wanted).mean() < 1e-3
    lines = [record.message for record in caplog.records if "runtime" in record.message]
    assert all(said in line and part in line for line, part in zip(lines, parts, strict=True))


@pytest.mark.parametrize(
    ("missing", "least", "said"), [(True, (1, 18), "is not installed"), (False, (99, 0), "99.0 or later")]
)
def test_a_runtime_that_is_missing_or_too_old_is_refused_by_name_of_the_extra(missing, least, said, monkeypatch):
    monkeypatch.setitem(engines.PACKAGES, "onnx", ("onnxruntime", least))
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if missing else name)
    monkeypatch.setattr(engines, "version", lambda name: "1.20.1")
    with pytest.raises(InputError, match=said) as refused:
        Session(tiny_frtm(), device="cpu", runtime="onnx")
    assert "[onnx]" in str(refused.value)


def test_what_does_not_go_together_is_refused(graph_runtime):
    with pytest.raises(InputError, match="runtime must be one of auto, torch"):
        Session(tiny_frtm(), runtime="tensorrt")
    with pytest.raises(InputError, match="onnx computes on a CPU in float32, not on cpu in bfloat16"):
        Session(tiny_frtm(), device="cpu", precision="bfloat16", runtime=graph_runtime)
    with pytest.raises(InputError, match="int8 needs one backbone, but this method joins several methods"):
        Session(tiny_ensemble(tiny_frtm()), device="cpu", precision="int8", runtime=graph_runtime)


class TestBfloat16:
    """Networks in bfloat16 on a CPU, by OpenVINO; what that computes where a processor does not have it is its own."""

    @pytest.fixture(autouse=True)
    def _openvino(self):
        pytest.importorskip("onnx", reason="needs the extra openvino")
        pytest.importorskip("openvino", reason="needs the extra openvino")

    @pytest.mark.parametrize("name", ["ttvos-lite", "fusion-fast"])
    def test_networks_are_openvinos_and_all_else_is_in_float32(self, name, frames, caplog):
        method, first = onemask.load(name), sample_clip().annotations[0]
        wanted = label_maps(Session(method, short_side=96, device="cpu", runtime="torch"), frames, first)
        session = Session(method, short_side=96, device="cpu", precision="bfloat16", runtime="openvino")
        with caplog.at_level(logging.INFO, "onemask.runtime"):
            found = label_maps(session, frames, first)
        assert (session.runtime, session.precision) == ("openvino", "bfloat16")
        parts = ["features", *(["refinement"] if name == "fusion-fast" else [])]
        told = [record.message for record in caplog.records if "PyTorch's result is 0.99" in record.message]
        told += [record.message for record in caplog.records if "PyTorch's result is 1.0" in record.message]
        assert [line.split(" in ")[0] for line in told] == parts
        assert (found != wanted).mean() < 0.01
        exact = Session(method, short_side=96, device="cpu", runtime="openvino")
        (one,), (other,) = session.encode(frames[:1]), exact.encode(frames[:1])
        pairs = [(a, getattr(other.features, name)) for name, a in vars(one.features).items() if torch.is_tensor(a)]
        assert all(a.dtype == torch.float32 for a, _ in pairs)
        if engines.multiplies_bfloat16():
            assert any(not torch.allclose(a, b, rtol=0, atol=1e-3) for a, b in pairs)

    def test_a_backbone_of_an_ensemble_that_cannot_is_in_float32_and_is_told_of(self, monkeypatch):
        near = computation.is_near
        monkeypatch.setattr(computation, "is_near", lambda *given: "1.backbone" not in given[3] and near(*given))
        method, clip = tiny_ensemble(tiny_frtm(), tiny_frtm(seed=1)), moving_shapes(2)
        session = Session(method, device="cpu", precision="bfloat16", runtime="openvino")
        label_maps(session, clip.frames, clip.label_maps[0])
        assert (session.runtime, session.precision) == ("openvino and torch", "bfloat16 and float32")

    @pytest.mark.parametrize(("multiplies", "runtime"), [(True, "openvino"), (False, "torch")])
    def test_auto_takes_it_where_the_processor_has_it(self, multiplies, runtime, monkeypatch):
        monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
        monkeypatch.setattr(encoder, "multiplies_bfloat16", lambda: multiplies)
        session, clip = Session(tiny_frtm(), device="cpu", precision="bfloat16"), moving_shapes(2)
        label_maps(session, clip.frames, clip.label_maps[0])
        assert session.runtime == session.copy().runtime == runtime

    @pytest.mark.parametrize("lacking", ["the processor's", "openvino", "graphs"])
    def test_otherwise_auto_is_pytorchs_own(self, lacking, monkeypatch):
        monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
        monkeypatch.setattr(encoder, "multiplies_bfloat16", lambda: lacking != "the processor's")
        if lacking == "openvino":
            monkeypatch.setattr(encoder, "problem_with", lambda name: "is not installed")
        method = tiny_frtm()
        if lacking == "graphs":
            monkeypatch.setattr(method, "backbone", None)
            monkeypatch.setattr(method, "graph_parts", ())
        chosen = encoder.encoder_of(method, "auto", device=CPU, precision="bfloat16")
        assert (chosen.runtime, chosen.in_torch) == ("torch", "bfloat16")

    def test_pytorchs_own_computes_in_it(self, monkeypatch):
        method, clip, seen = tiny_frtm().eval(), moving_shapes(1), []
        encode = method.encode
        monkeypatch.setattr(method, "encode", lambda *of: seen.append(torch.is_autocast_enabled("cpu")) or encode(*of))
        for runtime in ("torch", "openvino"):
            Session(method, device="cpu", precision="bfloat16", runtime=runtime).encode(clip.frames)
        assert seen[0]
        assert not any(seen[1:])

    def test_what_a_processor_has_is_read_or_asked_for(self, monkeypatch):
        listed = engines.multiplies_bfloat16.__wrapped__
        for flags, has in (("fma avx512_bf16 sse", True), ("amx_bf16", True), ("avx512_bf16x avx_vnni", False)):
            monkeypatch.setattr(engines.Path, "read_text", lambda *_, flags=flags, **__: flags)
            assert listed() == has

        def missing(*_, **__):
            raise OSError

        monkeypatch.setattr(engines.Path, "read_text", missing)
        assert listed() in (True, False)
        monkeypatch.setattr(engines, "_openvino_core", missing)
        assert not listed()

    def test_that_a_processor_does_not_have_it_is_said(self, monkeypatch, caplog):
        monkeypatch.setattr(encoder, "multiplies_bfloat16", lambda: False)
        Session(tiny_frtm(), device="cpu", precision="bfloat16", runtime="openvino")
        assert "has no bfloat16 arithmetic" in caplog.text

    def test_what_is_far_off_is_computed_by_pytorch_in_float32(self, monkeypatch, caplog, tmp_path):
        monkeypatch.setattr(computation, "LEAST_COSINE", 1.1)
        method, clip = tiny_frtm(), moving_shapes(3)
        session = Session(method, device="cpu", precision="bfloat16", runtime="openvino")
        assert session.precision == "bfloat16"
        found = label_maps(session, clip.frames, clip.label_maps[0])
        assert (session.runtime, session.precision) == ("torch", "float32")
        assert "PyTorch computes it, in float32" in caplog.text
        wanted = label_maps(Session(method, device="cpu", runtime="torch"), clip.frames, clip.label_maps[0])
        assert np.array_equal(found, wanted)
        session.save(tmp_path / "session.safetensors")  # which goes on in float32, and not in PyTorch's bfloat16
        restored = Session.restore(tmp_path / "session.safetensors", method, device="cpu")
        for one in (session, restored):
            one.step(clip.frames[1])
        assert np.array_equal(restored.probabilities[1], session.probabilities[1])

    def test_what_is_no_number_is_not_near(self, caplog):
        def broken(given):
            return [given["x"], given["x"] * torch.nan]

        examples = [{"x": torch.ones(3)}]
        assert not computation.is_near(lambda given: [given["x"]] * 2, broken, examples, "it", "bfloat16")
        assert "PyTorch computes it" in caplog.text

    def test_what_was_saved_on_a_cpu_goes_on_elsewhere(self, caplog):
        assert encoder.usable("openvino", torch.device("meta")) == "auto"
        assert "does not compute on meta" in caplog.text
        assert encoder.usable("openvino", CPU) == "openvino"
        assert encoder.usable("torch", torch.device("meta")) == "torch"

    def test_a_session_goes_on_in_it(self, tmp_path):
        method, clip = tiny_frtm(), moving_shapes(3)
        session = Session(method, device="cpu", precision="bfloat16", runtime="openvino")
        label_maps(session, clip.frames[:2], clip.label_maps[0])
        session.save(tmp_path / "session.safetensors")
        restored = Session.restore(tmp_path / "session.safetensors", method, device="cpu")
        assert restored.precision == "bfloat16"
        assert np.array_equal(restored.step(clip.frames[2]), session.step(clip.frames[2]))
        assert restored.runtime == "openvino"


def test_auto_keeps_what_it_measured_and_takes_it_again(graph_runtime, own_home, monkeypatch, caplog):
    monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
    monkeypatch.setattr(encoder, "WORTH_IT", 0)
    monkeypatch.setattr(encoder, "GRAPHS", ("onnx",))
    monkeypatch.setattr(computation, "GRAPHS", ("onnx",))
    # Each is timed by two readings: PyTorch takes three ticks, the other one.
    clock = (4 * turn + tick for turn in range(100) for tick in (0, 3, 3, 4))
    monkeypatch.setattr("onemask.runtime.choice.time.perf_counter", lambda: next(clock))
    method, clip = tiny_frtm(), moving_shapes(2)
    session = Session(method, device="cpu")
    session.annotate(clip.frames[0], clip.label_maps[0])
    assert session.runtime == "onnx"
    (kept,) = (own_home / "runtimes").glob("*.json")
    assert json.loads(kept.read_text())["chosen"] == "onnx"
    monkeypatch.setattr(computation, "choose", None)  # not asked again
    again = Session(method, device="cpu")
    with caplog.at_level(logging.INFO):
        again.annotate(clip.frames[0], clip.label_maps[0])
    assert again.runtime == "onnx"
    assert "the fastest when checked on this machine; measured then: torch 3000 ms, onnx 1000 ms" in caplog.text


@pytest.mark.parametrize("of_features", ["onnx", "torch"])
def test_each_network_of_a_restored_session_is_computed_by_what_auto_chose(of_features, graph_runtime, monkeypatch):
    chosen, runtime = {}, computation.Computation.runtime

    def noted(task, *asked):
        found = runtime(task, *asked)
        chosen[task.what] = found[0]
        return found

    for module in (encoder, segmenter):
        monkeypatch.setattr(module, "WORTH_IT", 0)
    monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
    monkeypatch.setattr(computation, "GRAPHS", ("onnx",))
    others = "torch" if of_features == "onnx" else "onnx"
    fastest = {"features": of_features, "network": others}
    monkeypatch.setattr(computation, "choose", lambda ways, given, what, *_: fastest[what])
    monkeypatch.setattr(computation.Computation, "runtime", noted)
    method, clip, path = tiny_frtm(), moving_shapes(4), cache.folder() / "session"
    session = Session(method, device="cpu")
    label_maps(session, clip.frames[:2], clip.label_maps[0])
    assert chosen == fastest
    session.save(path)
    chosen.clear()
    restored = Session.restore(path, method, device="cpu")
    assert restored.runtime == of_features
    restored.save(path)  # before its first frame
    restored = Session.restore(path, method, device="cpu")
    for frame in clip.frames[2:]:
        assert np.array_equal(restored.step(frame), session.step(frame))
        assert np.array_equal(restored.probabilities[1], session.probabilities[1])
    assert chosen["network"] == others
    assert chosen.get("features", "torch") == of_features == restored.runtime


def test_other_work_in_most_rounds_does_not_decide(own_home, monkeypatch):
    now, disturbed = [0.0], iter([0, 9, 9, 9, 0])

    def takes(seconds):
        def way(given):
            now[0] += seconds()
            return []

        return way

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    ways = {"torch": takes(lambda: 3), "onnx": takes(lambda: 1 + next(disturbed))}
    assert choice.choose(ways, {}, "features", "key", 1) == "onnx"


def test_a_choice_is_made_again_on_another_processor(own_home, monkeypatch):
    ways = {"torch": lambda given: [], "onnx": lambda given: []}
    chosen = choice.choose(ways, {}, "features", "key", 1)
    told, measured = choice.kept_choice("key", 1)
    assert told == chosen
    assert re.fullmatch(r"torch \d+ ms, onnx \d+ ms", measured)
    assert choice.kept_choice("key", 2) is None
    choice.choose(ways, {}, "features", "key", 2)  # which does not replace the other
    assert choice.kept_choice("key", 1) == (told, measured)
    monkeypatch.setattr(choice, "_processor", lambda: "another")
    assert choice.kept_choice("key", 1) is None


def test_a_processor_is_told_by_what_it_has_not_by_the_machines_name(monkeypatch):
    told, processors = choice._processor.__wrapped__, "processor : {}\nmodel name : EPYC\ncpu MHz : {}\nflags : {}\n\n"
    found = []
    for number, speed, flags in ((0, 2400, "avx2"), (3, 1100, "avx2"), (0, 2400, "avx2 avx512f")):
        read = processors.format(number, speed, flags) * 2
        monkeypatch.setattr(choice.Path, "read_text", lambda *_, read=read, **__: read)
        monkeypatch.setattr(choice.platform, "node", lambda: f"container {len(found)}")
        found.append(told())
    assert found[0] == found[1] != found[2]
    assert "EPYC" in found[0]
    for nothing in ("", "Hardware : board\n"):
        monkeypatch.setattr(choice.Path, "read_text", lambda *_, nothing=nothing, **__: nothing)
        monkeypatch.setattr(choice.platform, "node", lambda: "laptop")
        assert "laptop" in told()


@pytest.mark.parametrize("other_works", [True, False])
def test_auto_says_what_it_does_where_one_of_its_runtimes_fails(other_works, own_home, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("illegal instruction")

    def other(*_):
        return (lambda given: [given["x"]]) if other_works else broken()

    monkeypatch.setattr(computation, "problem_with", lambda name: None)
    monkeypatch.setattr(computation, "onnx_engine", broken)
    monkeypatch.setattr(computation, "openvino_engine", other)
    monkeypatch.setattr(computation, "choose", lambda ways, *_: max(ways.keys() - {"torch"}))
    task = computation.Computation("features", "key", lambda given: [given["x"]], lambda: b"")
    with caplog.at_level(logging.INFO):
        found, _ = task.runtime("auto", [{"x": torch.ones(2)}], 1)
    assert found == ("openvino" if other_works else "torch")
    assert "illegal instruction); auto chooses among the others" in caplog.text
    assert ("auto chooses torch for features" in caplog.text) != other_works
    assert "PyTorch computes it" not in caplog.text


@pytest.mark.parametrize("damage", ["a bit", "cut", "its digest"])
def test_a_damaged_graph_is_made_again(own_home, damage):
    made = []

    def make() -> bytes:
        made.append(1)
        return bytes(range(100))

    for _ in range(2):
        assert cache.kept("key", make) == bytes(range(100))
    assert len(made) == 1
    path, digest = (own_home / "runtimes" / f"key.{suffix}" for suffix in ("onnx", "sha256"))
    if damage == "its digest":
        digest.write_bytes(b"\xff\x00")
    else:
        path.write_bytes(bytes(range(99)) + b"!" if damage == "a bit" else bytes(range(50)))
    for _ in range(2):
        assert cache.kept("key", make) == bytes(range(100))
    assert len(made) == 2


def test_a_session_computes_with_a_graph_that_was_damaged(graph_runtime, own_home, caplog):
    method, clip = tiny_frtm(), moving_shapes(1)
    for _ in range(2):
        session = Session(method, device="cpu", runtime="onnx")
        session.annotate(clip.frames[0], clip.label_maps[0])
        assert session.runtime == "onnx"
        for path in (own_home / "runtimes").glob("*.onnx"):
            path.write_bytes(path.read_bytes()[:-1000])
    assert "PyTorch computes" not in caplog.text


@pytest.mark.parametrize(
    ("runtime", "device", "precision"),
    [("openvino", "meta", "float32"), ("onnx", "meta", "bfloat16"), ("onnx", "cpu", "bfloat16")],
)
def test_a_default_runtime_gives_way_to_a_device_or_precision_that_was_chosen(monkeypatch, runtime, device, precision):
    monkeypatch.setattr(encoder, "problem_with", lambda name: None)
    monkeypatch.setenv("ONEMASK_RUNTIME", runtime)
    asked = {"device": torch.device(device), "precision": precision}
    chosen = encoder.encoder_of(tiny_frtm(), "auto", **asked)
    assert (chosen.asked, chosen.in_torch) == ("torch", precision)
    with pytest.raises(InputError, match=f"runtime {runtime} computes on a CPU"):
        encoder.encoder_of(tiny_frtm(), runtime, **asked)


def test_auto_is_pytorch_where_nothing_else_is_installed(monkeypatch):
    monkeypatch.setenv("ONEMASK_RUNTIME", "auto")
    monkeypatch.setattr(encoder, "WORTH_IT", 0)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    method, clip = tiny_frtm(), moving_shapes(2)
    session = Session(method, device="cpu")
    session.annotate(clip.frames[0], clip.label_maps[0])
    assert session.runtime == "torch"


def test_an_exported_graph_names_what_it_gives(graph_runtime):
    import onnx

    method = tiny_frtm().eval()
    size = Geometry.of((64, 96), None, method.stride).padded
    model = onnx.load_model_from_string(graphs.onnx_of(method, size))
    assert [i.name for i in model.graph.input] == ["frame"]
    names = [o.name for o in model.graph.output]
    assert names[0] == "target"
    assert all(name.startswith("shared.") for name in names[1:])


def test_a_graph_is_the_same_whether_or_not_the_method_has_run(graph_runtime):
    """What is measured for eight bits goes by the names in it; the first run folds the batch norms."""
    method = tiny_frtm().eval()
    method.traceable = False  # as of a method whose backbone alone is a graph
    assert graphs.onnx_of(method, (64, 96)) == graphs.onnx_of(method, (64, 96))


def test_that_compiling_takes_long_is_said_before_it_begins(monkeypatch, caplog):
    def compile_it(function, example):
        assert "compiling a square, which takes a minute or more" in caplog.text
        return function

    monkeypatch.setattr(computation, "compiled_engine", compile_it)
    smallest = computation.Computation("a square", "square", lambda given: [given["x"] ** 2 + 1], graph=bytes)
    assert smallest.runtime("compiled", [{"x": torch.ones(2, 3)}], threads=1)[0] == "compiled"


def test_what_is_compiled_gives_pytorchs_result():
    if problem := engines.problem_with("compiled"):
        pytest.skip(f"compiled {problem}")  # of one small kernel: a whole method takes a minute
    smallest = computation.Computation("a square", "square", lambda given: [given["x"] ** 2 + 1], graph=bytes)
    chosen, run = smallest.runtime("compiled", [{"x": torch.rand(2, 3)}, {"x": torch.ones(2, 3)}], threads=1)
    assert (chosen, run is None) == ("compiled", False)
    assert torch.allclose(run({"x": torch.full((2, 3), 3.0)})[0], torch.tensor(10.0))


def test_ctrl_c_is_caught_after_openvino_was_used(tmp_path):
    """Its processors' plug-ins replace the stack that signals are handled on, and each takes its own away again."""
    pytest.importorskip("openvino", reason="needs the extra openvino")
    onnx = pytest.importorskip("onnx", reason="needs the extra openvino")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [[value(name, onnx.TensorProto.FLOAT, [4])] for name in ("x", "y")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "relu", *ends), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "relu.onnx")
    program = """
        import os, signal, sys
        from pathlib import Path
        import torch
        from onemask.runtime.engines import openvino_engine

        graph = Path(sys.argv[1]).read_bytes()
        engines = [openvino_engine(graph, 1) for _ in range(2)]
        assert all(engine({"x": -torch.ones(4)})[0].eq(0).all() for engine in engines)
        while engines:
            del engines[0]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is begun without
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print("caught")
    """
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), tmp_path / "relu.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "caught\n"), done.stderr[-2000:]
