"""The weights of the modes of a mixture in samples."""

import torch
from torch import Tensor

from litdiffusion.data import DataModule
from litdiffusion.measure.distances import Estimate, mode_shares, share_error


def mode_estimates(samples: Tensor, data: DataModule) -> dict[str, Estimate]:
    """The weight ``mode_k`` of each mode in samples (n, d), and ``mode_error``; empty where the data are no mixture.

    ``mode_error`` is half the sum of the absolute errors of the weights, with the spread of `share_error`. The spreads
    of the weights are binomial.
    """
    mixture = getattr(data, "mixture", None)
    if mixture is None:
        return {}
    n, shares = len(samples), torch.tensor(mode_shares(samples, mixture.means), dtype=torch.float64)
    spreads = (shares * (1 - shares) / n).sqrt()
    rows = zip(shares.tolist(), spreads.tolist(), strict=True)
    modes = {f"mode_{k}": Estimate(*row, n) for k, row in enumerate(rows)}
    return modes | {"mode_error": share_error(shares, mixture.weights, n)}
