"""Similarity of every pixel of a frame to its best matches among template features, without the matrix of all pairs.

A 480x854 frame has 6,480 pixels at stride 8, so its similarities with another frame take 168 MB per row; at twice the
size they take 2.7 GB. They are never needed as a whole: only a pixel's best match, or the mean of its best k, is. So
they are computed in blocks of at most `limit` (rows, then query pixels, then templates), each reduced before the next
one, in the backward pass as well: a block's graph holds its indices, not its similarities.

Shapes: N rows, C channels, P query pixels, M templates. A query (1, C, P) is shared by all rows and never copied.
Similarities are inner products of the inputs: cosines where both went through `normalised`. They are computed in the
input's dtype, regardless of autocast, so the caller decides how finely they can be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..eager import eager_on_cpu

NO_MATCH = -1.0  # the similarity with an empty set: the smallest possible cosine
LIMITS = {"cpu": 1 << 23}  # similarities at once: on a CPU, few products with many columns are fastest,
LIMIT = 1 << 26  # elsewhere, enough to keep a device busy
LIMITS_OF_BEST = {"cpu": 1 << 20}  # where only the best is wanted: as many as stay in a core's own cache
GROUP = 6  # similarities per group, of which only the largest is looked at first
FEWEST_QUERIES = 64  # in a block: matrix products with fewer are slow, so templates are split instead

EXCLUDED = -1e4  # added where a template is not valid: below every similarity, and finite in half precision


def normalised(features: Tensor) -> Tensor:
    """Scale features (N, C, ...) to unit length along C, in their dtype; zero stays zero."""
    return F.normalize(features.float(), dim=1).to(features.dtype)


def columns(features: Tensor, chosen: Tensor) -> Tensor:
    """Select columns of features (C, P) by indices (p,) or bool (P,): (C, p), in a tenth of indexing's time on CPU."""
    indices = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
    return features.gather(1, indices.expand(len(features), -1))


def read(*numbers: Tensor) -> list[list[int]]:
    """The values of whole numbers, (n,) each, for all of which a GPU is waited for once."""
    values = iter(torch.cat(numbers).tolist())
    return [[next(values) for _ in range(len(of))] for of in numbers]


def indices_of(chosen: Sequence[Tensor], counts: Sequence[int] | None = None) -> list[Tensor]:
    """Indices (p,) of what each of several masks (P,) bool chooses, in ascending order.

    counts: how many each chooses, if it is known; else a GPU is waited for, once.
    """
    if all(each.device.type == "cpu" for each in chosen):
        return [each.nonzero()[:, 0] for each in chosen]
    if counts is None:
        (counts,) = read(torch.stack([each.sum() for each in chosen]))
    order = [each.byte().sort(descending=True, stable=True).indices for each in chosen]
    return [indices[:count] for indices, count in zip(order, counts, strict=True)]


def top_k(
    query: Tensor,
    template: Tensor,
    k: int,
    *,
    valid: Tensor | None = None,
    known: Tensor | None = None,
    limit: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The similarities of each query pixel with its k best templates, in any order, and the indices of those templates.

    query (N, C, P), or (1, C, P) for all rows; template (N, C, M); valid (N, M) bool: the templates that count, None:
    all. known (N, P, j), j at most k: similarities found before, as this function returns them, which compete too.
    Returns values (N, P, min(k, j + M)) in the query's dtype, and indices, which are M for the known values. If fewer
    templates are valid, the remaining values are below `EXCLUDED / 2`.
    limit: similarities computed at once; None: as many as suit the device.
    """
    (rows, channels, templates), pixels = template.shape, query.shape[2]
    if k < 1 or query.shape[:2] not in ((rows, channels), (1, channels)):
        raise ValueError(f"k {k}, query {tuple(query.shape)} and template {tuple(template.shape)} do not go together")
    if known is None:
        known = query.new_empty(rows, pixels, 0)
    if templates == 0 or pixels == 0:
        return known, torch.full(known.shape, templates, dtype=torch.long, device=known.device)
    limit = limit or LIMITS.get(query.device.type, LIMIT)
    rows_at_once, pixels_at_once, templates_at_once = _at_once(rows, pixels, templates, limit)
    excluded = _excluded(valid, query.dtype)
    values, indices = [], []
    with torch.autocast(query.device.type, enabled=False):
        for part in _slices(rows, rows_at_once):
            mine = query if len(query) == 1 else query[part]
            its_own, its_excluded = template[part], None if excluded is None else excluded[part]
            blocks = [
                _best(mine[:, :, block], its_own, its_excluded, known[part, block], k, templates_at_once)
                for block in _slices(pixels, pixels_at_once)
            ]
            values.append(torch.cat([found for found, _ in blocks], 1))
            indices.append(torch.cat([which for _, which in blocks], 1))
    return torch.cat(values), torch.cat(indices)


def top_k_mean(
    query: Tensor,
    template: Tensor,
    valid: Tensor | None,
    k: int,
    *,
    known: Tensor | None = None,
    limit: int | None = None,
) -> Tensor:
    """The mean similarity of each query pixel with its k best templates: (N, P), in the query's dtype.

    Arguments as in `top_k`. With fewer than k valid templates the mean is over those; with none it is NO_MATCH.
    Source: the soft matching layer of Hu et al., VideoMatch, ECCV 2018, section 3.2.
    """
    values, _ = top_k(query, template, k, valid=valid, known=known, limit=limit)
    return mean_of_valid(values)


def top_k_mean_counted(
    query: Tensor,
    template: Tensor,
    valid: Tensor | None,
    k: int,
    *,
    known: Tensor | None = None,
    limit: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`top_k_mean`, and the number of query pixels that have each template among their k best: (N, M) float32."""
    values, indices = top_k(query, template, k, valid=valid, known=known, limit=limit)
    counts = torch.zeros(len(template), template.shape[2] + 1, device=template.device)  # the last counts known values
    counts.scatter_add_(1, indices.flatten(1), (values > EXCLUDED / 2).flatten(1).to(counts.dtype))
    return mean_of_valid(values), counts[:, :-1]


def best_match(query: Tensor, template: Tensor, valid: Tensor | None = None, *, limit: int | None = None) -> Tensor:
    """The similarity of each query pixel with its best template: (N, P); arguments as in `top_k`, with k = 1.

    Without gradients the index of that template is not needed, which saves half of the time on a CPU.
    """
    (rows, _, templates), pixels = template.shape, query.shape[2]
    if torch.is_grad_enabled() or not templates:
        return top_k_mean(query, template, valid, 1, limit=limit)
    limit = limit or LIMITS_OF_BEST.get(query.device.type, LIMIT)
    rows_at_once, pixels_at_once, templates_at_once = _at_once(rows, pixels, templates, limit)
    excluded = _excluded(valid, query.dtype)
    best = query.new_full((rows, pixels), EXCLUDED)
    with torch.autocast(query.device.type, enabled=False):
        for part, some, block in product(
            _slices(rows, rows_at_once), _slices(templates, templates_at_once), _slices(pixels, pixels_at_once)
        ):
            queries = (query if len(query) == 1 else query[part])[:, :, block]
            added = None if excluded is None else excluded[part, :, some]
            found = _products(queries, template[part, :, some], added).amax(2)
            best[part, block] = torch.maximum(best[part, block], found)
    return best.masked_fill_(best <= EXCLUDED / 2, NO_MATCH)


def mean_of_valid(values: Tensor) -> Tensor:
    """Average those values (N, P, k) of `top_k` that belong to a template: (N, P); NO_MATCH where there are none."""
    found = values > EXCLUDED / 2
    number = found.sum(2)
    mean = torch.where(found, values, 0).sum(2) / number.clamp(min=1)
    return torch.where(number > 0, mean, NO_MATCH).to(values.dtype)


def _at_once(rows: int, pixels: int, templates: int, limit: int) -> tuple[int, int, int]:
    """Rows, query pixels and templates of a block of at most `limit` similarities."""
    rows_at_once = max(1, limit // max(1, pixels * templates))
    pixels_at_once = max(1, min(FEWEST_QUERIES, limit), limit // (rows_at_once * templates))
    return rows_at_once, pixels_at_once, max(1, limit // (rows_at_once * max(1, min(pixels, pixels_at_once))))


def _excluded(valid: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Offset (N, 1, M), added to similarities so that templates that are not valid are never the best."""
    return None if valid is None else torch.where(valid, 0.0, EXCLUDED).to(dtype)[:, None]


def _products(query: Tensor, template: Tensor, excluded: Tensor | None) -> Tensor:
    """query (n or 1, C, p), template (n, C, m) and an offset (n, 1, m) to add -> similarities (n, p, m)."""
    rows, pixels = len(template), query.shape[2]
    if len(query) == 1 and _convolves(query):
        picture = query.transpose(1, 2).contiguous().transpose(1, 2)[:, :, None]  # (1, C, 1, p), channels last
        kernel = template.transpose(1, 2).flatten(0, 1)[:, :, None, None]  # (n m, C, 1, 1)
        products = F.conv2d(picture, kernel, None if excluded is None else excluded.flatten())
        return products[0, :, 0].T.unflatten(1, (rows, -1)).transpose(0, 1)
    queries = query.transpose(1, 2).expand(rows, -1, -1)
    if excluded is None:
        return torch.bmm(queries, template)
    return torch.baddbmm(excluded.expand(-1, pixels, -1), queries, template)


def _convolves(query: Tensor) -> bool:
    """Whether products are faster as a 1x1 convolution: on a CPU oneDNN's takes two thirds of a matrix product."""
    plain = query.dtype == torch.float32 and not (torch.is_grad_enabled() or torch.jit.is_tracing())
    return plain and query.device.type == "cpu" and torch.backends.mkldnn.is_available()


def _slices(length: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, length, at_once))


def _best(
    query: Tensor, template: Tensor, excluded: Tensor | None, known: Tensor, k: int, at_once: int
) -> tuple[Tensor, Tensor]:
    """The best matches of each query pixel, at most k, in any order: values and indices, (n, p, k)."""
    values, indices = known, torch.full(known.shape, template.shape[2], dtype=torch.long, device=known.device)
    for block in _slices(template.shape[2], at_once):
        similarity = _products(query, template[:, :, block], None if excluded is None else excluded[:, :, block])
        if values.shape[2] < k or not eager_on_cpu(similarity):
            values, indices = _better(values, indices, similarity, block.start, k)
            continue
        # Few pixels gain from a small set beside a large one, and finding those is fast, but a GPU is waited for.
        gain = (similarity.detach().amax(2) > values.detach().amin(2)).any(0).nonzero()[:, 0]
        if len(gain):
            better = _better(values[:, gain], indices[:, gain], similarity[:, gain], block.start, k)
            values, indices = values.index_copy(1, gain, better[0]), indices.index_copy(1, gain, better[1])
    return values, indices


def _better(values: Tensor, indices: Tensor, similarity: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Merge values and indices (n, p, j) with similarities (n, p, m) of templates from `start` on, keeping the best."""
    chosen = _indices_of_best(similarity.detach(), min(k, similarity.shape[2]))
    found = similarity.gather(2, chosen)
    if values.shape[2] == 0:
        return found, chosen + start
    values, indices = torch.cat([values, found], 2), torch.cat([indices, chosen + start], 2)
    chosen = values.detach().topk(min(k, values.shape[2]), sorted=False).indices
    return values.gather(2, chosen), indices.gather(2, chosen)


def _indices_of_best(similarity: Tensor, k: int) -> Tensor:
    """Indices of the k largest of (n, p, m), in any order: (n, p, k).

    Selecting among thousands takes longer than the matrix product before it. But the k largest lie in the k groups with
    the largest maxima, however the groups are formed, and maxima are fast. Those groups are found the same way.
    """
    if k == 1:
        return similarity.max(2, keepdim=True).indices
    count, device = similarity.shape[2], similarity.device
    groups = count // GROUP
    if groups < 2 * k:
        return similarity.topk(k, sorted=False).indices
    grouped = groups * GROUP
    chosen = _indices_of_best(similarity[:, :, :grouped].unflatten(2, (GROUP, groups)).amax(2), k)
    members = chosen[..., None] + groups * torch.arange(GROUP, device=device)
    candidates = members.flatten(2)
    if grouped < count:  # an empty constant in a graph is one number, 0, to OpenVINO
        rest = torch.arange(grouped, count, device=device).expand(*chosen.shape[:2], -1)  # in no group
        candidates = torch.cat([candidates, rest], 2)
    return candidates.gather(2, similarity.gather(2, candidates).topk(k, sorted=False).indices)
