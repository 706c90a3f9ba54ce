"""How well every pixel of a frame matches the best of a set of template features, without the matrix of all pairs.

A frame of 480x854 has 6,480 pixels at stride 8, so its similarities with another are 168 MB a row; at twice the size
they are 2.7 GB. Nobody needs them: what is wanted of a pixel is its best match, or the mean of its best K. So they are
computed in blocks of at most `limit` (rows, then query pixels, then templates), each reduced before the next one, in
the backward pass as well: a block's graph holds its indices, not its similarities.

Shapes: N rows, C channels, P query pixels, M templates. A query (1, C, P) is that of all rows, and never copied.
Similarities are inner products, of whatever comes in: cosines where both sides went through `normalised`. They are
computed in the dtype that comes in, whatever autocast says, so the caller decides how finely they can be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

NO_MATCH = -1.0  # the similarity with a set that is empty: the least cosine there is
LIMITS = {"cpu": 1 << 20}  # similarities at once: on a CPU what its cache holds,
LIMIT = 1 << 26  # elsewhere what keeps a device busy
FEWEST_QUERIES = 64  # in a block: a matrix product of fewer is slow, so a block of templates is cut rather

_EXCLUDED = -1e4  # added to what is not valid: below every similarity, and finite in half precision


def normalised(features: Tensor) -> Tensor:
    """Features (N, C, ...) -> the same with unit length along C, in their dtype; zero stays zero."""
    return F.normalize(features.float(), dim=1).to(features.dtype)


def top_k_mean(query: Tensor, template: Tensor, valid: Tensor | None, k: int, *, limit: int | None = None) -> Tensor:
    """The mean similarity of each query pixel with its k best templates: (N, P), in the query's dtype.

    query (N, C, P), or (1, C, P) for all rows; template (N, C, M); valid (N, M) bool: which templates there are, None:
    all. Of fewer valid ones than k the mean is over those; of none it is NO_MATCH.
    limit: similarities computed at once, None: as many as suit the device.
    Source: the soft matching layer of Hu et al., VideoMatch, ECCV 2018, section 3.2.
    """
    return _over_queries(query, template, valid, k, limit, None)


def top_k_mean_counted(
    query: Tensor, template: Tensor, valid: Tensor | None, k: int, *, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """As `top_k_mean`, and for how many query pixels each template was among the k best: (N, M) float32."""
    counts = torch.zeros(len(template), template.shape[2], device=template.device)
    return _over_queries(query, template, valid, k, limit, counts), counts


def best_match(query: Tensor, template: Tensor, valid: Tensor | None = None, *, limit: int | None = None) -> Tensor:
    """The similarity of each query pixel with its best template: (N, P); arguments as of `top_k_mean`, with k = 1."""
    return _over_queries(query, template, valid, 1, limit, None)


def _over_queries(
    query: Tensor, template: Tensor, valid: Tensor | None, k: int, limit: int | None, counts: Tensor | None
) -> Tensor:
    """Blocks of rows and query pixels, put together. counts (N, M), if given, is added to."""
    (rows, channels, templates), pixels = template.shape, query.shape[2]
    if k < 1 or query.shape[:2] not in ((rows, channels), (1, channels)):
        raise ValueError(f"k {k}, query {tuple(query.shape)} and template {tuple(template.shape)} do not go together")
    if templates == 0:
        return query.new_full((rows, pixels), NO_MATCH)
    limit = limit or LIMITS.get(query.device.type, LIMIT)
    rows_at_once = max(1, limit // (pixels * templates))
    pixels_at_once = max(1, min(FEWEST_QUERIES, limit), limit // (rows_at_once * templates))
    templates_at_once = max(1, limit // (rows_at_once * min(pixels, pixels_at_once)))
    excluded = None if valid is None else torch.where(valid, 0.0, _EXCLUDED).to(query.dtype)[:, None]  # (N, 1, M)
    of_rows = []
    with torch.autocast(query.device.type, enabled=False):
        for part in _slices(rows, rows_at_once):
            mine = query if len(query) == 1 else query[part]
            its_own, its_excluded = template[part], None if excluded is None else excluded[part]
            blocks = []
            for block in _slices(pixels, pixels_at_once):
                values, indices = _best(mine[:, :, block], its_own, its_excluded, k, templates_at_once)
                blocks.append(_mean_of_valid(values, its_excluded is not None))
                if counts is not None:
                    found = (values > _EXCLUDED / 2).to(counts.dtype)
                    counts[part].scatter_add_(1, indices.flatten(1), found.flatten(1))
            of_rows.append(torch.cat(blocks, 1))
    return torch.cat(of_rows)


def _slices(length: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, length, at_once))


def _best(query: Tensor, template: Tensor, excluded: Tensor | None, k: int, at_once: int) -> tuple[Tensor, Tensor]:
    """The at most k best of each query pixel, in any order: values and indices, (n, p, k)."""
    rows, pixels = len(template), query.shape[2]
    queries = query.transpose(1, 2).expand(rows, -1, -1)
    values, indices = query.new_empty(rows, pixels, 0), torch.empty(0)
    for block in _slices(template.shape[2], at_once):
        if excluded is None:
            similarity = torch.bmm(queries, template[:, :, block])
        else:
            similarity = torch.baddbmm(excluded[:, :, block].expand(-1, pixels, -1), queries, template[:, :, block])
        chosen = _indices_of_best(similarity.detach(), min(k, similarity.shape[2]))
        found = similarity.gather(2, chosen)
        if values.shape[2] == 0:
            values, indices = found, chosen + block.start
            continue
        values, indices = torch.cat([values, found], 2), torch.cat([indices, chosen + block.start], 2)
        chosen = values.detach().topk(min(k, values.shape[2]), sorted=False).indices
        values, indices = values.gather(2, chosen), indices.gather(2, chosen)
    return values, indices


def _indices_of_best(similarity: Tensor, k: int) -> Tensor:
    """Where the k largest of (n, p, m) are, in any order: (n, p, k).

    Selecting among thousands takes longer than the matrix product before it. But the k largest lie in the k groups
    whose maxima are the largest, whatever the groups, and maxima are quick: two selections among sqrt(m k) remain.
    """
    if k == 1:
        return similarity.max(2, keepdim=True).indices
    count = similarity.shape[2]
    size = isqrt(count // k)  # of a group: then there are about as many groups as candidates
    if size < 3:
        return similarity.topk(k, sorted=False).indices
    groups = count // size
    grouped, device = groups * size, similarity.device
    maxima = similarity[:, :, :grouped].unflatten(2, (size, groups)).amax(2)
    chosen = maxima.topk(k, sorted=False).indices
    members = chosen[..., None] + groups * torch.arange(size, device=device)
    rest = torch.arange(grouped, count, device=device).expand(*chosen.shape[:2], -1)  # of no group
    candidates = torch.cat([members.flatten(2), rest], 2)
    return candidates.gather(2, similarity.gather(2, candidates).topk(k, sorted=False).indices)


def _mean_of_valid(values: Tensor, some_excluded: bool) -> Tensor:
    """(n, p, k) -> (n, p)."""
    if not some_excluded:
        return values.mean(2)
    found = values > _EXCLUDED / 2
    number = found.sum(2)
    mean = torch.where(found, values, 0).sum(2) / number.clamp(min=1)
    return torch.where(number > 0, mean, NO_MATCH).to(values.dtype)
