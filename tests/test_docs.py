"""What the documentation shows: examples in docstrings give what they say, and pages name what there is."""

import argparse
import ast
import doctest
import importlib
import json
import pkgutil
import re
import shlex
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from onemask.cli import parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]  # of the present; CHANGELOG.md also tells of the past
LINKED = [*TEXTS, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("benchmarks/*.md"))]
OTHERS_OPTIONS = {"--fast"}  # of the FRTM authors' evaluate.py
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


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_on_a_page_is_python_and_names_what_onemask_has(page):
    import onemask

    imported = False
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        imported = imported or "import onemask\n" in block
        uses = any(isinstance(node, ast.Name) and node.id == "onemask" for node in ast.walk(tree))
        assert imported or not uses, "onemask is used before it is imported"
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"onemask": onemask, "session": onemask.Session}.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_are_ones_that_the_command_line_takes(page):
    """Those of a fenced block, and those that are indented by four."""
    indented = re.findall(r"(?:^ {4}.*\n)+", page.read_text(encoding="utf-8"), re.M)
    text = "".join([*blocks(page, "sh"), *map(textwrap.dedent, indented)]).replace("\\\n", " ")
    for line in text.splitlines():
        command = re.split(r"\s#|\|\|", line)[0].strip()
        if command.startswith("onemask "):
            options = parser().parse_args(shlex.split(command)[1:])
            assert callable(options.command), command
            assert not getattr(options, "weights", None) or "--method " in command, f"{command}: weights of what?"


def test_the_help_of_every_command_begins_with_a_sentence():
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert not [name for name, command in commands.choices.items() if not (command.description or "").endswith(".")]


def test_every_command_is_on_the_page_of_commands():
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- onemask (\S+) --help -->", page)) == set(commands.choices)


def test_every_format_of_exports_is_in_the_table():
    from onemask.exports.formats import FORMATS

    page = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, re.M)
    assert {name for row in rows for name in re.findall(r"`(.+?)`", row)} - {"--to"} == set(FORMATS)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_extras_named_in_a_text_are_ones_that_the_package_has(page):
    text, project = page.read_text(encoding="utf-8"), (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    named = re.findall(r"extra `(\w{2,})`", text) + ",".join(re.findall(r"\.\[([\w,]{2,})\]", text)).split(",")
    assert set(filter(None, named)) <= set(re.findall(r"^(\w+) = ", table, re.M))


def test_code_named_on_the_page_of_papers_is_there():
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:frtm|videomatch|pmvos|ttvos|dmn_aoa|labels|blocks)\.[\w.]+)`", page)
    assert len(named) > 20
    for name in named:
        pkgutil.resolve_name(f"onemask.{'' if name.startswith(('labels', 'blocks')) else 'methods.'}{name}")


@pytest.mark.parametrize("name", ["frtm", "videomatch", "pmvos", "ttvos", "dmn-aoa", "fusion"])
def test_options_with_values_on_a_methods_page_are_its_own(name):
    from onemask.methods import configuration

    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", page))
    assert set(re.findall(r"(?<![\w.-])([a-z_]+)=", code)) <= {option.name for option in fields(configuration(name))}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_named_in_a_text_are_ones_that_a_command_has(page):
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    known = {option for each in [parser(), *commands.choices.values()] for option in each._option_string_actions}
    code = re.findall(r"(?<!`)`(--[^`]+|onemask [^`]+)`", page.read_text(encoding="utf-8"))
    named = {option for text in code for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
    assert named <= known | OTHERS_OPTIONS


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    headings = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_there_are(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"\w+:", link):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


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


@pytest.mark.parametrize("page", ["README.md", "docs/methods/index.md"])
def test_every_method_that_ships_weights_has_the_scores_of_its_card_in_the_tables(page):
    from onemask.weights.store import PACKAGE

    text = (ROOT / page).read_text(encoding="utf-8")
    for path in sorted(PACKAGE.glob("*.json")):
        if path.stem == "maskrcnn-lite":  # proposes objects, segments none
            continue
        scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
        name = {"fusion": "fusion-fast"}.get(path.stem, path.stem)  # whose scores are those of the card
        cells = f"| {scores['varied J&F']:.1f} | {scores['dev J&F']:.1f} |"
        assert re.search(rf"^\| \[`{name}`\].*{re.escape(cells)}", text, re.M), name


def test_help_for_options_of_methods_is_sentences():
    from onemask.cli.optionhelp import option_help
    from onemask.methods import configuration, names

    for method in names():
        helped = option_help(own := configuration(method))
        for option in fields(own):
            text = helped[option.name]
            assert re.match(r'(["A-Z]|\w+_).*\.$', text), f"{method}: {option.name}: {text}"
