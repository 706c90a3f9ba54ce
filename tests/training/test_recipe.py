"""Recipes: what is read, and what is refused before anything loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_training import a_recipe, recipe_text, stage, write_recipe

from onemask.errors import InputError
from onemask.methods import trainable
from onemask.training.recipe import read_recipe, to_yaml
from onemask.weights.store import described, installed

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def read(folder: Path, *assignments: str, **values):
    return read_recipe(write_recipe(folder, stage(**values)), assignments)


class TestReading:
    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_those_that_ship(self, path):
        recipe = read_recipe(path)
        assert path.stem.removesuffix("-davis").removesuffix("-youtube-vos").removesuffix("-stills") == recipe.method
        assert recipe.stages

    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_those_that_validate_run_the_method_as_it_ships(self, path):
        recipe = read_recipe(path)
        if not recipe.validation.root:
            pytest.skip("it has no validation")
        shipped = {"finetune_iterations": 0} if recipe.method == "fusion" else {}  # its weights are fusion-fast's
        validated = trainable(recipe.method, {**recipe.options, **recipe.validation.options})
        assert validated == trainable(recipe.method, shipped)

    def test_values_and_what_is_left_out(self, tmp_path):
        recipe = read(tmp_path, iterations=7)
        assert recipe.stages[0].iterations == 7
        assert recipe.stages[0].data[0].options == {"minimum_pixels": 20}
        assert recipe.stages[0].losses == {"cross_entropy": 1.0}
        assert recipe.average == 0

    def test_losses_are_those_that_are_named(self, tmp_path):
        assert read(tmp_path, losses={"soft_jaccard": 0.5}).stages[0].losses == {"soft_jaccard": 0.5}

    def test_keys_of_earlier_versions(self, tmp_path):
        """In a file, in an assignment, and of the options; what is in today's words stays."""
        text = recipe_text(stage(optimiser={"rate": 2e-4}), stage(optimiser={"lr": 3e-4}), validation={"size": 64})
        (tmp_path / "recipe.yaml").write_text(text.replace("capacity:", "memory:"))
        recipe = read_recipe(tmp_path / "recipe.yaml", ["stages.1.optimiser.rate=1e-5"])
        assert [staged.optimiser.lr for staged in recipe.stages] == [2e-4, 1e-5]
        assert recipe.options["capacity"] == 3
        assert recipe.validation.short_side == 64
        assert read_recipe(tmp_path / "recipe.yaml", ["validation.size=96"]).validation.short_side == 96
        assert "memory" not in recipe.options

    @pytest.mark.parametrize("name", sorted(installed()))
    def test_those_in_the_cards_of_weights_that_ship(self, tmp_path, name):
        card = described(installed()[name])
        if "text" not in card.recipe:
            pytest.skip("its card names the recipe by its hash")
        (tmp_path / "recipe.yaml").write_text(card.recipe["text"])
        assert read_recipe(tmp_path / "recipe.yaml").method == card.method

    def test_written_and_read_again(self, tmp_path):
        recipe = a_recipe(
            tmp_path,
            stage(losses={"soft_jaccard": 0.5}, max_skip=[1, 5], iterations=0, epochs=2.5),
            stage(optimiser={"groups": {"network.head": 0.1}}),
            validation={"root": "davis", "sequences": ["a"]},
            note="of shapes",
        )
        path = tmp_path / "again.yaml"
        path.write_text(to_yaml(recipe))
        assert read_recipe(path) == recipe

    def test_the_longest_skip_changes_over_a_stage(self, tmp_path):
        staged = read(tmp_path, max_skip=[2, 6]).stages[0]
        assert [staged.request(p).max_skip for p in (0, 0.5, 1)] == [2, 4, 6]
        assert read(tmp_path).stages[0].request(0.5).max_skip is None


class TestAssignments:
    def test_values_by_dotted_keys(self, tmp_path):
        recipe = read(
            tmp_path,
            "seed=1",
            "stages.0.batch=4",
            "stages.0.optimiser.lr=3e-4",
            "stages.0.size=[128, 64]",
            "stages.0.data.0.share=2",
            "options.capacity=5",
            "note=a=b",
            "validation.root=davis",
        )
        staged = recipe.stages[0]
        assert (recipe.seed, staged.batch, staged.optimiser.lr, staged.size) == (1, 4, 3e-4, [128, 64])
        assert (staged.data[0].share, staged.data[0].root, recipe.options["capacity"]) == (2.0, "davis", 5)
        assert (recipe.note, recipe.validation.root) == ("a=b", "davis")

    def test_tables_of_free_names_are_replaced(self, tmp_path):
        recipe = read(
            tmp_path,
            "stages.0.losses={binary_cross_entropy: 1}",
            "stages.0.optimiser.groups={network.head: 0.1}",
            losses={"cross_entropy": 1, "soft_jaccard": 1},
            optimiser={"groups": {"backbone": 0.1}},
        )
        assert recipe.stages[0].losses == {"binary_cross_entropy": 1.0}
        assert recipe.stages[0].optimiser.groups == {"network.head": 0.1}

    def test_one_name_of_such_a_table(self, tmp_path):
        losses = read(tmp_path, "stages.0.losses.soft_jaccard=0.5", losses={"cross_entropy": 1}).stages[0].losses
        assert losses == {"cross_entropy": 1.0, "soft_jaccard": 0.5}

    def test_a_table_of_known_names_is_changed(self, tmp_path):
        optimiser = read(tmp_path, "stages.0.optimiser={name: sgd}").stages[0].optimiser
        assert (optimiser.name, optimiser.lr) == ("sgd", 3e-3)

    @pytest.mark.parametrize(
        ("typed", "told"),
        [
            ("sed=1", r"sed=1: sed is not known; there are: method, stages, options"),
            ("stages.0.btch=4", r"stages\.0\.btch is not known; there are: .*batch"),
            ("stages.1.batch=4", r"stages\.1\.batch=4: the recipe has no stages\.1$"),
            ("stages.1={}", r"the recipe has no stages\.1$"),
            ("stages.x.batch=4", r"stages\.x\.batch=4: .*'x'"),
            ("stages.0.batch=four", r"stages\.0\.batch must be a whole number, got 'four'"),
            ("stages.0.batch=4.5", r"must be a whole number, got 4\.5"),
            ("stages.0.batch=true", "must be a whole number, got True"),
            ("stages.0.batch=", "must be a whole number, got None"),
            ("stages.0=3", r"stages\.0 must be a table of name, data, .*, got 3"),
            ("stages=3", r"stages must be a list, got 3"),
            ("stages.0.losses=[1]", r"stages\.0\.losses must be a table of names and values"),
            ("stages.0.losses={a: b}", r"stages\.0\.losses\.a must be a number, got 'b'"),
            ("seed={a: ]", r"seed=.*: the value is not YAML"),
            ("seed", "an option must be given as name=value, got 'seed'"),
            ("options.memori=3", "option 'memori' is not known"),
        ],
    )
    def test_what_cannot_be_set(self, tmp_path, typed, told):
        with pytest.raises(InputError, match=told) as caught:
            read(tmp_path, typed)
        assert "\n" not in str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"bach": 2}, "bach is not known; there are: name, data"),
            ({"batch": "two"}, r"batch must be a whole number, got 'two'"),
            ({"batch": 0}, r"stages\.0\.batch must be 1 or more, got 0"),
            ({"max_objects": 255}, r"stages\.0\.max_objects must be in \[1, 254\], got 255"),
            (
                {"data": [{"kind": "stills", "root": "x", "options": {"smallest": 0.8}}]},
                r"stages\.0\.data\.0\.options: smallest must not be above largest, got 0\.8 and 0\.7",
            ),
            (
                {"data": [{"kind": "folders", "root": "x", "options": {"scale": "2,1"}}]},
                r"stages\.0\.data\.0\.options: scale must be .*, the smaller first, got 2\.0 and 1\.0",
            ),
            ({"batch": 3, "accumulate": 2}, r"stages\.0\.batch \(3\) must be a multiple of accumulate \(2\)"),
            ({"data": []}, r"stages\.0\.data is empty"),
            ({"data": [{"kind": "film", "root": "x"}]}, r"stages\.0\.data\.0\.kind must be one of .*, got 'film'"),
            ({"data": [{"kind": "stills"}]}, r"stages\.0\.data\.0\.root is missing"),
            ({"data": [{"root": "x", "share": -1}]}, r"stages\.0\.data\.0\.share must be 0 or more, got -1"),
            ({"data": [{"root": "x", "options": {"flp": 1}}]}, r"stages\.0\.data\.0\.options: option 'flp'"),
            ({"data": [{"root": "x", "roots": 1}]}, "roots is not known; there are: .*root"),
            (
                {"data": [{"root": "x", "options": {"scale": [0.5, float("inf")]}}]},
                "must be a finite number",
            ),
            ({"iterations": 10**20}, r"stages\.0\.iterations must be 2147483647 or less"),
            ({"losses": {"cross_entropy": float("nan")}}, r"stages\.0\.losses\.cross_entropy must be a finite number"),
            ({"size": [64]}, r"stages\.0\.size must be height and width"),
            ({"size": [16, 64]}, r"stages\.0\.size\.0 must be 32 or more, got 16"),
            ({"length": 1}, r"stages\.0\.length must be 2 or more"),
            ({"max_skip": [1]}, r"stages\.0\.max_skip must be two numbers"),
            ({"max_skip": [1, 2], "cache": True, "distinct": 2}, r"stages\.0\.max_skip changes"),
            ({"epochs": 2}, r"stages\.0 needs iterations or epochs, one of them above 0, got 6 and 2"),
            ({"iterations": 0}, r"stages\.0 needs iterations or epochs"),
            ({"iterations": -1}, r"stages\.0\.iterations must be 0 or more"),
            ({"epochs": -1}, r"stages\.0\.epochs must be 0 or more"),
            ({"cache": True}, r"stages\.0\.distinct must be above 0 \(clips to keep\) with cache"),
            ({"losses": {"cross_entropy": -1}}, r"stages\.0\.losses\.cross_entropy must be 0 or more, got -1"),
            ({"losses": {"cross_entropy": 0}}, r"stages\.0\.losses must be names and weights, one of them above 0"),
            ({"bootstrap": 0}, r"stages\.0\.bootstrap must be in \(0, 1\]"),
            ({"clip_gradient": -1}, r"stages\.0\.clip_gradient must be 0"),
            ({"optimiser": {"name": "lion"}}, r"stages\.0\.optimiser\.name must be one of .*sgd, got 'lion'"),
            ({"optimiser": {"lr": 0}}, r"stages\.0\.optimiser\.lr must be above 0, got 0"),
            ({"optimiser": {"lr": float("nan")}}, r"stages\.0\.optimiser\.lr must be a finite number"),
            ({"optimiser": {"momentum": 1}}, r"stages\.0\.optimiser\.momentum must be in"),
            ({"optimiser": {"groups": {"head": -1}}}, r"stages\.0\.optimiser\.groups\.head must be 0 or more"),
            ({"schedule": {"name": "linear"}}, r"stages\.0\.schedule\.name must be one of constant, cosine, steps"),
            ({"schedule": {"warmup": 1.5}}, r"stages\.0\.schedule\.warmup must be in \[0, 1\], got 1.5"),
            ({"schedule": {"steps": [100]}}, r"stages\.0\.schedule\.steps\.0 must be in \[0, 1\], got 100"),
        ],
    )
    def test_a_stage(self, tmp_path, values, told):
        with pytest.raises(InputError, match=told) as caught:
            read(tmp_path, **values)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"sead": 1}, "sead is not known; there are: .*seed"),
            ({"seed": -1}, "seed must be 0 or more, got -1"),
            ({"seed": "one"}, "seed must be a whole number, got 'one'"),
            ({"method": "frtm-light"}, "method 'frtm-light' is not known; there are: .*frtm-lite"),
            ({"options": {"memry": 1}}, "option 'memry' is not known"),
            ({"options": {"capacity": "many"}}, "option capacity must be a whole number, got 'many'"),
            ({"options": {"capacity": 0}}, "capacity must be 1 or more"),
            ({"precision": "half"}, "precision must be one of float32, bfloat16, float16, got 'half'"),
            ({"average": 1.0}, r"average must be in \[0, 1\), got 1"),
            ({"average": float("inf")}, "average must be a finite number"),
            ({"seed": 2**63}, "seed must be 2147483647 or less, got 9223372036854775808"),
            ({"seed": 10**400}, r"seed"),
            (
                {"options": {"learning_rate": float("nan")}},
                r"learning_rate must be a finite number, in \(0, 1\), got nan",
            ),
            ({"options": {"capacity": 10**30}}, "capacity must be 2147483647 or less"),
            ({"workers": -1}, "workers must be 0 or more"),
            ({"checkpoint_every": 0}, "checkpoint_every must be 1 or more"),
            ({"picture_every": 0}, "picture_every must be 1 or more"),
            ({"validation": {"every": 0}}, r"validation\.every must be 1 or more"),
            ({"validation": {"year": 2018}}, r"validation\.year must be one of 2016, 2017"),
            ({"validation": {"short_side": 8}}, r"validation\.short_side must be 16 or more"),
            ({"validation": 3}, "validation must be a table of root, year, .*, got 3"),
            ({"stages": []}, "stages is empty"),
            ({"stages": None}, "stages"),
        ],
    )
    def test_a_recipe(self, tmp_path, values, told):
        path = tmp_path / "recipe.yaml"
        text = recipe_text(**{key: value for key, value in values.items() if key != "stages"})
        if "stages" in values:
            text = text[: text.index("stages:")] + f"stages: {values['stages'] if values['stages'] == [] else 'null'}\n"
        path.write_text(text)
        with pytest.raises(InputError, match=told) as caught:
            read_recipe(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "method is missing"),
            ("method: frtm-lite", "stages is missing"),
            ("method: frtm-lite\nstages: [{name: a, iterations: 1}]", r"stages\.0\.data is missing"),
            ("3", "recipe.yaml is not a recipe; expected a table of method, stages"),
            ("- 1", "recipe.yaml is not a recipe; expected a table of method, stages"),
            ("a: [", "is not YAML"),
            ("method: a\nmethod: b", "duplicate key method"),
            ("method: frtm-lite\nstages: [{name: a, data: [{root: a}]}]\nseed: ${other}", "'other' not found"),
        ],
    )
    def test_a_file(self, tmp_path, text, told):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=told) as caught:
            read_recipe(path)
        assert "\n" not in str(caught.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no recipe .*nothing\.yaml"):
            read_recipe(tmp_path / "nothing.yaml")
