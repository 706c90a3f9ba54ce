"""The clues about an object that the Fusion network reads, as maps over a new frame.

    clue      maps  from                      what it tells
    target       1  FRTM                      the target model's score: the object in any size and pose, and look-alikes
    first        2  PMVOS, VideoMatch         best cosine with background and object of the annotated frame
    bank         2  VideoMatch; ours          the same with cells of later frames as well (.bank)
    local        2  TTVOS, PMVOS              the same with the previous frame, within a window around each cell
    medial       2  PMVOS                     cosine with the mean feature of background and object over all frames
    place        4  TTVOS; ours               the masks of the last two frames, how near the last one is, and the mask
                                              of all other objects in the last frame

Maps from features are on the grid of the backbone's stride 16; masks keep stride 4, as they carry the outline. No clue
has parameters of its own; the matched features may be learned, and then gradients flow to them (see blocks.keys).

Shapes: N rows, C channels, (h, w) the grid, P = h w.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...eager import eager_on_cpu

MAPS = {"target": 1, "first": 2, "bank": 2, "local": 2, "medial": 2, "place": 4}
MATCHED = frozenset({"first", "bank", "local", "medial"})  # those that are cosines
TILE = (4, 8)  # cells whose windows are processed together
RINGS = (3, 9, 21)  # cells: sides of the squares over whose maxima `nearness` averages
LEAST_NORM = 1e-4  # of a mean feature


def cells_of_classes(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Assign cells to background and object: masks (N, 1, H, W) in [0, 1] -> (N, 2, h, w) in {0, 1}.

    A cell belongs to the class that covers more than half of it; an object without such a cell gets the one that it
    covers most.
    """
    share = F.interpolate(masks.float(), grid, mode="area")
    most = share.amax((2, 3), keepdim=True)
    of_object = (share > 0.5) | ((share == most) & (most > 0) & (most <= 0.5))
    return torch.cat([~of_object, of_object], 1).float()


def windowed_match(query: Tensor, template: Tensor, cells: Tensor, radius: int) -> Tensor:
    """The best cosine of each cell with each class of another frame, among cells at most `radius` away on either axis.

    query and template (B, C, h, w), unit length along C, B either N or 1 (all rows look at one pair of frames); cells
    (N, 2, h, w) in {0, 1}. Returns (N, 2, h, w) in [0, 1]; 0 where the window holds no cell of a class. Queries are
    processed in tiles, each with all cells that its windows cover, so that few cosines outside a window are computed.
    """
    pairs, _, height, width = query.shape
    tall, wide = TILE
    rows, columns = -(-height // tall), -(-width // wide)  # tiles
    below, right = rows * tall - height, columns * wide - width
    queries = F.pad(query, (0, right, 0, below)).unflatten(3, (columns, wide)).unflatten(2, (rows, tall))
    queries = queries.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)  # (B rows columns, tile, C)
    around = (radius, right + radius, radius, below + radius)
    keys = _tiles(F.pad(template, around), radius).permute(0, 2, 3, 1, 4).flatten(0, 2)  # (B rows columns, C, K)
    cosines, near = torch.bmm(queries, keys), _window(radius, query)
    learns = cosines.requires_grad  # then nothing may be overwritten
    cosines = cosines.relu() * near if learns else cosines.relu_().mul_(near)
    cosines = cosines.unflatten(0, (pairs, rows * columns))
    # Beyond the border cosines are 0, whatever the class: so it is background there, as in most tiles.
    padded = torch.cat([F.pad(cells[:, :1], around, value=1), F.pad(cells[:, 1:], around)], 1)
    seen = _tiles(padded, radius).flatten(2, 3)[..., None, :]  # (N, 2, rows columns, 1, K)
    looked = _by_tiles_that_differ if eager_on_cpu(cosines) and not learns else _by_all_tiles
    best = looked(cosines, seen)  # (N, 2, rows columns, tile)
    best = best.unflatten(3, TILE).unflatten(2, (rows, columns)).transpose(3, 4)
    return best.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _by_all_tiles(cosines: Tensor, seen: Tensor) -> Tensor:
    """Best cosine with each class: cosines (B, T, tile, K), cells seen of each (N, 2, T, 1, K) -> (N, 2, T, tile)."""
    pairs = len(cosines)
    return torch.stack(
        [
            torch.stack([(cosines[row % pairs] * of_class).amax(-1) for of_class in of_row])
            for row, of_row in enumerate(seen)
        ]
    )


def _by_tiles_that_differ(cosines: Tensor, seen: Tensor) -> Tensor:
    """`_by_all_tiles` where shapes may depend on values: tiles that see one class only are computed once for all rows.

    For a class that a tile does not see nothing is computed: an object is small, and background all the rest.
    """
    whole = cosines.amax(-1)  # (B, T, tile)
    weights = seen[:, :, :, 0]
    most, least = weights.amax(3), weights.amin(3)
    best = whole[:, None] * least[..., None]
    for row, differs in enumerate(most > least):
        pair = row % len(cosines)
        places = torch.nonzero(differs.flatten())[:, 0]  # (class, tile)
        products = cosines[pair].index_select(0, places % cosines.shape[1])
        products *= weights[row].flatten(0, 1).index_select(0, places)[:, None]
        best[row].flatten(0, 1).index_copy_(0, places, products.amax(-1))
    return best


def _tiles(padded: Tensor, radius: int) -> Tensor:
    """Cells that each tile can see: (N, C, h + 2 radius, w + 2 radius), whole tiles -> (N, C, rows, columns, K)."""
    (tall, wide), seen = TILE, 2 * radius
    return padded.unfold(2, tall + seen, tall).unfold(3, wide + seen, wide).flatten(4)


def _window(radius: int, like: Tensor) -> Tensor:
    """Whether each cell that a tile sees is in the window of each cell of the tile: (tile, K) in {0, 1}."""

    def near(cells: int) -> Tensor:
        places = torch.arange(cells + 2 * radius, device=like.device)
        return (places - radius - torch.arange(cells, device=like.device)[:, None]).abs() <= radius

    tall, wide = TILE
    both = near(tall)[:, None, :, None] & near(wide)[None, :, None]
    return both.reshape(tall * wide, -1).to(like.dtype)


def class_means(features: Tensor, weights: Tensor) -> Tensor:
    """Mean feature of each class: (N, C, h, w), (N, 2, h, w) -> (N, 2, C); 0 for a class without cells."""
    total = weights.flatten(2) @ features.flatten(2).transpose(1, 2)
    return total / weights.flatten(2).sum(2, keepdim=True).clamp(min=1)


def cosine_with_means(query: Tensor, means: Tensor) -> Tensor:
    """Cosines of a query (N, C, h, w) of unit length with means (N, 2, C): (N, 2, h, w) in [0, 1]."""
    unit = F.normalize(means, dim=2, eps=LEAST_NORM)
    return (unit @ query.flatten(2)).clamp_(min=0).unflatten(2, query.shape[-2:])


def nearness(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Nearness of each cell to a mask (N, 1, H, W): (N, 1, h, w) in [0, 1], 1 on it, 0 beyond the widest ring."""
    on = F.adaptive_max_pool2d(mask, grid)
    return torch.stack([on, *(_widened(on, side) for side in RINGS)]).mean(0)


def _widened(cells: Tensor, side: int) -> Tensor:
    """Maximum over a square around each cell, one axis after the other."""
    rows = F.max_pool2d(cells, (1, side), stride=1, padding=(0, side // 2))
    return F.max_pool2d(rows, (side, 1), stride=1, padding=(side // 2, 0))
