"""The denoising loss with the batch's own posterior mean as its target."""

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import scaled
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.objectives.denoising import DenoisingObjective
from litdiffusion.errors import UserError

SMALLEST = 1e-6
"""An alpha below this is taken as this: x_t then says nothing about x_0."""


class StableTargetObjective(DenoisingObjective):
    """The denoising loss whose target is the posterior mean of x_0 over the batch, in the place of one x_0.

    ``E[x_0 | x_t] ≈ Σ_j w_j x_0^j`` with ``w_j`` in proportion to ``N(x_t; alpha x_0^j, sigma² I)`` over the items j of
    the batch, the one that x_t was made from among them. The target's eps is ``(x_t - alpha x_0) / sigma`` of this x_0.
    The target varies less than that of `DenoisingObjective`, above all at middle noise levels, where many items could
    have led to x_t. Its optimum is the same for batches without end; a batch of one is the denoising loss itself. Items
    of a labelled batch share a mean with those of their own label. Costs O(B²) per batch.

    It pays for points in a few dimensions. In many dimensions one weight is near 1 at almost all levels, and nothing
    changes. Validation takes the denoising loss, so that its numbers compare with those of other runs.

    Source: Xu, Tong, Jaakkola, "Stable Target Field for Reduced Variance Score Estimation in Diffusion Models", 2023,
    arXiv 2302.00670, equation 6, with the batch as the reference set.
    """

    def regressed(
        self, x_0: Tensor, eps: Tensor, x_t: Tensor, level: Level, class_label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if not self.training:
            return x_0, eps
        x_0 = posterior_mean(x_0, x_t, level, class_label)
        return x_0, scaled(1 / level.sigma, x_t - scaled(level.alpha, x_0))


@torch.no_grad()
def posterior_mean(x_0: Tensor, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Tensor:
    """The mean of x_0 given each of ``x_t`` (B, ...) if the items ``x_0`` (B, ...) are all there are; needs sigma > 0.

    With class labels (B,) each item has the mean over the items of its own label.

    Raises:
        UserError: continuous conditions (B, C), which no two items share.
    """
    if class_label is not None and class_label.ndim > 1:
        raise UserError(
            "objective=stable_target averages items that are told the same, and no two items share a continuous "
            "condition; take objective=denoising"
        )
    alpha, sigma = (value.to(x_0).reshape(-1, 1) for value in (level.alpha, level.sigma))
    alpha = alpha.clamp(min=SMALLEST)
    # Differences, because the expanded square loses the small distances that count at small sigma.
    distance = torch.cdist(x_t.flatten(1) / alpha, x_0.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    logits = -0.5 * (alpha / sigma * distance).square()
    if class_label is not None:
        logits = logits.masked_fill(class_label[:, None] != class_label, -torch.inf)
    return (logits.softmax(dim=1) @ x_0.flatten(1)).view_as(x_0)
