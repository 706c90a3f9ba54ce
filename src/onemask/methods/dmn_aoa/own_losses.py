"""Losses of DMN-AOA's parts; the final masks have those of `training.losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...blocks.cells import cells_cross_entropy, shares_of_cells
from .assignment import REACH
from .options import COARSE, FINE
from .records import DMNAOAPrediction
from .regions import overlaps, pooled

SURE = 1e-4  # coarse probabilities stay so far from 0 and 1 where they are the logits (A6)
FITS = 0.1  # overlap with the truth from which a candidate is worth choosing


def logits_of(probabilities: Tensor) -> Tensor:
    """Logits of coarse probabilities, none of them infinite."""
    return probabilities.float().clamp(SURE, 1 - SURE).logit()


def losses_of(
    prediction: DMNAOAPrediction, masks: Tensor, known: Tensor, *, refines: bool, cells: int
) -> dict[str, Tensor]:
    """Losses of the network's parts, (N,) each.

    coarse: binary cross-entropy of the coarse mask. aligned: the same of the reference masks that RefineNet is
    given. matching: minus the logarithm of how well the candidate that is chosen by similarity overlaps with the
    truth, next to the best; 0 where none is worth choosing. correspondence: minus the logarithm of how much each
    cell of the template, where it is the object's, finds its place in a box that is a little off.

    Args:
        prediction: of N rows.
        masks: the truth, (N, 1, H, W).
        known: where it is known, (N, 1, H, W).
        refines: whether there is a RefineNet.
        cells: of a template, per side.
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
    matching = preference.logsumexp(1) - (preference + worth).logsumexp(1)  # of a softmax, however sure it is
    return losses | {"matching": torch.where(best >= FITS, matching, 0.0)}
