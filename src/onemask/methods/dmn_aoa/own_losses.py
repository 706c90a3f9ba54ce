"""Losses of DMN-AOA's parts; those of the final masks are in `training.losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...blocks.cells import cells_cross_entropy, shares_of_cells
from .assignment import REACH
from .options import COARSE, FINE
from .records import DMNAOAPrediction
from .regions import overlaps, pooled

SURE = 1e-4  # least distance of coarse probabilities from 0 and 1 when they become logits (as in A6)
FITS = 0.1  # overlap with the truth from which a candidate is worth choosing


def logits_of(probabilities: Tensor) -> Tensor:
    """Logits of coarse probabilities, none of them infinite."""
    return probabilities.float().clamp(SURE, 1 - SURE).logit()


def losses_of(
    prediction: DMNAOAPrediction, masks: Tensor, known: Tensor, *, refines: bool, cells: int
) -> dict[str, Tensor]:
    """Losses of the network's parts, (N,) each.

    coarse: binary cross-entropy of the coarse mask. aligned: the same of the aligned reference masks that RefineNet is
    given. matching: minus the logarithm of the overlap with the truth, relative to the best candidate's, that is
    expected of a choice by similarity; 0 where no candidate is worth choosing. correspondence: minus the mean logarithm
    of how much each cell of the template that is the object's finds its place in a jittered box.

    Args:
        prediction: of N rows.
        masks: ground truth, (N, 1, H, W).
        known: where it is known, (N, 1, H, W).
        refines: whether there is a RefineNet.
        cells: cells per side of a template.
    """
    truth, known_cells = shares_of_cells(masks, known, FINE)
    losses = {
        "coarse": cells_cross_entropy(logits_of(prediction.coarse), truth, known_cells),
        "aligned": truth.new_zeros(len(truth)),
    }
    if refines:
        losses["aligned"] = cells_cross_entropy(logits_of(prediction.aligned), *shares_of_cells(masks, known, COARSE))
    losses["correspondence"] = torch.zeros_like(losses["coarse"])
    if prediction.found is not None and prediction.box is not None and prediction.there is not None:
        rows = torch.arange(len(truth), device=truth.device)
        inside = pooled({FINE: truth * known_cells}, prediction.box, rows, cells).flatten(1)
        inside = inside * prediction.there
        losses["correspondence"] = -(prediction.found * inside).sum(1) / inside.sum(1).clamp(min=1)
    if prediction.candidates is None:
        return losses | {"matching": torch.zeros_like(losses["coarse"])}
    fits = overlaps((truth * known_cells).flatten(2), (prediction.candidates * known_cells).flatten(2))[:, 0]
    best, preference = fits.amax(1), REACH * prediction.similarity
    worth = (fits / best.clamp(min=FITS)[:, None]).clamp(min=SURE).log()
    matching = preference.logsumexp(1) - (preference + worth).logsumexp(1)  # of a softmax, stable however certain it is
    return losses | {"matching": torch.where(best >= FITS, matching, 0.0)}
