"""Weights on disk: found, written in half precision, and believed only when they are what their card says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cards import a_card, ship
from onemask.errors import InputError, OutputError
from onemask.settings import Settings, differences
from onemask.weights.card import Card
from onemask.weights.store import card_of, check, find, home, installed, read, save, users_folder


class Holding(nn.Module):
    """A module with one tensor, `x`."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.register_buffer("x", x)


def with_variance(variance: float, eps: float) -> nn.Module:
    norm = nn.BatchNorm2d(3, eps=eps)
    norm.running_var.fill_(variance)  # type: ignore[union-attr]
    return nn.Sequential(norm)


def test_an_ensembles_fingerprint_is_that_of_its_members():
    """So that a run is not gone on with after one of them got other weights."""
    described = Settings("best", {"members": ("frtm-lite", "fusion-fast:2")}).described()
    assert described["weights' sha256"].split() == [card_of(find(name)).sha256[:16] for name in ("frtm-lite", "fusion")]
    earlier = described | {"weights' sha256": None}  # which earlier versions recorded, so that their runs go on
    assert differences(earlier, described) == []
    assert differences(described | {"weights' sha256": "0 1"}, described) != []
    alone = Settings("frtm-lite").described()
    assert differences(alone | {"weights' sha256": None}, alone) != []


class TestPlaces:
    def test_the_home_is_chosen_by_a_variable(self, monkeypatch):
        monkeypatch.setenv("ONEMASK_HOME", "~/somewhere")
        assert users_folder() == Path.home() / "somewhere" / "weights"
        monkeypatch.delenv("ONEMASK_HOME")
        assert home() == Path.home() / ".cache" / "onemask"

    def test_nothing_is_found_where_nothing_is(self, folders):
        assert installed() == {}
        assert find("frtm-lite") is None

    def test_those_that_ship_come_first(self, folders):
        method = nn.Linear(2, 1)
        own = [ship(folders.user, name, method) for name in ("frtm", "frtm-lite")]
        assert installed() == {"frtm": own[0], "frtm-lite": own[1]}
        shipped = ship(folders.package, "frtm-lite", method)
        assert find("frtm-lite") == shipped
        assert find("frtm") == own[0]

    def test_a_run_reads_a_card_once(self, folders, make_frtm, monkeypatch):
        ship(folders.package, "frtm-lite", make_frtm())
        seen, reading = [], Card.read
        monkeypatch.setattr(Card, "read", lambda path: seen.append(path) or reading(path))
        config = make_frtm().config
        changed = {name: getattr(config, name) for name in (*config.architecture, "channels")}
        settings = Settings("frtm-lite", changed, device="cpu")
        assert settings.described()["weights' sha256"] == card_of(find("frtm-lite")).sha256[:16]
        settings.session()
        assert len(seen) == 2  # one is this test's own

    def test_a_file_that_is_being_written_is_none(self, folders):
        folders.user.mkdir(parents=True)
        (folders.user / ".frtm.12.partial.safetensors").write_bytes(b"")
        assert installed() == {}


class TestSaving:
    def test_the_card_gets_size_and_sha256(self, tmp_path):
        path = tmp_path / "deep" / "a.safetensors"
        card = save(nn.Linear(3, 2), path, a_card())
        assert card == card_of(path) == Card.read(tmp_path / "deep" / "a.json") == check(path)
        assert card.bytes == path.stat().st_size
        assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert {**card.to_json(), "sha256": "", "bytes": 0} == a_card().to_json()

    def test_the_same_state_gives_the_same_file(self, tmp_path, make_frtm):
        first, second = (save(make_frtm(), tmp_path / f"{n}.safetensors", a_card()) for n in "ab")
        assert first == second
        assert save(make_frtm(seed=1), tmp_path / "c.safetensors", a_card()).sha256 != first.sha256

    def test_numbers_are_in_half_precision_and_come_back_in_single(self, tmp_path, make_frtm):
        method = make_frtm()
        path = ship(tmp_path, "a", method)
        state, stored, back = method.state_dict(), load_file(path), read(path)
        assert state.keys() == stored.keys() == back.keys()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        assert {stored[name].dtype for name in floating} == {torch.float16}
        assert {back[name].dtype for name in floating} == {torch.float32}
        for name in floating:
            assert torch.equal(back[name], state[name].half().float())
        assert path.stat().st_size < 0.6 * sum(4 * tensor.numel() for tensor in state.values())

    def test_integers_are_kept(self, tmp_path):
        norm = nn.BatchNorm2d(2)
        norm.num_batches_tracked.fill_(70_001)  # type: ignore[union-attr]
        back = read(ship(tmp_path, "a", norm))
        assert back["num_batches_tracked"] == 70_001
        assert back["num_batches_tracked"].dtype == torch.int64

    def test_memory_in_another_order_is_the_same_weights(self, tmp_path):
        plain = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        turned = plain.to(memory_format=torch.channels_last)
        assert not turned.is_contiguous()
        assert torch.equal(read(ship(tmp_path, "turned", Holding(turned)))["x"], plain.half().float())
        assert (tmp_path / "turned.safetensors").read_bytes() == ship(tmp_path, "plain", Holding(plain)).read_bytes()

    def test_a_loaded_method_keeps_its_order_of_memory(self, tmp_path, make_frtm):
        loaded = make_frtm(seed=1)
        loaded.load_state_dict(read(ship(tmp_path, "a", make_frtm())))
        weights = [p for p in loaded.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        assert weights
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([1.0, -0.1], torch.float16),
            ([0.0, 0.0], torch.float16),
            ([1.0, 1e-12], torch.float16),  # nothing beside the other
            ([1.0, 70_000.0], torch.float32),  # half precision ends at 65504
            ([1e-7, 3e-7], torch.float32),  # and has few digits there
            ([], torch.float16),
        ],
    )
    def test_what_half_precision_cannot_hold_stays_single(self, tmp_path, values, dtype):
        path = ship(tmp_path, "a", Holding(torch.tensor(values)))
        assert load_file(path)["x"].dtype == dtype
        assert torch.allclose(read(path)["x"], torch.tensor(values), rtol=1e-3, atol=1e-6 if dtype.itemsize == 2 else 0)

    @pytest.mark.parametrize(
        ("variance", "eps", "dtype"),
        [
            (0.5, 1e-5, torch.float16),
            (1e-7, 1e-3, torch.float16),  # of no weight beside what is added
            (1e-7, 1e-9, torch.float32),
            (1e5, 1e-5, torch.float32),
        ],
    )
    def test_a_variance_is_judged_by_the_scale_that_it_gives(self, tmp_path, variance, eps, dtype):
        path = ship(tmp_path, "a", with_variance(variance, eps))
        assert load_file(path)["0.running_var"].dtype == dtype
        scale = ((read(path)["0.running_var"] + eps) / (variance + eps)) ** 0.5
        assert scale.sub(1).abs().max() < 1e-3

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_refused(self, tmp_path, value):
        with pytest.raises(InputError, match="x holds values that are not finite"):
            ship(tmp_path, "a", Holding(torch.tensor([1.0, value])))
        assert not list(tmp_path.iterdir())

    def test_another_suffix_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"weights must be saved as NAME\.safetensors, got a\.json"):
            save(nn.Linear(2, 1), tmp_path / "a.json", a_card())

    def test_a_folder_that_cannot_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="is a file; a folder of that name is needed"):
            save(nn.Linear(2, 1), tmp_path / "file" / "a.safetensors", a_card())


class TestRounding:
    """Measured: logits of the whole method differ by 0.1 % of their spread, of the target model alone by 3 %."""

    @pytest.mark.parametrize(
        ("options", "share"), [({}, 0.005), ({"target": "encoded"}, 0.005), ({"target_only": True}, 0.06)]
    )
    @torch.no_grad()
    def test_logits_stay_as_they_were(self, tmp_path, make_clip, make_frtm, options, share):
        clip = make_clip(4, 2)
        frames = torch.stack([torch.from_numpy(frame).permute(2, 0, 1).float() / 255 for frame in clip.frames])
        masks = torch.stack([torch.from_numpy(clip.label_maps[0] == index)[None].float() for index in (1, 2)])
        exact, rounded = make_frtm(**options).eval(), make_frtm(seed=1, **options).eval()
        rounded.load_state_dict(read(ship(tmp_path, "a", exact)))

        def logits(method) -> Tensor:
            memory = method.memorize(method.encode(frames[:1]), masks)
            return method.segment(method.encode(frames[3:]), memory).logits

        wanted, found = logits(exact), logits(rounded)
        assert 0 < (found - wanted).abs().max() < share * wanted.std()


class TestBelief:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return ship(tmp_path, "a", nn.Linear(30, 20))

    def test_a_file_that_was_changed(self, path):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        found, wanted = hashlib.sha256(content).hexdigest(), card_of(path).sha256  # type: ignore[union-attr]
        for reading in (read, check):
            with pytest.raises(InputError, match=f"SHA-256 {found}, but its card .* says {wanted}; .* get both again"):
                reading(path)

    def test_a_file_that_is_not_whole(self, path):
        whole = path.read_bytes()
        path.write_bytes(whole[:-7])
        for reading in (read, check):
            with pytest.raises(
                InputError, match=f"{len(whole) - 7} bytes, but its card .* says {len(whole)}; it is incomplete"
            ):
                reading(path)

    def test_a_file_that_is_not_whole_and_has_no_card(self, path):
        path.with_suffix(".json").unlink()
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(InputError, match=r"a\.safetensors is not a safetensors file, or not a complete one"):
            read(path)

    def test_a_card_of_another_file(self, path, tmp_path):
        other = ship(tmp_path, "b", nn.Linear(30, 20))
        path.with_suffix(".json").write_bytes(other.with_suffix(".json").read_bytes())
        with pytest.raises(InputError, match="SHA-256"):
            read(path)

    def test_a_file_that_is_not_there(self, path):
        path.unlink()
        with pytest.raises(InputError, match="there is no file of weights"):
            read(path)
        with pytest.raises(InputError, match="there is no file of weights"):
            read(path.parent)

    def test_a_card_that_cannot_be_read(self, path):
        card = path.with_suffix(".json")
        card.write_text(json.dumps(json.loads(card.read_text()) | {"colour": "red"}))
        with pytest.raises(InputError, match="unknown: colour"):
            read(path)

    def test_without_a_card_a_file_is_read_with_a_warning(self, tmp_path, caplog):
        save_file({"x": torch.ones(2, dtype=torch.float64)}, tmp_path / "own.safetensors")
        assert card_of(tmp_path / "own.safetensors") is None
        back = read(tmp_path / "own.safetensors")
        assert (back["x"].dtype, back["x"].tolist()) == (torch.float32, [1.0, 1.0])
        assert "own.safetensors has no card (own.json)" in caplog.text
        with pytest.raises(InputError, match=r"there is no card .*own\.json"):
            check(tmp_path / "own.safetensors")
