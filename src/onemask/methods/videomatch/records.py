"""Tensors that VideoMatch's four calls pass on: features, memory and prediction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..method import Features, Memory, Prediction
from .annotated_frame import AnnotatedFrame
from .feature_set import FeatureSet


@dataclass
class VideoMatchFeatures(Features):
    """Features of each frame, which are matched."""

    matched: Tensor = field(kw_only=True)  # (B, C, h, w), unit vectors, h = H / smallest stride


@dataclass
class VideoMatchMemory(Memory):
    """Both sets of each object, its region in the next frame, and its fine-tuned backbone."""

    foreground: Tensor  # (N, C, M_F) and
    foreground_usage: Tensor  # (N, M_F): see FeatureSet
    frame: Tensor  # (N, C, T): the annotated frame, and
    own: Tensor  # (N, T) bool: which of its features are foreground, all others being background; see AnnotatedFrame
    background: Tensor  # (N, C, M_B) and
    background_usage: Tensor  # (N, M_B): what later frames add to the background
    reach: Tensor  # (N, 1, h, w) bool: the extruded previous mask
    area: Tensor  # (N,): cells of the annotated mask
    lost: Tensor  # (N,) bool: whether the object was out of sight in the previous frame
    network: Tensor  # (N, P): parameters of each object's own backbone, where it is fine-tuned; else (N, 0)

    def with_places(self, foreground: int, background: int) -> VideoMatchMemory:
        """Grow both sets to so many slots, where they have fewer; the added slots are empty."""
        m_f, _, m_b = sets_of(self)
        m_f = m_f.with_places(foreground - self.foreground.shape[2])
        m_b = m_b.with_places(background - self.background.shape[2])
        return self.with_sets(m_f, m_b)

    def with_sets(self, foreground: FeatureSet, background: FeatureSet) -> VideoMatchMemory:
        """Replace both sets."""
        return replace(
            self,
            foreground=foreground.features,
            foreground_usage=foreground.usage,
            background=background.features,
            background_usage=background.usage,
        )

    def join(self, other: VideoMatchMemory) -> VideoMatchMemory:
        """Join two memories: these rows, then the other's, whose sets can be larger or smaller."""
        pairs = (self.foreground, other.foreground), (self.background, other.background)
        places = [max(here.shape[2], there.shape[2]) for here, there in pairs]
        return super(VideoMatchMemory, self.with_places(*places)).join(other.with_places(*places))


@dataclass
class VideoMatchPrediction(Prediction):
    """Logits after outlier removal, and what the sets learn from."""

    scores: Tensor  # (N, 1, h, w): logits before outlier removal
    query: Tensor  # (N, C, h w): the frame's features as they were matched
    foreground_counts: Tensor  # (N, M_F) and
    background_counts: Tensor  # (N, M_B): for how many pixels each feature was among the K best

    @property
    def initial(self) -> Tensor:
        """Probability before outlier removal (N, 1, h, w)."""
        return self.scores.sigmoid()


def sets_of(memory: VideoMatchMemory) -> tuple[FeatureSet, AnnotatedFrame, FeatureSet]:
    """m_F, and m_B in two parts, as in `VideoMatch._sets`."""
    return (
        FeatureSet(memory.foreground, memory.foreground_usage),
        AnnotatedFrame(memory.frame, memory.own, memory.first_frame),
        FeatureSet(memory.background, memory.background_usage),
    )
