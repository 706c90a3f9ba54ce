"""What the documentation shows: examples in docstrings give what they say, and pages name what there is."""

import ast
import doctest
import importlib
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from onemask.cli import parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
SOURCE = ROOT / "src"
EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_in_docstrings_give_what_they_say(path):
    module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?) *```", text, re.S)]


def test_docstrings_open_with_a_noun_or_a_verb():
    """And not with "What ..." or "Of ...", which say neither."""
    modules = (ROOT / "src" / "onemask").rglob("*.py")
    assert not [str(path) for path in modules if re.search(r'"""(What|Of)\b', path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_on_a_page_is_python_and_names_what_onemask_has(page):
    import onemask

    for block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"onemask": onemask, "session": onemask.Session}.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_are_ones_that_the_command_line_takes(page):
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    for line in text.splitlines():
        command = re.split(r"\s#|\|\|", line)[0].strip()
        if command.startswith("onemask "):
            assert callable(parser().parse_args(shlex.split(command)[1:]).command), command


@pytest.mark.parametrize("runtime", ["torch", "auto"])
def test_the_method_on_the_plugins_page_follows_an_object(runtime, make_clip, monkeypatch):
    import sys
    import types

    import onemask

    (code,) = blocks(ROOT / "docs" / "plugins.md", "python")
    module = sys.modules["my_method"] = types.ModuleType("my_method")  # where its dataclasses look for annotations
    exec(code, module.__dict__)
    clip = make_clip(3)
    monkeypatch.setenv("ONEMASK_RUNTIME", runtime)
    session = onemask.Session(module.CONFIG.build())
    session.annotate(clip.frames[0], clip.label_maps[0])
    found, truth = session.step(clip.frames[1]) > 0, clip.label_maps[1] > 0
    assert (found & truth).sum() > 0.5 * (found | truth).sum()


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda path: path.name)
def test_every_recipe_stands_in_the_guide(recipe):
    assert recipe.relative_to(ROOT).as_posix() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_method_that_ships_weights_has_its_scores_on_the_page():
    from onemask.weights.store import PACKAGE

    page = (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    for path in PACKAGE.glob("*-lite.safetensors"):
        assert path.stem == "maskrcnn-lite" or f"`{path.stem}`" in page
