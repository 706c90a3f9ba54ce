"""Registry of methods: the one place that maps a name to a method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import plugins
from ..errors import InputError, is_out_of_memory
from ..weights.card import Card, as_typed
from ..weights.store import Weights, described, find
from .options import by_todays_names, unreadable, with_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .method import Method

log = logging.getLogger(__name__)

DEFAULT = "fusion-fast"


class Trainable(Protocol):
    """A frozen dataclass of options that builds something with weights: a method, or a part of one."""

    @property
    def architecture(self) -> dict[str, Any]:
        """Options that the weights depend on, as plain values; a card is compared with them option by option.

        A method that uses only part of a larger set of weights leaves out the other part's options, which may differ.
        """

    def build(self, *, pretrained: bool = True) -> nn.Module:
        """Build it. pretrained: whether its backbone starts with ImageNet weights."""


class Configuration(Trainable, Protocol):
    """A frozen dataclass of a method's options that builds the method."""

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline."""

    def build(self, *, pretrained: bool = True) -> Method:
        """Build the method. pretrained: whether its backbone starts with ImageNet weights."""


@dataclass(frozen=True)
class Published:
    """Weights published by a method's authors, which `onemask import-weights` can import."""

    files: str
    offered: str  # where they are published
    scored: str  # scores reported by the authors, J&F in percent
    renamed: str  # "module:function" that renames a checkpoint's tensors to the method's names
    trained_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by file name, where the name tells


@dataclass(frozen=True)
class Entry:
    """One entry of the registry."""

    summary: str
    configuration: str  # "module:NAME"
    weights: str | None = None  # the method whose trained weights it uses, if it has none of its own
    published: Published | None = None
    ships: bool = False  # whether trained weights ship: its own, those it shares, or those of all its members

    @property
    def line(self) -> str:
        """The summary as lists of methods show it."""
        return f"{self.summary}; weights ship" if self.ships else self.summary


def _of_ttvos(backbone: str, davis_2016: float, davis_2017: float) -> Published:
    return Published(
        f"the checkpoint for {backbone}",
        "github.com/HYOJINPARK/TTVOS",
        f"{davis_2016} on DAVIS 2016's validation set, {davis_2017} on DAVIS 2017's",
        "onemask.methods.ttvos.published:tensors",
    )


def _of_frtm(backbone: str, scored: str, *, on_davis: bool = False) -> Published:
    files = [f"{backbone}_all.pth, trained on YouTube-VOS and DAVIS", f"{backbone}_ytvos.pth"]
    files += [f"{backbone}_dv.pth, on DAVIS alone"] if on_davis else []
    youtube, davis = "YouTube-VOS 2018's training set", "DAVIS 2017's training set"
    trained_on = {f"{backbone}_all.pth": (youtube, davis), f"{backbone}_ytvos.pth": (youtube,)}
    trained_on |= {f"{backbone}_dv.pth": (davis,)} if on_davis else {}
    return Published(
        "; ".join(files),
        "github.com/andr345/frtm-vos",
        scored,
        "onemask.methods.frtm.published:tensors",
        trained_on,
    )


METHODS = {
    "best": Entry(
        "FRTM, VideoMatch and Fusion (with double weight) together: four times as slow as fusion-fast",
        "onemask.methods.ensemble:BEST",
        ships=True,
    ),
    "fast": Entry(
        "TTVOS on EfficientNet-Lite0, the fastest: another name for ttvos-lite",
        "onemask.methods.ttvos:LITE",
        weights="ttvos-lite",
        ships=True,
    ),
    "fusion": Entry(
        "Fusion: the clues of FRTM, VideoMatch, PMVOS and TTVOS in one network",
        "onemask.methods.fusion:DEFAULT",
        ships=True,
    ),
    "fusion-fast": Entry(
        "Fusion without fine-tuning: adding an object is quick",
        "onemask.methods.fusion:FAST",
        weights="fusion",
        ships=True,
    ),
    "frtm": Entry(
        "FRTM: a target model fitted online, ResNet-101, the paper's",
        "onemask.methods.frtm:PAPER",
        published=_of_frtm(
            "rn101",
            "rn101_all 83.5, rn101_dv 81.7 on DAVIS 2016's validation set; 76.7 and 68.8 on DAVIS 2017's",
            on_davis=True,
        ),
    ),
    "frtm-fast": Entry(
        "FRTM with ResNet-18 and fewer iterations, the paper's",
        "onemask.methods.frtm:FAST",
        published=_of_frtm("rn18", "rn18_all 78.5 on DAVIS 2016's validation set, 70.2 on DAVIS 2017's"),
    ),
    "frtm-lite": Entry(
        "FRTM on EfficientNet-Lite0, fine-tuned to each object",
        "onemask.methods.frtm:LITE",
        ships=True,
    ),
    "videomatch": Entry(
        "VideoMatch: pixels matched with sets of features, ResNet-101, the paper's", "onemask.methods.videomatch:PAPER"
    ),
    "videomatch-lite": Entry("VideoMatch on EfficientNet-Lite0", "onemask.methods.videomatch:LITE", ships=True),
    "pmvos": Entry(
        "PMVOS: pixels matched with templates of past frames, ResNet-50, the paper's",
        "onemask.methods.pmvos:PAPER",
        published=Published(
            "PMVOS_best.tar",
            "github.com/CV-IP/PMVOS",
            "85.6 on DAVIS 2016's validation set, 74.0 on DAVIS 2017's",
            "onemask.methods.pmvos.published:tensors",
        ),
    ),
    "pmvos-lite": Entry("PMVOS on EfficientNet-Lite0", "onemask.methods.pmvos:LITE", ships=True),
    "ttvos": Entry(
        "TTVOS: light short-term and long-term templates, HRNet, the paper's",
        "onemask.methods.ttvos:PAPER",
        published=_of_ttvos("HRNet", 81.1, 62.1),
    ),
    "ttvos-resnet18": Entry(
        "TTVOS with ResNet-18, the paper's",
        "onemask.methods.ttvos:RESNET18",
        published=_of_ttvos("ResNet-18", 82.2, 66.3),
    ),
    "ttvos-resnet50": Entry(
        "TTVOS with three blocks of ResNet-50, the paper's",
        "onemask.methods.ttvos:RESNET50",
        published=_of_ttvos("ResNet-50", 83.1, 69.5),
    ),
    "ttvos-mobilenetv3": Entry(
        "TTVOS with MobileNetV3-Large, the paper's",
        "onemask.methods.ttvos:MOBILENETV3",
        published=_of_ttvos("MobileNetV3", 79.8, 62.9),
    ),
    "ttvos-lite": Entry("TTVOS on EfficientNet-Lite0, the fastest", "onemask.methods.ttvos:LITE", ships=True),
    "dmn-aoa": Entry(
        "DMN-AOA: proposals matched with a memory of objects, ResNet-50, the paper's", "onemask.methods.dmn_aoa:PAPER"
    ),
    "dmn-aoa-r101": Entry("DMN-AOA with ResNet-101, the paper's", "onemask.methods.dmn_aoa:R101"),
    "dmn-aoa-lite": Entry("DMN-AOA on EfficientNet-Lite0", "onemask.methods.dmn_aoa:LITE", ships=True),
}

# Configurations of networks that are part of a method but trained separately, with their own recipes.
PARTS = {"maskrcnn-lite": "onemask.methods.dmn_aoa.proposals:LITE_CONFIG"}


def names() -> dict[str, str]:
    """All methods, including those of other packages: name -> one-line summary."""
    others = {name: f"from {' and from '.join(p.module for p in offers)}" for name, offers in plugins.points().items()}
    return others | {name: entry.line for name, entry in METHODS.items()}


def configuration(name: str, options: Mapping[str, Any] | None = None) -> Configuration:
    """Return the configuration of a method.

    Args:
        name: see `names`.
        options: options to change; strings are parsed according to the option's type.

    Returns:
        A frozen dataclass whose `build` returns the method.

    Raises:
        InputError: the name, an option or a value is not known, or a plugin's configuration cannot be used.
    """
    if name in METHODS:
        module, attribute = METHODS[name].configuration.split(":")
        base = getattr(import_module(module), attribute)
        if name in plugins.points():
            taken = plugins.points()[name][0].value
            log.warning("method %s is onemask's own; %s, which has the same name, cannot be reached", name, taken)
    elif name in plugins.points():
        base = plugins.load_configuration(name)
        if problem := unreadable(base) or _lacking(base):
            raise InputError(
                f"method {name!r} of {plugins.points()[name][0].value} cannot be used: {problem}; see docs/plugins.md"
            )
    else:
        raise InputError(f"method {name!r} is not known; there are: {', '.join(sorted(names()))}")
    return with_options(base, options or {})


def trainable(name: str, options: Mapping[str, Any] | None = None) -> Trainable:
    """Return the configuration of what a recipe trains: a method, or a part of one (`PARTS`).

    Raises InputError as `configuration` does.
    """
    if name in PARTS:
        module, attribute = PARTS[name].split(":")
        return with_options(getattr(import_module(module), attribute), options or {})
    return configuration(name, options)


def load(name: str = DEFAULT, *, weights: str | Path | None = None, **options: Any) -> Method:
    """Load a method by name, on the CPU and in evaluation mode; a `Session` moves it to the device it runs on.

    >>> method = load("ttvos-lite")
    >>> alone = load("frtm-lite", target_only=True)

    Args:
        name: see `onemask methods`.
        weights: a safetensors file with the method's full state dict; None: those found under its name (see
            `weights.store`), if they fit the options. If there are none, a method that can do without starts with a
            backbone trained on ImageNet.
        options: values of the method's configuration, see `onemask methods NAME`.

    Returns:
        The method. Any number of sessions can share it.

    Raises:
        InputError: a name or value is not known, the weights do not match their card or do not fit the options, or the
            method needs trained weights and has none.
    """
    chosen = configuration(name, options)
    return built(name, chosen, weights_for(name, chosen, weights))


def built(name: str, chosen: Configuration, weights: Weights | None) -> Method:
    """Build a method from a configuration and the result of `weights_for`, as `load` does."""
    try:
        return (chosen.build() if weights is None else _with_weights(chosen, weights)).eval()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{name} with these options needs more memory than there is; give smaller ones") from error


def weights_for(name: str, chosen: Configuration, given: str | Path | None = None) -> Weights | None:
    """Return the weights that `load` uses, given or found; None if there are none and the method can do without.

    Raises InputError if it cannot do without.
    """
    if given is not None:
        weights = Weights.at(Path(given))
        return weights if weights.card is None else replace(weights, card=todays(weights.card, chosen))
    path = find(name) or _shared_weights(name)
    if path is not None:
        card = todays(described(path), chosen)
        misfits = card.misfits(chosen.architecture)
        if not misfits:
            return Weights(path, card)
        if chosen.needs_weights:
            advice = f"set them so, or give a file of weights that fits{_or_without(chosen)}"
            raise InputError(f"{_misfit(path, misfits, chosen)}; {advice}")
        log.warning("%s; it runs without training, on ImageNet's features", _misfit(path, misfits, chosen))
    elif chosen.needs_weights:
        raise InputError(
            f"no trained weights ship for {name}; give a file of weights{_or_without(chosen)}{_offer(name)}"
        )
    return None


def todays(card: Card, chosen: Configuration) -> Card:
    """Rename the options in a card to the method's current names."""
    return replace(card, architecture=by_todays_names(chosen, card.architecture))


def _shared_weights(name: str) -> Path | None:
    """Path to the weights of another method that this one uses, too; None if there are none."""
    other = METHODS[name].weights if name in METHODS else None
    return None if other is None else find(other)


def _offer(name: str) -> str:
    """End of an error message: where the authors publish weights; empty if they do not."""
    published = METHODS[name].published if name in METHODS else None
    if published is None:
        return ""
    where = f"{published.files} ({published.offered})"
    return f"; the authors published {where}, which onemask import-weights {name} can convert"


def _or_without(chosen: Configuration) -> str:
    """End of an error message: the switches with which a method needs no weights; empty if there are none."""
    config: Any = chosen
    ways = []
    for name, value in vars(config).items():
        if isinstance(value, bool):
            with suppress(InputError):  # one that is invalid with the other options
                if not replace(config, **{name: not value}).needs_weights:
                    ways.append(f"{name}={as_typed(not value)}")
    return f", or choose {' or '.join(ways)}, which needs none" if ways else ""


def _misfit(path: Path, misfits: Mapping[str, tuple[Any, Any]], chosen: Configuration) -> str:
    """Say which options the weights are for and which were given. (Options can differ even if all shapes agree.)"""
    theirs = [f"no {name}" if value is None else f"{name}={as_typed(value)}" for name, (value, _) in misfits.items()]
    ours = [f"{name}={as_typed(getattr(chosen, name, value))}" for name, (_, value) in misfits.items()]
    return f"the weights in {path} are for {', '.join(theirs)}, but the options say {', '.join(ours)}"


def _with_weights(chosen: Configuration, weights: Weights) -> Method:
    path, card = weights.path, weights.card
    if card and (misfits := card.misfits(chosen.architecture)):
        if card.method in METHODS and not isinstance(chosen, type(configuration(card.method))):
            raise InputError(
                f"the weights in {path} are those of {card.method}; choose that method, or give other weights"
            )
        raise InputError(f"{_misfit(path, misfits, chosen)}; set them so, or give a file of weights that fits")
    stored = weights.tensors()
    method = chosen.build(pretrained=False)
    stored, expected = method.completed(stored), method.state_dict()
    if card and card.serves_in_part(chosen.architecture):
        stored = {name: tensor for name, tensor in stored.items() if name in expected}
    if problem := misfit(stored, expected):
        raise InputError(f"the weights in {path} do not fit these options: {problem}")
    method.load_state_dict(stored)
    return method


def misfit(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Compare names and shapes of tensors with those expected: the mismatch in one line, or None if all fit."""
    problems = (
        [f"{name} is missing" for name in expected if name not in stored]
        + [f"{name} is unknown" for name in stored if name not in expected]
        + [
            f"{name} is {tuple(stored[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in stored and stored[name].shape != tensor.shape
        ]
    )
    if not problems:
        return None
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _lacking(configuration: Any) -> str | None:
    """Members that a dataclass lacks to be a configuration, in one line; None if it lacks none."""
    lacking = [name for name in ("build", "architecture", "needs_weights") if not hasattr(configuration, name)]
    return f"it has no {' and no '.join(lacking)}" if lacking else None
