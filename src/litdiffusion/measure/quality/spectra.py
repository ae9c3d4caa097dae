"""The power spectrum of sequences, which distances of whole sequences hardly see."""

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.measure.distances import Estimate

RESAMPLED = 20
"""Bootstrap draws for a spread."""


def spectrum_estimates(samples: Tensor, data: Tensor) -> dict[str, Estimate]:
    """``spectrum_error`` of sequences (n, C, L) against data (m, C, L): 0 for equal spectra, 1 for a factor of e.

    The root mean square, over channels and the frequencies 1/L to 1/2, of ``ln(P_samples / P_data)``. P is the mean of
    ``|FFT(w · x)|²`` over the items, with a Hann window w, since the ends of a sequence do not meet. Data times c have
    the error ``2 |ln c|``, and n fresh data items about ``n^-1/2``. The spread is over 20 bootstrap draws of the
    samples.
    """
    powers, n = _powers(samples), len(samples)
    expected = _powers(data).mean(0)
    error = _error(powers.mean(0), expected)
    chosen = torch.randint(n, (RESAMPLED, n), generator=torch.Generator().manual_seed(fold_seed(0, "spectrum")))
    drawn = torch.stack([_error(powers[rows].mean(0), expected) for rows in chosen])
    return {"spectrum_error": Estimate(error.item(), drawn.std().item(), n)}


def _powers(x: Tensor) -> Tensor:
    """The powers (n, C · L // 2) of all frequencies but 0."""
    window = torch.hann_window(x.shape[-1], periodic=False, dtype=torch.float64)
    return torch.fft.rfft(window * x.double())[..., 1:].abs().square().flatten(1)


def _error(found: Tensor, expected: Tensor) -> Tensor:
    return (found / expected).log().square().mean().sqrt()
