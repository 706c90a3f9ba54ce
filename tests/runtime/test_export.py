"""An export runs without onemask, and gives the same masks."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onemask import Session
from onemask.blocks.matching import GROUP, top_k
from onemask.errors import InputError, OutputError
from onemask.files import fingerprint
from onemask.geometry import Geometry
from onemask.labels import EPSILON, aggregate, resize
from onemask.methods import configuration
from onemask.methods.method import Memory
from onemask.methods.whereabouts import annotated_there, found_there, within_reach
from onemask.runtime import export as export_module
from onemask.runtime.engines import openvino_engine
from onemask.runtime.export import PROGRAM, export
from onemask.runtime.graphs import traced
from onemask.runtime.manifest import reach_of, resizing_of
from onemask.runtime.quantisation import quantise
from onemask.testing import moving_shapes

TINY = {"backbone": "test_efficientnet"}


@pytest.fixture(autouse=True)
def packages():
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.mark.parametrize(
    ("name", "format", "short_side"),
    [
        ("pmvos-lite", "onnx", 480),
        ("ttvos-lite", "openvino", None),
        ("videomatch-lite", "onnx", 48),
        ("videomatch-lite", "openvino", None),
    ],
)
def test_the_reference_program_gives_the_same_masks(name, format, short_side, tmp_path):
    """Frames are enlarged, left, or shrunk; and padded. One object comes later, and one is corrected."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(format, format), reason=f"needs the extra {format}")
    torch.manual_seed(0)
    method = configuration(name, TINY).build(pretrained=False).eval()
    clip = moving_shapes(5, 2, (70, 100))
    labels = np.zeros((5, 70, 100), np.uint8)
    labels[0], labels[0, :3] = np.where(clip.label_maps[0] == 1, 4, clip.label_maps[0]), 255
    labels[2, 40:60, 20:50] = 1
    labels[3] = 2 * (clip.label_maps[3] == 2)
    exported = export(method, tmp_path / "out", name=name, frame_size=(70, 100), format=format, short_side=short_side)
    assert exported.missing is None
    graphs = json.loads((tmp_path / "out/manifest.json").read_text())["graphs"]
    remembered = {name: of["shape"] for name, of in graphs["update"]["inputs"].items() if name.startswith("memory.")}
    told = {name.rstrip("'"): of["shape"] for name, of in graphs["memorize"]["outputs"].items()}
    assert remembered.items() <= told.items()
    np.save(tmp_path / "frames.npy", np.stack(clip.frames))
    np.save(tmp_path / "labels.npy", labels)
    blocked = "".join(f"sys.modules['{module}'] = None; " for module in ("torch", "onemask", "cv2"))
    program = (
        f"import sys; {blocked}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    files = [tmp_path / "out" / "run.py", tmp_path / "frames.npy", tmp_path / "labels.npy", tmp_path / "found.npy"]
    subprocess.run([sys.executable, "-c", program, *map(str, files)], check=True)
    session = Session(method, device="cpu", runtime="torch", short_side=short_side)
    wanted = [
        session.annotate(frame, given, void=255) if given.any() else session.step(frame)
        for frame, given in zip(clip.frames, labels, strict=True)
    ]
    assert {*np.unique(wanted)} == {0, 1, 2, 4}  # there is something to be equal
    assert (np.load(tmp_path / "found.npy") != np.stack(wanted)).mean() < 1e-3


def test_the_best_matches_are_the_same_in_openvino():
    """OpenVINO read the empty list of templates in no group as one more candidate, the first template."""
    pytest.importorskip("openvino", reason="needs the extra openvino")
    generator = torch.Generator().manual_seed(0)
    query, template = (torch.rand(1, 8, count, generator=generator) for count in (20, 12 * GROUP))
    template[..., 0] = 2  # the best of all, so it would be counted twice

    def best(given):
        return list(top_k(given["query"], given["template"], 3))

    given = {"query": query, "template": template}
    wanted, _ = best(given)
    found, _ = openvino_engine(traced(nn.Identity(), best, given, ("values", "indices")), 1)(given)
    assert torch.allclose(found.sort().values, wanted.sort().values, atol=1e-5)


def test_what_differs_in_the_runtime_that_it_is_for_is_not_exported(tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    made = export_module.openvino_engine

    def off(graph, threads):
        run = made(graph, threads)
        return lambda given: [-tensor if tensor.is_floating_point() else tensor for tensor in run(given)]

    monkeypatch.setattr(export_module, "openvino_engine", off)
    torch.manual_seed(0)
    method = configuration("pmvos-lite", TINY).build(pretrained=False).eval()
    for format, graphs in (("onnx", 4), ("openvino", 1)):
        exported = export(method, tmp_path / format, name="pmvos-lite", frame_size=(64, 96), format=format)
        assert len(exported.graphs) == graphs
    assert "their masks differ from PyTorch's in" in exported.missing


def test_the_reference_program_takes_one_label_map_and_begins_with_nothing(tmp_path):
    torch.manual_seed(0)
    method = configuration("ttvos-lite", TINY).build(pretrained=False).eval()
    export(method, tmp_path, name="ttvos-lite", frame_size=(64, 96), format="onnx", short_side=None)
    clip, program = moving_shapes(2, 1, (64, 96)), runpy.run_path(str(tmp_path / "run.py"))["main"]
    frames, labels = np.stack(clip.frames), clip.label_maps[0].astype(np.uint8)
    session = Session(method, device="cpu", runtime="torch", short_side=None)
    wanted = np.stack([session.annotate(frames[0], labels), session.step(frames[1])])
    assert np.array_equal(program(frames, labels), wanted)
    later = np.stack([np.zeros_like(labels), labels])
    assert np.array_equal(program(frames, later), later)
    with pytest.raises(SystemExit, match="frames of 64x96 are expected"):
        program(frames[:, 1:], labels)
    with pytest.raises(SystemExit, match=r"all uint8; got \(2, 64, 96, 3\) float64"):
        program(frames / 255, labels)
    for empty, number in ((np.full_like(labels, 255), 0), (np.stack([labels, np.full_like(labels, 255)]), 1)):
        with pytest.raises(SystemExit, match=f"the label map of frame {number} has no object"):
            program(frames, empty)


def test_the_reference_program_keeps_an_object_whose_correction_vanishes_at_the_working_size(tmp_path):
    torch.manual_seed(0)
    method = configuration("ttvos-lite", TINY).build(pretrained=False).eval()
    export(method, tmp_path, name="ttvos-lite", frame_size=(128, 192), format="onnx", short_side=32)
    clip, program = moving_shapes(4, 1, (128, 192)), runpy.run_path(str(tmp_path / "run.py"))
    labels = np.zeros((4, 128, 192), np.uint8)
    labels[0], labels[2, 0, 0], labels[2, 80:, 150:] = 5 * (clip.label_maps[0] == 1), 5, 2
    session, objects = Session(method, device="cpu", runtime="torch", short_side=32), program["Objects"]()
    for frame, given in zip(clip.frames, labels, strict=True):
        wanted = session.annotate(frame, given) if given.any() else session.step(frame)
        assert (objects.next(frame, given) != wanted).mean() < 1e-3
        assert tuple(objects.memories) == session.objects
    assert session.objects == (5, 2)
    assert (wanted == 5).any()


def program_beside(folder: Path, geometry: Geometry, **changed: Any) -> dict[str, Any]:
    """What the reference program has, with a manifest for a geometry but no graphs."""
    (folder / "run.py").write_text(PROGRAM.read_text())
    borders = dict(zip(("above", "below", "left", "right"), geometry.borders, strict=True))
    frame = {"borders": borders, "size": geometry.own, "working size": geometry.working, "padding": geometry.padding}
    told = {"frame": frame, "resizing": resizing_of(geometry), "labels": {"unknown": 255}, "epsilon": EPSILON}
    manifest = told | {"reach": None, "background": "product"} | changed
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return runpy.run_path(str(folder / "run.py"))


GEOMETRIES = {  # of frames of 60x92, which are padded
    "at a quarter": ({"short_side": 15}, "areas", "areas", "half to even"),
    "at a half": ({"short_side": 30}, "areas", "areas", "half up"),
    "at all of it": ({"short_side": 60}, "none", "none", "half to even"),
    "magnified": ({"short_side": 60, "magnify": 1.3}, "cubic", "linear", "half to even"),
    "doubled": ({"short_side": 200, "least_side": 120}, "cubic", "linear", "half to even"),
}


@pytest.mark.parametrize("padding", ["edge", "reflected"])
@pytest.mark.parametrize(("options", "of_frames", "of_masks", "rounding"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_frames_and_masks_are_resized_as_the_manifest_says(options, of_frames, of_masks, rounding, padding, tmp_path):
    """The reference program follows it, and a session. Means of four pixels often lie halfway between two values."""
    geometry, random = Geometry.of((60, 92), stride=8, padding=padding, **options), np.random.default_rng(0)
    told = resizing_of(geometry)
    assert (told["frame"], told["mask"], told["rounding"]) == (of_frames, of_masks, rounding)
    assert told["kernels"].keys() == {of_frames, of_masks, told["probabilities"], "linear"}
    program, cpu = program_beside(tmp_path, geometry), torch.device("cpu")
    picture, labels = (
        random.integers(0, 256, (60, 92, 3), np.uint8),
        np.kron(np.eye(4, dtype=np.uint8), np.ones((15, 23))),
    )
    found = program["picture"](picture)
    differing = found != geometry.frames([picture], cpu).numpy()
    assert differing.mean() <= (2e-3 if of_frames == "cubic" else 0)  # cubic sums lie close to a half, at times
    assert np.abs(found - geometry.frames([picture], cpu).numpy()).max() < 1.5 / 255
    mask = program["mask_of"](labels, 1)
    assert np.allclose(mask, geometry.masks(labels, [1], cpu)[0, 0], atol=1e-5)
    back = resize(geometry.crop(torch.from_numpy(mask)[None, None]), geometry.own)[0, 0]
    assert np.allclose(program["cropped"](mask), back, atol=1e-5)


@pytest.mark.parametrize("changed", [{"cubic a": -0.5}, {"frame": "linear"}, {"rounding": "half up"}])
def test_the_reference_program_reads_the_numbers_in_the_manifest(changed, tmp_path):
    halves = changed.get("rounding") is not None
    geometry = Geometry.of((64, 96), 16 if halves else 64, 8, magnify=1.0 if halves else 1.5)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    before = program_beside(tmp_path, geometry)["picture"](picture)
    after = program_beside(tmp_path, geometry, resizing=resizing_of(geometry) | changed)["picture"](picture)
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("background", ["product", "least", "softmax"])
def test_the_reference_program_sets_objects_against_each_other_as_a_session_does(background, tmp_path):
    """Three objects, of which two are alike in some pixels."""
    program = program_beside(tmp_path, Geometry.of((8, 12), None, 4), background=background)
    logits = 4 * torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0))
    logits[1, :2] = logits[0, :2]
    found = program["aggregated"](logits.sigmoid().numpy())
    objects, of_background = aggregate(logits[:, None].sigmoid(), background=background)
    assert np.allclose(found, torch.cat([of_background, objects])[:, 0].numpy(), atol=1e-5)


def test_the_program_follows_where_objects_are_as_a_session_does(tmp_path):
    program = program_beside(tmp_path, Geometry.of((128, 512), None, 8), reach=reach_of(0.2))

    def until(right: int) -> torch.Tensor:
        masks = torch.zeros(1, 1, 128, 512)
        masks[..., :right] = 1
        return masks

    far = torch.full((1, 1, 128, 512), -3.0)
    far[..., 208:336] = 3
    memory = Memory(**annotated_there(until(128)))
    theirs = program["Whereabouts"](until(128)[0, 0].numpy())
    kept = []
    for right in (96, 64, 32, 8, 0, 0, 0, 128):  # it goes out of sight, and comes back
        memory = Memory(**found_there(memory, until(right)))
        theirs.follow(until(right)[0, 0].numpy())
        ours = within_reach(far, memory, 0.2)
        kept.append(bool((ours > 0).any()))
        assert np.allclose(theirs.within(far[0, 0].numpy()), ours[0, 0].numpy())
    assert kept == [False] * 6 + [True, False]


def test_of_a_method_that_solves_what_can_be_a_graph_is_written_and_the_rest_is_named(tmp_path, make_frtm, capfd):
    method = make_frtm(first_iterations=(1,), first_last_iterations=1, update_iterations=1).eval()
    exported = export(method, tmp_path, name="frtm", frame_size=(64, 96), format="onnx")
    assert capfd.readouterr().out == ""  # PyTorch's exporter would write the graph that it cannot finish
    assert exported.graphs == ("encode",)
    assert exported.missing.startswith("PyTorch's exporter cannot trace what the method computes for an object (")
    assert json.loads((tmp_path / "manifest.json").read_text())["loop"] == exported.missing
    assert not (tmp_path / "run.py").exists()
    again = {"name": "frtm", "frame_size": (64, 96), "format": "onnx", "overwrite": True}
    export(method, tmp_path, **again)
    assert {path.name for path in tmp_path.iterdir()} == {"encode.onnx", "manifest.json"}
    (tmp_path / "run.py").write_text("mine")
    with pytest.raises(OutputError, match=r"run\.py was not written by an export, .*, so it is not replaced"):
        export(method, tmp_path, **again)


@pytest.mark.parametrize("earlier", [False, True])
def test_an_export_that_was_interrupted_says_so_and_can_be_made_again(earlier, tmp_path, monkeypatch, make_frtm):
    """Of a method with fewer graphs than the earlier export has."""
    method = make_frtm(first_iterations=(1,), first_last_iterations=1, update_iterations=1).eval()
    files = {"encode.onnx": b"a new graph"}
    monkeypatch.setattr(export_module, "_write_onnx", lambda graph, model: files)
    again = {"name": "frtm", "frame_size": (64, 96), "format": "onnx", "overwrite": True}
    if earlier:
        monkeypatch.setattr(export_module, "_write_onnx", lambda graph, model: {"encode.onnx": b"an old graph"})
        export(method, tmp_path, **again)
        monkeypatch.setattr(export_module, "_write_onnx", lambda graph, model: files)
    (tmp_path / "run.py").write_bytes(PROGRAM.read_bytes())
    known = json.loads((tmp_path / "manifest.json").read_text()) if earlier else {"files": {}}
    known["files"]["run.py"] = fingerprint(tmp_path / "run.py")
    (tmp_path / "manifest.json").write_text(json.dumps(known))
    files["segment.onnx"] = b"another"
    written = []

    def killed(path, data):
        if written:
            path.with_name(f".{path.stem}.1-1.partial{path.suffix}").write_bytes(data[:3])
            raise KeyboardInterrupt
        written.append(path.name)
        path.write_bytes(data)

    with monkeypatch.context() as patched:
        patched.setattr(export_module, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            export(method, tmp_path, **again)
    assert written == ["encode.onnx"]
    with pytest.raises(SystemExit, match="was interrupted; run onemask export again"):
        runpy.run_path(str(tmp_path / "run.py"))
    (tmp_path / "update.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"update\.onnx was not written by an export"):
        export(method, tmp_path, **again)
    (tmp_path / "update.onnx").unlink()
    export(method, tmp_path, **again)
    assert {path.name for path in tmp_path.iterdir()} == {"encode.onnx", "segment.onnx", "manifest.json"}
    assert "unfinished" not in json.loads((tmp_path / "manifest.json").read_text())


def test_a_method_that_joins_others_is_refused_before_anything_is_made(tmp_path):
    method = nn.Module()
    method.backbone = None
    with pytest.raises(InputError, match="best cannot be exported: it joins several methods"):
        export(method, tmp_path / "out", name="best", frame_size=(64, 96), format="onnx")
    with pytest.raises(InputError, match="best cannot be quantised: it joins several methods"):
        quantise(method, [], name="best", described="")
    assert not (tmp_path / "out").exists()
