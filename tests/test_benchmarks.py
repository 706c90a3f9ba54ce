"""The scripts in benchmarks/ run, and are called as documents say; on tiny data, so that nothing is measured."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from onemask.cli import parser
from onemask.evaluation.compare import Variant
from onemask.methods import configuration
from onemask.methods.options import parse_assignments
from onemask.settings import Settings
from onemask.training.recipe import read_recipe
from onemask.video.masks import write_mask
from onemask.video.sample import SampleClip
from videos import Scene, write_video

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
DOCUMENTS = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "Makefile", *ROOT.glob("docs/**/*.md")]
DOCUMENTS = sorted([*DOCUMENTS, *BENCHMARKS.glob("*.py"), *BENCHMARKS.glob("*.md")])
STANDS_FOR = {"METHOD": "ttvos-lite", "NAME": "ttvos-lite", "NUMBER": "1", "N": "1"}  # words in quoted commands
HEIGHT, WIDTH = 64, 96
QUICK = "ttvos-lite"


@cache
def module_of(script: str) -> ModuleType:
    """A script, imported under a name of its own."""
    if script.startswith("studio"):
        pytest.importorskip("playwright", reason="the studio's benchmarks need the extra dev")
    if script == "ttvos_weight":
        pytest.importorskip("matplotlib", reason="figures need the extra plot")
    spec = importlib.util.spec_from_file_location(f"benchmark_{script}", BENCHMARKS / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch, tmp_path):
    """Scripts find one another, as they do when they are run, and write nothing into the repository."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def called(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a script with these arguments; what it printed."""

    def call(script: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, words)])
        capsys.readouterr()
        module_of(script).main()
        printed = capsys.readouterr().out
        assert "nan" not in re.findall(r"\w+", printed)
        return printed

    return call


# How they are called --------------------------------------------------------------------------------------------------


class Parsed(Exception):
    """The arguments are read; nothing is to be run."""


def quoted(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Script, arguments, and whether they are all of them, of each command in a document."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    for script, rest in re.findall(r"`(?:python\s+)?benchmarks/(\w+)\.py([^`]*)`", text):
        yield script, rest, False  # in a sentence; what is always needed may be left out
    for script, rest in re.findall(r"^[^`\n]*?python benchmarks/(\w+)\.py([^`\n]*)$", text, re.M):
        yield script, re.split(r"\s#|\s{4}", rest)[0], True


def words_of(text: str) -> list[str]:
    """The words of a command, with what is optional in it, and something for what stands for something."""
    return [STANDS_FOR.get(word, word) for word in shlex.split(re.sub(r"[\[\]]|\.\.\.", "", text))]


def parsed(script: str, words: list[str], whole: bool, monkeypatch) -> argparse.Namespace:
    """What the script's own parser makes of the words."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_alone(self, args=None, namespace=None):
        for action in () if whole else self._actions:
            action.required = False
        raise Parsed(parse_args(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    with pytest.raises(Parsed) as caught:
        module_of(script).main()
    return caught.value.args[0]


def refuse_unknown(options: argparse.Namespace) -> None:
    """Raise an error where a method, or an option of one, is none."""
    given = vars(options)
    names = given.get("methods") or given.get("method") or []
    values = [value for value in given.get("set") or [] if value != "NAME=VALUE"]
    for name in [names] if isinstance(names, str) else names:
        configuration(name, parse_assignments([] if "recipe" in given else values))
    for text in given.get("variant") or []:
        settings = Variant.parse(text, Settings()).settings
        configuration(settings.method, settings.options)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_docstring(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module_of(script).main()
    assert ended.value.code == 0
    assert str(module_of(script).__doc__).splitlines()[0][:60] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_quoted_commands_are_ones_that_the_scripts_take(path, monkeypatch):
    for script, rest, whole in quoted(path):
        words = words_of(rest)
        with monkeypatch.context() as patched:
            try:
                options = parsed(script, words, whole, patched)
            except SystemExit:
                pytest.fail(f"{script}.py does not take{rest}")
        refuse_unknown(options)
        assert not [word for word in words if word.endswith(".yaml") and not (ROOT / word).exists()], rest


@pytest.mark.parametrize("page", sorted(BENCHMARKS.glob("*.md")), ids=lambda page: page.name)
def test_quoted_commands_are_ones_that_onemask_takes(page):
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for command in re.findall(r"^    onemask (.*)$", text, re.M):
        words = words_of(re.split(r"\s#", command)[0])
        words += ["--out", "OUT"] if words[0] == "evaluate" and "--out" not in words else []
        try:
            refuse_unknown(parser().parse_args(words))
        except SystemExit:
            pytest.fail(f"onemask does not take {command}")
        assert not [word for word in words if word.startswith("recipes/") and not (ROOT / word).exists()], command


# What they stand on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "switches").glob("*.yaml")), ids=lambda path: path.name)
def test_rows_of_switches_are_recipes(path):
    import yaml

    asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    for row in asked["rows"].values():
        assert read_recipe(path.parent / asked["recipe"], [*asked["common"], *row]).stages


def test_switches_compare_seed_by_seed():
    """A row that lacks a seed yet is compared with the first row's same seeds."""
    scores = [{"J&F": value, "J": value + 1, "F": value - 1} for value in (60.0, 80.0, 63.0)]
    printed = module_of("switches").table({"whole": scores[:2], "without": scores[2:]})
    assert "| whole | 70.0 | 71.0 | 69.0 | +0.0 | 60.0, 80.0 |" in printed
    assert "| without | 63.0 | 64.0 | 62.0 | +3.0 | 63.0 |" in printed


def test_faults_stand_in_the_code_and_name_tests():
    mutations = module_of("mutations")
    for fault in mutations.FAULTS:
        assert (mutations.SOURCE / fault.file).read_text(encoding="utf-8").count(fault.old) == 1, fault.name
        assert all((ROOT / test).exists() for test in fault.tests.split()), fault.name


def test_what_is_killed_is_a_command():
    faults = module_of("faults")
    for method in ("ttvos-lite", *faults.QUICKER):
        for what in ("run", "evaluate"):
            options = parser().parse_args([*faults.command(Path("inputs"), method, what), "--out", "out", "--resume"])
            refuse_unknown(options)


@pytest.mark.parametrize("script", ["studio", "studio_tour"])
def test_the_page_has_what_is_clicked(script):
    page = (ROOT / "src/onemask/studio/static/index.html").read_text(encoding="utf-8")
    text = (BENCHMARKS / f"{script}.py").read_text(encoding="utf-8")
    used = set(re.findall(r"""["']#([a-z-]{4,})""", text))
    assert used - set(re.findall(r'id="([^"]+)"', page)) == set()
    assert len(used) >= 2


def test_commands_that_the_fuzz_breaks_were_whole():
    pytest.importorskip("pydantic")
    from onemask.studio.commands import COMMAND

    for command in module_of("studio_fuzz").VALID:
        COMMAND.validate_json(json.dumps(command))


# Tiny runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> SampleClip:
    """A small clip in the place of the one that ships."""
    scene = Scene.of(42, 48, 64)
    path = write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", scene.images)
    return SampleClip(path, list(scene.labels))


@pytest.fixture
def on_a_small_clip(clip, monkeypatch) -> Callable[[str], ModuleType]:
    def prepared(script: str) -> ModuleType:
        monkeypatch.setattr(module_of(script), "sample_clip", lambda: clip)
        return module_of(script)

    return prepared


def write_sequence(root: Path, name: str, scene: Scene, value: int, resolution: str = "") -> None:
    """A sequence's frames and annotations; value: of the object in the annotations."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / resolution / name).mkdir(parents=True)
    for index, (image, labels) in enumerate(zip(scene.images, scene.labels, strict=True)):
        Image.fromarray(image).save(root / "JPEGImages" / resolution / name / f"{index:05}.jpg", quality=95)
        write_mask(root / "Annotations" / resolution / name / f"{index:05}.png", labels * np.uint8(value))


def write_list(root: Path, year: int, split: str, names: list[str]) -> None:
    (root / "ImageSets" / str(year)).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / str(year) / f"{split}.txt").write_text("\n".join(names) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with davis-2016/, two sequences of 6 frames, and varied/, one of 4; long/ is one of 42 small frames."""
    data, names = tmp_path_factory.mktemp("data"), ["one", "two"]
    for name in names:
        write_sequence(data / "davis-2016", name, Scene.of(6, HEIGHT, WIDTH), 255, "480p")
        write_sequence(data / "made", name, Scene.of(6, HEIGHT, WIDTH), 1, "480p")
    write_list(data / "davis-2016", 2016, "dev", names)
    write_list(data / "made", 2017, "occluded", names)
    write_sequence(data / "long", "long", Scene.of(42, 48, 64), 255, "480p")
    write_list(data / "long", 2016, "dev", ["long"])
    write_sequence(data / "varied", "three", Scene.of(4, HEIGHT, WIDTH), 1)
    objects = {"1": {"category": "disc", "frames": [f"{index:05}" for index in range(4)]}}
    (data / "varied/meta.json").write_text(json.dumps({"videos": {"three": {"objects": objects}}}))
    return data


def test_accuracy(called, data, tmp_path):
    variants = [f"{QUICK} short_side=64", f"again: {QUICK} short_side=64"]
    words = [word for text in variants for word in ("--variant", text)]
    printed = called("accuracy", data, "--out", tmp_path, *words, "--worst", 1)
    assert "| `again` | 0.0 (0.0 to 0.0) | 0 of 3 | none that is certain |" in printed
    shares = re.findall(r"^\| `again`(?: \| [\d.]+ \([\d.]+\)){4} \|$", printed, re.M)
    assert len(shares) == 1
    assert len(list(tmp_path.glob("worst/*/*.png"))) == 2


def test_corrections(called, data, tmp_path):
    how = ["--on", "dev", "--out", tmp_path]
    called("corrections", "--data", data, *how, "--short-side", 64, "--method", QUICK)
    assert "mean of 2" in called("corrections", *how, "--table")
    assert "wrong pixels, mean of 2 videos" in called("corrections", "--data", data, *how, "--behind")


def test_dmn_aoa_parts(called, on_a_small_clip):
    on_a_small_clip("dmn_aoa_parts")
    times = called("dmn_aoa_parts", "--untrained", "--frames", 2, "--objects", 1).splitlines()[-1].split()
    assert all(float(milliseconds) > 0 for milliseconds in times)


def test_dmn_aoa_pictures(called, data, tmp_path):
    davis = data / "davis-2016"
    video, mask = davis / "JPEGImages/480p/one", davis / "Annotations/480p/one/00000.png"
    printed = called("dmn_aoa_pictures", video, "--mask", mask, "--frame", 5, "--out", tmp_path / "one")
    assert re.search(r"on the object in frame 5: \d+ % of the attention, \d+ % of the cells", printed)
    assert {path.name for path in tmp_path.glob("*.jpg")} == {"one-alignment.jpg", "one-memory.jpg"}


def test_first_mask(called, data):
    printed = called("first_mask", "--data", data, "--on", "dev", "--every", 2, "--variants", "GrabCut")
    assert printed.splitlines()[-1].startswith("mean of 1; GrabCut; ")


def test_flops(called):
    printed = called("flops", "--method", QUICK, "--size", f"{HEIGHT}x{WIDTH}", "--objects", 2)
    assert float(printed.splitlines()[-1].split(" | ")[4]) > 0


def test_frtm_parts(called, data, make_frtm, monkeypatch):
    module = module_of("frtm_parts")
    monkeypatch.setattr(module, "load", lambda name, weights=None, **options: make_frtm(**options).eval())
    printed = called("frtm_parts", data / "davis-2016", "--split", "dev")
    assert len(printed.splitlines()[-1].split()) == 10


@pytest.mark.parametrize("part", ["first", "frames", "steps"])
def test_frtm_time(part, called, on_a_small_clip, make_frtm, monkeypatch, tmp_path):
    if part != "steps":
        pytest.importorskip("matplotlib", reason="figures need the extra plot")
    module = on_a_small_clip("frtm_time")
    monkeypatch.setattr(module.onemask, "load", lambda name, weights=None, **options: make_frtm(**options).eval())
    for name, value in {"LARGEST": 6, "FIRST": 2, "OF_FIRST": (1,), "OF_FRAMES": (3,)}.items():
        monkeypatch.setattr(module, name, value)
    out = [] if part == "steps" else ["--out", tmp_path / "figure.png"]
    assert "target model update" in called("frtm_time", part, *out) or part == "first"
    assert part == "steps" or (tmp_path / "figure.png").exists()


def test_fuzz(called):
    assert called("fuzz", "--only", 1).split()[-1] in ("read", "refused")


def test_gpu(called, on_a_small_clip, tmp_path):
    on_a_small_clip("gpu")
    out = tmp_path / "gpu.json"
    called("gpu", "--out", out, "--device", "cpu", "--size", 32, "--frames", 2, "--objects", 1, "--methods", QUICK)
    results = json.loads(out.read_text())
    assert {"versions", "waits", "time", "agreement", "memory"} <= set(results)
    assert "error" not in [key for section in results.values() for of_method in section.values() for key in of_method]


def test_long(called, monkeypatch, tmp_path):
    from onemask.jobs.run_folder import RunFolder

    monkeypatch.setattr(module_of("long"), "EVERY", 4)
    monkeypatch.setattr(RunFolder, "checkpoint", RunFolder.checkpoint)  # which the script replaces
    called("long", "--out", tmp_path, "--frames", 9, "--direction", "both")
    printed = called("long", "--out", tmp_path, "--direction", "both", "--table")
    assert {line.split(" | ")[0] for line in printed.splitlines()[2:]} == {"| segmenting", "| backward pass"}


def test_matched_features(called, data, monkeypatch):
    monkeypatch.setattr(module_of("matched_features"), "SHORT_SIDE", 64)
    monkeypatch.setattr(module_of("matched_features"), "EVERY", 3)
    assert "pmvos-lite: varied" in called("matched_features", data, "pmvos-lite")


def test_measures(called, data):
    last = called("measures", data / "davis-2016", "--repeats", 1).splitlines()[-1].split(" | ")
    assert last[0] == "| all"
    assert float(last[-1].rstrip(" |")) < 1e-9


def test_perturbed(called, data, tmp_path):
    variant = f"quick: {QUICK} short_side=64"
    printed = called("perturbed", data / "made", "--out", tmp_path, "--splits", "occluded", "--variant", variant)
    assert printed.splitlines()[-1].startswith("| `quick` |")


def test_quick_look(called, data, monkeypatch):
    monkeypatch.setattr(module_of("quick_look"), "SHORT_SIDES", {"dev": 64, "varied": 64})
    lines = called("quick_look", data, QUICK).splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        f"{QUICK} dev one", f"{QUICK} dev two", f"{QUICK} dev", f"{QUICK} varied three", f"{QUICK} varied",
    ]  # fmt: skip


def test_runtimes(called, data, on_a_small_clip, monkeypatch, tmp_path):
    module, out = on_a_small_clip("runtimes"), tmp_path / "rows.jsonl"
    of_each = {"time": (QUICK, 480, 1, 1), "bound": (QUICK,), "accuracy": (QUICK, "dev")}
    monkeypatch.setattr(module, "float_runtimes", lambda: ["torch"])
    summarised = module.plan([QUICK], data, True)
    assert [kind for kind, _ in summarised] == ["time", "time", "memory", "auto", "accuracy"]
    assert module.plan([QUICK], data, False)[: len(summarised)] == summarised
    monkeypatch.setattr(module, "plan", lambda methods, data, summary: list(of_each.items()))
    monkeypatch.setattr(
        module, "timed", lambda *_: {"ms": {"torch": 8}, "faster": {"torch": 1}, "overhead": 2, "differ": {}}
    )
    called("runtimes", out, "--data", data)
    assert [json.loads(line)["kind"] for line in out.read_text().splitlines()] == list(of_each)
    printed = called("runtimes", out, "--print")
    assert printed.count("| --- |") == 4
    assert re.search(rf"\| {QUICK} \| torch \| 8 \| 1.00 \|  \|  \| \d+\.\d\d \| 0.0000 \|  \|  \|  \|", printed)


@pytest.mark.parametrize("words", [["--rounds", "1"], ["--parts"], ["--parts", "--live"], ["--steps"]], ids=" ".join)
def test_speed(words, called, on_a_small_clip):
    on_a_small_clip("speed")
    printed = called("speed", "--method", QUICK, "--objects", "1,2", *words)
    assert len(re.findall(r"^ttvos-lite\b.*", printed, re.M)) == 2
    milliseconds = re.findall(r"^\| \S.* \| ([\d.]+) \|", printed, re.M)
    assert bool(milliseconds) == ("--parts" in words)  # the others print no table
    assert all(float(each) > 0 for each in milliseconds)


def test_threads(called, on_a_small_clip):
    on_a_small_clip("threads")
    assert "| 40 | 0 | as they were |" in called("threads", "--seconds", 0, QUICK)


def test_ttvos_weight(called, data, tmp_path):
    called("ttvos_weight", data, "--size", 64, "--out", tmp_path / "weights.png")
    assert (tmp_path / "weights.png").exists()


def test_videomatch_parts(called, data):
    printed = called("videomatch_parts", data, "table5", "--size", 64, "--videos", "one")
    assert len(printed.splitlines()) == 6


def test_visible(called, data, tmp_path):
    words = ["--out", tmp_path / "visible.jsonl", "--method", QUICK, "--size", 48]
    assert called("visible", data / "long", *words).count(f"`{QUICK}`") == 4
