"""What is kept of clips: the same as computed live, under a name that says what it depends on."""

from __future__ import annotations

import json
import pickle
import resource

import pytest
import torch
from made_training import a_recipe, stage

from onemask.data.sources import open_mixture
from onemask.errors import InputError, OutputError
from onemask.methods.dmn_aoa import DMNAOAConfig
from onemask.methods.dmn_aoa.proposals import LiteConfig, ProposalGenerator, maskrcnn_lite
from onemask.training import cache as cache_module
from onemask.training.cache import ClipCache
from onemask.training.segmentation import Segmentation
from onemask.training.unroll import Unroll, batch_of, joined

SOURCE = stage()["data"][0]


@pytest.fixture
def recipe(tmp_path):
    return a_recipe(tmp_path, stage(distinct=3, cache=True))


@pytest.fixture
def batch(recipe, data):
    staged = recipe.stages[0]
    mixture = open_mixture(staged.data, 0, data)
    return lambda number: batch_of([mixture.clip(number, staged.request(1.0))])


def key(folder, method, recipe) -> str:
    return ClipCache(folder / "keys", method, recipe, recipe.stages[0]).folder.name


class TestContents:
    @pytest.mark.parametrize("learned", [False, True])
    def test_equal_what_is_computed_live(self, tmp_path, recipe, batch, make_frtm, monkeypatch, learned):
        method = make_frtm()  # as built: neither train() nor eval() was called yet
        monkeypatch.setattr(type(method), "memory_depends_on_weights", learned)
        cache = ClipCache(tmp_path / "cache", method, recipe, recipe.stages[0])
        for number in range(2):
            cache.fill(number, batch(number))
        method.train()
        kept = joined([cache.read(number) for number in range(2)])
        live = joined([batch(number) for number in range(2)])
        assert torch.equal(kept.frames, live.frames)
        assert torch.equal(kept.labels, live.labels)
        assert (kept.memory is None) == learned
        unroll = Unroll(method, ["cross_entropy"], update=False)
        one, other = unroll.unrolled(kept), unroll.unrolled(live)
        assert one.losses["cross_entropy"].item() == pytest.approx(other.losses["cross_entropy"].item(), rel=1e-2)
        if not learned:
            with torch.no_grad():  # as it runs, and as it is kept: batch norm folded
                reference = method.encode(live.pictures(0)).for_rows(live.frame_of_row)
                memory = method.memorize(reference, live.masks(0)[0])
            assert torch.allclose(kept.memory.first, memory.first, atol=1e-4)
        for stride, tensor in method.backbone(live.pictures(1)).items():
            assert torch.allclose(kept.constant_at(1).pyramid[stride], tensor, rtol=2e-3, atol=2e-3)

    def test_what_was_kept_is_gone_on_with(self, tmp_path, recipe, batch, make_frtm):
        made = [ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0]) for _ in range(2)]
        made[0].fill(1, batch(1))
        assert [number in made[1] for number in range(3)] == [False, True, False]

    def test_a_full_disk(self, tmp_path, recipe, batch, make_frtm):
        cache = ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(OutputError, match=r"000\.safetensors could not be written: File too large"):
                cache.fill(0, batch(0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert 0 not in cache

    @pytest.mark.parametrize("damage", [b"", b"not one", None])
    def test_a_damaged_file(self, tmp_path, recipe, batch, make_frtm, damage):
        cache = ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0])
        cache.fill(0, batch(0))
        whole = cache.path(0).read_bytes()
        cache.path(0).write_bytes(whole[:-100] if damage is None else damage)
        with pytest.raises(InputError, match=r"000\.safetensors cannot be read .* delete it"):
            cache.read(0)

    def test_workers_get_it_without_the_method(self, tmp_path, recipe, batch, make_frtm):
        cache = ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0])
        cache.fill(0, batch(0))
        sent = pickle.dumps(cache)
        assert len(sent) < 5000
        assert torch.equal(pickle.loads(sent).read(0).memory.first, cache.read(0).memory.first)


class TestKey:
    @pytest.mark.parametrize(
        "values",
        [
            {"size": [64, 64]},
            {"length": 2},
            {"max_objects": 1},
            {"max_skip": [2, 2]},
            {"data": [{"kind": "davis2016", "root": "davis", "split": "fit"}]},
            {"data": [{**SOURCE, "share_each": True}]},
            {"data": [{**SOURCE, "options": {**SOURCE["options"], "by_object": True}}]},
        ],
    )
    def test_of_other_clips(self, tmp_path, recipe, make_frtm, values):
        other = a_recipe(tmp_path, stage(**{"distinct": 3, "cache": True, **values}))
        assert key(tmp_path, make_frtm(), other) != key(tmp_path, make_frtm(), recipe)

    def test_of_another_seed(self, tmp_path, recipe, make_frtm):
        other = a_recipe(tmp_path, stage(distinct=3, cache=True), seed=4)
        assert key(tmp_path, make_frtm(), other) != key(tmp_path, make_frtm(), recipe)

    def test_of_another_method(self, tmp_path, recipe, make_frtm):
        keys = {
            key(tmp_path, method, recipe)
            for method in (make_frtm(), make_frtm(channels=4), make_frtm(first_samples=3), make_frtm(seed=1))
        }
        assert len(keys) == 4  # the seed decides the weights of the backbone

    def test_of_weights_that_lost_a_sign_of_zero(self, tmp_path, recipe, make_frtm):
        keys = set()
        for zero in (-0.0, 0.0):
            method = make_frtm()
            weights = next(method.backbone.parameters()).data
            weights[(0,) * weights.ndim] = zero
            keys.add(key(tmp_path, method, recipe))
        assert len(keys) == 1

    def test_of_another_version(self, tmp_path, recipe, make_frtm, monkeypatch):
        first = key(tmp_path, make_frtm(), recipe)
        monkeypatch.setattr(cache_module, "CLIPS", 2)
        assert key(tmp_path, make_frtm(), recipe) != first

    def test_of_memories_that_were_made_otherwise(self, tmp_path, recipe, make_frtm):
        method = make_frtm()
        first = key(tmp_path, method, recipe)
        method.memory_version += 1
        assert key(tmp_path, method, recipe) != first

    def test_what_does_not_matter(self, tmp_path, recipe, make_frtm):
        other = a_recipe(
            tmp_path,
            stage(
                name="other",
                distinct=9,
                cache=True,
                batch=4,
                accumulate=2,
                iterations=99,
                update=True,
                losses={"soft_jaccard": 1},
                optimiser={"lr": 1e-5},
                schedule={"name": "cosine"},
                clip_gradient=2,
            ),
            average=0.9,
            precision="bfloat16",
            workers=1,
            note="other",
        )
        assert key(tmp_path, make_frtm(width=16, update_every=2), other) == key(tmp_path, make_frtm(), recipe)

    def test_of_other_data(self, tmp_path, recipe, make_frtm):
        def of(data: str, folder: str = "cache") -> ClipCache:
            return ClipCache(tmp_path / folder, make_frtm(), recipe, recipe.stages[0], data)

        folders = {data: of(data).folder for data in ("one", "other")}
        assert folders["one"] != folders["other"]
        assert {data: of(data).folder for data in folders} == folders
        assert of("other", "first elsewhere").folder.name == folders["other"].name  # the order decides nothing

    def test_of_an_earlier_version(self, tmp_path, recipe, make_frtm, caplog):
        """It did not record the data, and the folder's name did not depend on them."""

        def of(data: str) -> ClipCache:
            return ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0], data)

        record = of("one").folder / "clips.json"
        told = json.loads(record.read_text())
        assert told.pop("data") == "one"
        record.write_text(json.dumps(told))
        earlier = record.parent.rename(tmp_path / "cache" / cache_module._name(told))
        assert not caplog.records
        assert of("other").folder == of("other").folder == earlier
        assert [r.message.startswith(f"{earlier} is of an earlier version") for r in caplog.records] == [True]
        assert of("one").folder == record.parent

    def test_says_what_it_depends_on(self, tmp_path, recipe, make_frtm):
        cache = ClipCache(tmp_path / "cache", make_frtm(), recipe, recipe.stages[0])
        told = (cache.folder / "clips.json").read_text()
        assert '"root": "davis"' in told
        assert "batch_norm" not in told  # which came later, and changes no clip
        assert "share_each" not in told  # which came later, and as it is by itself changes no clip
        assert "first_anywhere" not in told  # which came later, and as it is by itself changes no memory
        method = make_frtm(first_anywhere=True)
        other = ClipCache(tmp_path / "cache", method, recipe, recipe.stages[0])
        assert "first_anywhere" in (other.folder / "clips.json").read_text()


class TestWhatAMethodAdds:
    """DMN-AOA's proposals depend on the frame alone, and are kept with the backbone's features."""

    @pytest.fixture
    def method(self):
        config = DMNAOAConfig("test_efficientnet", widths=(4, 4, 8), cells=3, projected=8, refine_widths=(4, 4, 8))
        sizes = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)

        def build(seed: int):
            torch.manual_seed(0)
            method = config.build(pretrained=False, proposals=torch.nn.Identity())
            torch.manual_seed(seed)
            method.generator = ProposalGenerator(maskrcnn_lite(sizes, pretrained=False))
            return method

        return build

    def test_is_kept(self, tmp_path, recipe, batch, method):
        cache = ClipCache(tmp_path / "cache", method(0), recipe, recipe.stages[0])
        cache.fill(0, batch(0))
        kept, live = cache.read(0).constant_at(1), method(0).eval().constant(batch(0).pictures(1))
        assert kept.tensors().keys() == live.tensors().keys() == {"4", "8", "16", "boxes", "scores", "masks"}
        assert torch.allclose(kept.scores, live.scores, atol=1e-3)
        assert torch.allclose(kept.boxes, live.boxes, atol=0.3)

    def test_decides_the_key(self, tmp_path, recipe, method):
        assert key(tmp_path, method(0), recipe) == key(tmp_path, method(0), recipe)
        assert key(tmp_path, method(0), recipe) != key(tmp_path, method(1), recipe)

    def test_is_not_kept_where_it_is_trained(self, tmp_path, recipe, method):
        task, trained = Segmentation(recipe, tmp_path), method(0)
        for network in (trained.backbone, *trained.constant_parts().values()):
            network.requires_grad_(False)
        task.check_stage(trained, recipe.stages[0], "stages.0")
        trained.generator.requires_grad_(True)
        with pytest.raises(InputError, match=r"stages\.0 trains the network of proposals"):
            task.check_stage(trained, recipe.stages[0], "stages.0")
