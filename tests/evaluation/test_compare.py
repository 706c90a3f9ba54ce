import csv
import gc
import hashlib
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import onemask
from onemask import lock
from onemask import settings as settings_module
from onemask.cli import main
from onemask.errors import InputError, OnemaskError, OutputError
from onemask.evaluation import compare as module
from onemask.evaluation import rows
from onemask.evaluation.chart import Box, Point, placed, write_chart
from onemask.evaluation.compare import Variant, compare, redraw
from onemask.evaluation.comparison import Comparison, Row
from onemask.evaluation.evaluate import evaluate
from onemask.settings import Settings
from onemask.video.masks import write_mask
from onemask.weights import store
from onemask.weights.store import find
from videos import QUICK, Scene, Still, write_images

SHARED = Settings(short_side=64, device="cpu")
FEW = {"first_iterations": "4", "first_last_iterations": 4, **QUICK, "finetune_iterations": 0}
QUICKLY = " ".join(f"{name}={value}" for name, value in FEW.items())
FIGURES = ["J&F", "J", "J-Recall", "J-Decay", "F", "F-Recall", "F-Decay"]
FILES = {f"comparison{suffix}" for suffix in (".md", ".csv", ".json", ".png", ".svg")}


def variants(*texts: str) -> list[Variant]:
    return [Variant.parse(text, SHARED) for text in texts]


ALONE, FEWER = (
    f"alone: frtm-lite target_only=true {QUICKLY}",
    f"never: frtm-lite update_every=0 {QUICKLY}".replace("capacity=8", "capacity=9"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset in DAVIS layout with two sequences."""
    root = tmp_path_factory.mktemp("davis")
    for name, ids in (("one", (1,)), ("two", (1, 2))):
        scene = Scene.of(frames=4, ids=ids)
        write_images(root / "JPEGImages" / "480p" / name, scene.images)
        for index, label_map in enumerate(scene.labels):
            write_mask(root / "Annotations" / "480p" / name / f"{index:05d}.png", label_map)
    for year in (2016, 2017):
        (root / "ImageSets" / str(year)).mkdir(parents=True)
        (root / "ImageSets" / str(year) / "val.txt").write_text("one\ntwo\n")
    return root


@pytest.fixture(scope="module")
def compared(root, tmp_path_factory) -> Path:
    """What a comparison of two leaves; no test changes it."""
    out = tmp_path_factory.mktemp("compared") / "out"
    compare(root, out, variants(ALONE, FEWER))
    return out


@pytest.fixture
def copied(compared, tmp_path) -> Path:
    shutil.copytree(compared, tmp_path / "out")
    return tmp_path / "out"


def written(out: Path) -> dict[str, int]:
    """When each file of the evaluations was written."""
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in (out / "evaluations").rglob("*.*") if p.is_file()}


def failing(monkeypatch, *labels: str) -> None:
    """Make the evaluation of these fail in a way that no one foresaw."""

    def fails(root, out, *arguments, **options):
        if out.name in labels:
            raise RuntimeError("out of memory")
        return evaluate(root, out, *arguments, **options)

    monkeypatch.setattr(module, "evaluate", fails)


def test_one_process_at_a_time(root, copied):
    """Neither a comparison nor a drawing goes on beside another process, and nothing changes."""
    before = written(copied)
    with lock.held(copied / ".onemask" / "lock"):
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="has been in use by"):
                compare(root, copied, variants(ALONE, FEWER), **how)
        with pytest.raises(OutputError, match="has been in use by"):
            redraw(copied)
    assert written(copied) == before


# What it leaves ------------------------------------------------------------------------------------------------------


def test_table_and_chart_hold_every_method(compared):
    assert {path.name for path in compared.iterdir()} == FILES | {"methods.json", "evaluations", ".onemask"}
    with (compared / "comparison.csv").open() as file:
        alone, never = csv.DictReader(file)
    scores = json.loads((compared / "evaluations" / "alone" / "scores.json").read_text())
    assert (alone["label"], never["label"]) == ("alone", "never")
    assert {name: float(alone[name]) for name in scores["global"]} == scores["global"]
    assert float(alone["seconds_per_frame"]) == scores["seconds_per_frame"]
    assert float(alone["frames_per_second"]) == pytest.approx(1 / scores["seconds_per_frame"])
    assert float(alone["fastest"]) <= float(alone["seconds_per_frame"]) <= float(alone["slowest"])
    assert 0 < int(alone["parameters"]) < int(never["parameters"])
    assert int(never["weights_bytes"]) == find("frtm-lite").stat().st_size
    assert (alone["size"], alone["ran"], alone["what"]) == (
        "64 pixels",
        "cpu, float32",
        f"frtm-lite target_only=true {QUICKLY}",
    )
    for suffix in (".png", ".svg"):
        assert (compared / f"comparison{suffix}").stat().st_size > 1000
    assert Image.open(compared / "comparison.png").width > 1000
    drawn = (compared / "comparison.svg").read_text()
    assert all(
        f"<!-- {text} -->" in drawn for text in ("alone", "never", "J&amp;F (%)", "frames per second (logarithmic)")
    )


@pytest.mark.parametrize("card", [True, False])
def test_weights_are_looked_up_and_hashed_once_a_row(root, tmp_path, monkeypatch, card):
    path = Path(shutil.copy(find("ttvos-lite"), tmp_path / "own.safetensors"))
    if card:
        shutil.copy(store.card_path(find("ttvos-lite")), store.card_path(path))
    done = []

    def counted(owner, name):
        whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: done.append(name) or whole(*given))

    counted(settings_module, "weights_for")
    counted(settings_module, "built")
    counted(store.Card, "read")
    counted(hashing := SimpleNamespace(sha256=hashlib.sha256), "sha256")
    monkeypatch.setattr(store, "hashlib", hashing)
    compare(root, tmp_path / "out", variants(f"own: ttvos-lite weights={path}"), sequences=["one"])
    # Built twice: first to see that it can be, before anything runs.
    assert sorted(done) == sorted(["weights_for", "built", "built", "sha256", *(["read"] if card else [])])


def test_one_method_is_in_memory_at_a_time(root, tmp_path, monkeypatch):
    loaded, at_once = [], []

    def remembered(name, *how):
        method = built(name, *how)
        loaded.append(weakref.ref(method))
        gc.collect()
        at_once.append(sum(one() is not None for one in loaded))
        return method

    built = settings_module.built
    monkeypatch.setattr(settings_module, "built", remembered)
    compare(root, tmp_path / "out", variants(ALONE, FEWER), sequences=["one"])
    assert at_once == [1, 1, 1, 1]


def test_the_markdown_says_what_was_measured_and_where(compared):
    text = (compared / "comparison.md").read_text()
    head, rule, *rows = [line for line in text.splitlines() if line.startswith("|")]
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    assert titles == ["method", *FIGURES, "frames/s", "ms per frame", "ms by sequence", "parameters", "weights"]
    assert rule.count("|") == head.count("|") == rows[0].count("|")
    assert [row.split("|")[1].strip() for row in rows] == ["alone", "never"]
    assert "# davis2016 val: 2 methods, 2 sequences" in text
    assert "- `alone`: frtm-lite target_only=true" in text
    assert "measured with: 64 pixels, cpu, float32." in " ".join(text.split())
    assert "(comparison.svg)" in text


def test_scores_are_those_of_evaluate(root, compared, tmp_path):
    alone = evaluate(
        root,
        tmp_path / "alone",
        replace(SHARED, method="frtm-lite", options=FEW | {"target_only": True}),
    )
    scores = json.loads((compared / "evaluations" / "alone" / "scores.json").read_text())
    assert scores["global"] == alone.scores.figures


def test_any_protocol_of_evaluate_is_compared(root, tmp_path):
    comparison = compare(root, tmp_path, variants(ALONE), protocol="davis2017", sequences=["two"])
    assert (comparison.rows[0].dataset, comparison.rows[0].sequences) == ("davis2017 val", ("two",))
    assert len(json.loads((tmp_path / "evaluations" / "alone" / "scores.json").read_text())["rows"]) == 2


# Going on ------------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_reused_and_said(root, copied):
    before, said = written(copied), []
    comparison = compare(root, copied, variants(ALONE, FEWER), say=said.append, resume=True)
    assert written(copied) == before
    assert [line.split(" in ")[0].split(", taken")[0] for line in said] == [
        "1 of 2, alone: already finished",
        "2 of 2, never: already finished",
    ]
    assert [row.label for row in comparison.rows] == ["alone", "never"]


def test_only_what_is_missing_is_run(root, copied):
    shutil.rmtree(copied / "evaluations" / "never" / "predictions" / "two")
    (copied / "evaluations" / "never" / "scores.json").unlink()
    before, said = written(copied), []
    compare(root, copied, variants(ALONE, FEWER), say=said.append, resume=True)
    after = written(copied)
    assert said[1].startswith("2 of 2, never: continues")
    kept = "evaluations/never/predictions/one/00000.png"
    assert after[kept] == before[kept]
    assert all(after[name] == time for name, time in before.items() if "/alone/" in name)
    assert "evaluations/never/predictions/two/00003.png" in after


def test_methods_that_are_added_stand_beside_earlier_ones(root, copied):
    before = written(copied)
    added = variants(ALONE.replace("alone:", "added:"))
    comparison = compare(root, copied, added, resume=True)
    assert [row.label for row in comparison.rows] == ["alone", "never", "added"]
    assert written(copied).items() >= before.items()
    assert [row["label"] for row in json.loads((copied / "comparison.json").read_text())["rows"]] == [
        *("alone", "never", "added")
    ]
    assert redraw(copied) == comparison


@pytest.mark.parametrize("how", ["unfinished", "another split", "other sequences", "unreadable"])
def test_earlier_methods_that_do_not_fit_are_named_and_left_out(root, copied, how):
    scores, said = copied / "evaluations" / "never" / "scores.json", []
    report = json.loads(scores.read_text())
    if how == "unfinished":
        scores.unlink()
    elif how == "another split":
        scores.write_text(json.dumps(report | {"asked": report["asked"] | {"split": "train"}}))
    elif how == "other sequences":
        scores.write_text(json.dumps(report | {"times": {"one": report["times"]["one"]}}))
    else:
        scores.write_text("{}")
    comparison = compare(root, copied, variants(ALONE), resume=True, say=said.append)
    assert [row.label for row in comparison.rows] == ["alone"]
    assert not comparison.failures
    assert said[-1].startswith("never, of an earlier call, is not in the table: ")


def test_overwrite_begins_anew(root, copied):
    before = written(copied)
    changed = variants(ALONE.replace("capacity=8", "capacity=9"))
    comparison = compare(root, copied, changed, overwrite=True)
    assert all(written(copied)[name] > time for name, time in before.items() if "/alone/" in name)
    assert [row.label for row in comparison.rows] == ["alone"]


def test_a_comparison_that_is_there_is_neither_extended_nor_replaced_unasked(root, copied):
    with pytest.raises(
        OutputError, match=r"exists already; it holds a comparison. Choose another place, or pass --res"
    ):
        compare(root, copied, variants(ALONE))
    (copied / "evaluations" / "alone" / "predictions" / "mine.png").write_text("an hour of work")
    with pytest.raises(OutputError, match=r"mine\.png is not onemask's"):
        compare(root, copied, variants(ALONE), overwrite=True)


def test_a_table_that_someone_wrote_is_not_replaced(copied):
    (copied / ".onemask" / "files.jsonl").unlink()
    with pytest.raises(OutputError, match=r"comparison\.json is in the way and not onemask's"):
        redraw(copied)


def test_a_record_that_leads_out_of_the_folder_is_refused(copied):
    (copied / "methods.json").write_text('{"alone": "../../elsewhere"}')
    with pytest.raises(InputError, match=r"methods\.json names '../../elsewhere'; expected a name that stays inside"):
        redraw(copied)


def test_an_interruption_is_no_failure(root, tmp_path):
    def stop(items, total, what):
        if what == "never: two":
            raise KeyboardInterrupt
        yield from items

    with pytest.raises(KeyboardInterrupt):
        compare(root, tmp_path, variants(ALONE, FEWER), progress=stop)
    assert not FILES & {path.name for path in tmp_path.iterdir()}
    said: list[str] = []
    assert not compare(root, tmp_path, variants(ALONE, FEWER), say=said.append, resume=True).failures
    assert ["already finished" in line for line in said] == [True, False]


def test_one_that_fails_does_not_cost_the_others(root, tmp_path, monkeypatch, capsys):
    failing(monkeypatch, "alone")
    arguments = ["compare", str(root), "--out", str(tmp_path), "--size", "64", "--device", "cpu"]
    assert main([*arguments, "--variant", ALONE, "--variant", FEWER]) == 2
    told = capsys.readouterr()
    assert "1 of 2, alone: failed: RuntimeError: out of memory" in told.out
    assert told.err == "onemask: alone is not in the table: RuntimeError: out of memory\n"
    report = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["label"] for row in report["rows"]] == ["never"]
    assert report["failures"] == {"alone": "RuntimeError: out of memory"}
    assert "`alone` is not in the table" in (tmp_path / "comparison.md").read_text()


def test_where_all_fail_there_is_no_table(root, tmp_path, monkeypatch):
    failing(monkeypatch, "alone")
    with pytest.raises(OnemaskError, match="no method could be evaluated; alone: RuntimeError: out of memory"):
        compare(root, tmp_path, variants(ALONE))
    assert not FILES & {path.name for path in tmp_path.iterdir()}


# Drawing anew --------------------------------------------------------------------------------------------------------


def test_redrawing_runs_nothing_and_takes_what_is_there(copied, monkeypatch, capsys):
    monkeypatch.setattr(module, "evaluate", None)
    before = {name: (copied / name).read_bytes() for name in FILES}
    for name in FILES:
        (copied / name).unlink()
    assert main(["compare", "--redraw", "--out", str(copied)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:2] == ["method", "J&F"]
    assert {name: (copied / name).read_bytes() for name in FILES} == before
    shutil.copytree(copied / "evaluations" / "never", copied / "evaluations" / "elsewhere")
    (copied / "evaluations" / "alone" / "scores.json").unlink()
    comparison = redraw(copied)
    assert [row.label for row in comparison.rows] == ["never", "elsewhere"]
    assert comparison.failures == {"alone": "its evaluation is not finished"}


def test_speeds_of_different_conditions_are_marked(copied):
    scores = copied / "evaluations" / "never" / "scores.json"
    report = json.loads(scores.read_text())
    report["ran_on"]["device"] = "cuda:0"
    scores.write_text(json.dumps(report))
    redraw(copied)
    text = (copied / "comparison.md").read_text()
    said = "64 pixels, several devices, precisions or runtimes; only speeds on the same device can be compared"
    assert said in " ".join(text.split())
    assert [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("|")] == [
        "ran",
        "---:",
        "cpu, float32",
        "cuda:0, float32",
    ]


def test_what_cannot_be_compared_is_refused(copied):
    scores = copied / "evaluations" / "never" / "scores.json"
    report = json.loads(scores.read_text())
    one = report | {"times": {"one": report["times"]["one"]}}
    scores.write_text(json.dumps(one))
    with pytest.raises(InputError, match="only one of alone and never was evaluated on two, so they cannot be"):
        redraw(copied)
    scores.write_text(json.dumps(report | {"asked": report["asked"] | {"split": "train"}}))
    with pytest.raises(InputError, match="alone was evaluated on davis2016 val, never on davis2016 train"):
        redraw(copied)
    scores.write_text(json.dumps(report | {"global": {}}))
    with pytest.raises(InputError, match="never has no scores, as its dataset has nothing to score"):
        redraw(copied)
    scores.write_text("{}")
    with pytest.raises(InputError, match=r"scores.json is not what this version's .* writes"):
        redraw(copied)
    scores.write_text("{")
    with pytest.raises(InputError, match=r"scores.json cannot be read"):
        redraw(copied)


def test_there_must_be_something_to_redraw(tmp_path):
    with pytest.raises(InputError, match="holds no finished evaluation; give the --out of an earlier comparison"):
        redraw(tmp_path)


def test_the_headline_is_the_protocols_first_figure(tmp_path):
    row = Row(
        "a", "frtm", {"error": 0.1, "J-Mean": 0.7}, 0.1, 0.1, 0.1, None, None, "small", "here", "jumps val", ("one",)
    )
    comparison = Comparison((row,), {})
    assert comparison.headline == "error"
    assert comparison.table().splitlines()[0].split()[:3] == ["method", "error", "J"]
    comparison.write(tmp_path)
    assert "<!-- error (%) -->" in (tmp_path / "comparison.svg").read_text()


# Methods as people type them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label", "changes"),
    [
        ("frtm-lite", "frtm-lite", {"method": "frtm-lite"}),
        ("pmvos-lite  size=0", "pmvos-lite size=0", {"method": "pmvos-lite", "short_side": None}),
        ("our best: frtm weights='a b:c.safetensors'", "our best", {"method": "frtm", "weights": "a b:c.safetensors"}),
        ("frtm weights=C:x", "frtm weights=C:x", {"method": "frtm", "weights": "C:x"}),
        (
            "quick:frtm first_iterations=5,10 precision=bfloat16 short_side=240",
            "quick",
            {"method": "frtm", "options": {"first_iterations": "5,10"}, "precision": "bfloat16", "short_side": 240},
        ),
    ],
)
def test_a_variant_is_read(text, label, changes):
    assert Variant.parse(text, SHARED) == Variant(label, replace(SHARED, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a label must contain letters or digits|which names no method"),
        ("label:", r"a variant must be '\[LABEL:\] METHOD \[NAME=VALUE ...\]', got 'label:', which names no method"),
        ("frtm-lite:update_every=8", "which names no method"),
        (": frtm", "a label must contain letters or digits and have at most 80 characters, got ''"),
        ("...: frtm", "a label must contain letters or digits"),
        (f"{'x' * 81}: frtm", "at most 80 characters"),
        ("frtm update_every", "an option must be given as name=value, got 'update_every'"),
        ("frtm 'x", "cannot be read: No closing quotation"),
        ("frtm size=big", "short_side must be a whole number of pixels, got 'big'"),
    ],
)
def test_a_variant_that_cannot_be_read(text, message):
    with pytest.raises(InputError, match=message):
        Variant.parse(text, SHARED)


@pytest.mark.parametrize(
    "text",
    [
        "best members='frtm-lite finetune_share=0.8,fusion-fast:2' mirrored=true",
        "frtm-lite regularisation=0.001,0.1 finetune_share=0.8",
    ],
)
def test_a_row_says_the_method_as_a_variant_takes_it(text):
    variant = Variant.parse(text, SHARED)
    asked = json.loads(json.dumps(variant.settings.described()))
    assert rows._what(asked) == text


def test_options_of_all_methods(monkeypatch):
    """`--set`, and keywords in Python; what a variant says itself counts, also by the option's earlier name."""
    told = []

    def compared(root, out, variants, **_):
        told.extend(variants)
        raise InputError("only what is asked for is looked at here")

    monkeypatch.setattr(module, "compare", compared)
    arguments = ["compare", "ROOT", "--set", "least_side=0", "--set", "capacity=8", "--methods", "frtm,frtm-lite"]
    assert (
        main([*arguments, "--variant", "own: frtm-lite memory=9 update_every=0", "--variant", "frtm capacity=7"]) == 2
    )
    shared = {"least_side": "0", "capacity": "8"}
    expected = {
        "frtm": shared,
        "frtm-lite": shared,
        "own": shared | {"capacity": "9", "update_every": "0"},
        "frtm capacity=7": shared | {"capacity": "7"},
    }
    assert {variant.label: variant.settings.options for variant in told} == expected
    told.clear()
    with pytest.raises(InputError, match="looked at here"):
        onemask.compare("ROOT", "OUT", {"own": "frtm-lite capacity=9", "other": "frtm"}, least_side=0, capacity=8)
    assert [variant.settings.options for variant in told] == [
        {"least_side": 0, "capacity": "9"},
        {"least_side": 0, "capacity": 8},
    ]


def test_an_option_of_all_methods_that_one_does_not_have(tmp_path, capsys):
    arguments = ["compare", "ROOT", "--out", str(tmp_path / "out"), "--set", "capacity=8"]
    for others in (["--methods", "frtm-lite,ttvos-lite"], ["--variant", "a: ttvos-lite reach=0"]):
        assert main([*arguments, *others]) == 2
        message = capsys.readouterr().err
        assert "option 'capacity' is set for all methods, but ttvos-lite does not have it" in message
        assert "set it only for methods that do, in their variants: 'LABEL: METHOD capacity=VALUE'" in message
    with pytest.raises(InputError, match="loaded already; give capacity to load"):
        onemask.compare("ROOT", tmp_path / "out", {"loaded": Still()}, capacity=8)


# Refusals, before anything runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "no method is given"),
        (["frtm-lite", "a: nope"], {}, "a: method 'nope' is not known"),
        (["frtm-lite", "a: frtm-lite memroy=3"], {}, "a: option 'memroy' is not known"),
        (["frtm-lite", "a: frtm-lite weights=none.safetensors"], {}, "a: there is no file of weights"),
        (["frtm-lite", "a: frtm-lite precision=half"], {}, "a: precision must be one of auto, float32"),
        (["frtm-lite", "a: frtm-lite size=8"], {}, "a: short_side must be at least 16 pixels"),
        (["a b: frtm-lite", "A-b: frtm-lite"], {}, "two methods have the same label, 'a b' and 'A-b'"),
        (["frtm-lite"], {"protocol": "davis2018"}, "^protocol must be davis2016 or davis2017 or .*, got"),
        (["frtm-lite"], {"split": "test"}, "^.*there is no split test"),
        (["frtm-lite"], {"sequences": ["three"]}, "^val of DAVIS 2016 has no sequence three"),
    ],
)
def test_what_is_refused_leaves_no_trace(root, tmp_path, texts, options, message):
    with pytest.raises(InputError, match=message):
        compare(root, tmp_path / "out", variants(*texts), **options)
    assert not (tmp_path / "out").exists()


def test_other_settings_of_a_label_are_refused_before_anything_runs(root, copied):
    before = written(copied)
    with pytest.raises(InputError, match=r"never holds an evaluation .* capacity 9 \(now 8\)"):
        compare(
            root,
            copied,
            variants(
                "new: frtm-lite",
                f"never: frtm-lite update_every=0 {QUICKLY}",
            ),
            resume=True,
        )
    assert written(copied) == before


def test_a_folder_of_something_else_is_left_alone(root, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        compare(root, tmp_path, variants(ALONE))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_matplotlib_the_extra_is_named_before_anything_runs(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("onemask.evaluation.chart.find_spec", lambda name: None)
    assert main(["compare", str(root), "--out", str(tmp_path / "out"), "--methods", "frtm-lite"]) == 2
    message = capsys.readouterr().err
    assert "the chart needs the package matplotlib: " in message
    assert "[plot]" in message
    assert not (tmp_path / "out").exists()


def test_a_comparison_needs_a_dataset_and_methods(root, tmp_path, capsys):
    for arguments in ([str(root)], ["--methods", "frtm-lite"], []):
        assert main(["compare", "--out", str(tmp_path), *arguments]) == 2
        assert "needs ROOT, and --methods or --variant; only --redraw works without them" in capsys.readouterr().err
    assert main(["compare", str(root), "--out", str(tmp_path), "--redraw"]) == 2
    assert "leave out ROOT, --methods and --variant" in capsys.readouterr().err


# The chart -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_labels_lie_neither_on_each_other_nor_on_points(seed):
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.uniform((120, 80), (400, 220), (12, 2))]
    sizes = [(float(width), 11.0) for width in rng.uniform(40, 110, 12)]
    inside = Box(50, 40, 500, 270)
    boxes = [Box.around(*middle, *size) for middle, size in zip(placed(points, sizes, inside), sizes, strict=True)]
    for index, box in enumerate(boxes):
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :])
        assert all(box.overlap(Box.around(x, y, 8, 8)) == 0 for x, y in points)
        assert box.overlap(inside) == pytest.approx(box.area)


def test_a_label_with_room_is_beside_its_point():
    assert placed([(100.0, 100.0)], [(50.0, 10.0)], Box(0, 0, 400, 400)) == [(100 + 8 + 25, 100)]
    assert placed([(390.0, 100.0)], [(50.0, 10.0)], Box(0, 0, 400, 400)) == [(390 - 8 - 25, 100)]


def test_the_same_points_give_the_same_files_and_no_setting_is_left_changed(tmp_path):
    before = dict(mpl.rcParams)
    points = [Point("slow", 0.5, 80), Point("quick & small", 30, 70)]
    words = {"title": "t", "conditions": "c", "speed": "s", "accuracy": "a"}
    first, again = (
        [path.read_bytes() for path in write_chart(tmp_path / name, points, **words)] for name in ("a", "b")
    )
    assert first == again
    assert dict(mpl.rcParams) == before
    assert b"<dc:date>" not in first[1]


def test_a_single_point_and_equal_points_can_be_drawn(tmp_path):
    words = {"title": "t", "conditions": "c", "speed": "s", "accuracy": "a"}
    for points in ([Point("one", 10, 100)], [Point("one", 10, 100), Point("two", 10, 100)]):
        drawn = write_chart(tmp_path / "chart", points, **words)[1].read_text()
        assert all(f"<!-- {point.label} -->" in drawn for point in points)


def test_dollars_in_a_label_are_no_formula(tmp_path):
    label = "$^$"  # as a formula, it could not be drawn
    words = {"title": label, "conditions": "c", "speed": "s", "accuracy": "a"}
    drawn = write_chart(tmp_path / "chart", [Point(label, 10, 100)], **words)[1].read_text()
    assert drawn.count(f"<!-- {label} -->") == 2
