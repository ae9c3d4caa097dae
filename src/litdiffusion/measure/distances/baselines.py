"""The classical density estimates a diffusion model has to beat on low-dimensional data."""

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

COMPONENTS = (1, 2, 4, 8, 16, 32)


def kernel_density_samples(train: Tensor, n: int, seed: int) -> Tensor:
    """Draws n samples (n, d) from a Gaussian kernel density estimate of the training sample (m, d).

    A draw is ``x_i + std · h · z`` with i uniform, z standard normal and Scott's factor ``h =
    m^(-1/(d+4))``, so each variance is the sample's times ``1 + h²``. The data are standardised per
    coordinate for the fit: scikit-learn's ``bandwidth="scott"`` is the bare factor and takes no account of
    their scale. A constant coordinate stays constant. Source: scikit-learn, KernelDensity; Multivariate
    Density Estimation, Scott 1992.
    """
    from sklearn.neighbors import KernelDensity

    standard, mean, std = _standardised(train)
    model = KernelDensity(kernel="gaussian", bandwidth="scott").fit(standard.numpy())
    drawn = torch.from_numpy(model.sample(n, random_state=seed))
    return (mean + std * drawn).to(train)


def gaussian_mixture_samples(train: Tensor, n: int, seed: int) -> Tensor:
    """Draws n samples (n, d) from a Gaussian mixture with full covariances, fitted to the sample (m, d).

    Expectation maximisation from k-means, for 1, 2, 4, 8, 16 and 32 components as far as each has 10·d points;
    the lowest Bayesian information criterion wins. The data are standardised per coordinate, so that the fit
    and its small ridge (1e-6) follow their scale; a constant coordinate stays constant. One start each: another
    seed may find another optimum. About 1 s for 10 000 points in the plane, linear in m. Source: scikit-learn,
    GaussianMixture; Estimating the Dimension of a Model, Schwarz 1978.
    """
    standard, mean, std = _standardised(train)
    model = _best_mixture(standard, seed)
    drawn = torch.from_numpy(model.sample(n)[0])
    # scikit-learn returns the draws sorted by component; a caller may take the first few.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return (mean + std * drawn[order]).to(train)


def _best_mixture(standard: Tensor, seed: int) -> "GaussianMixture":
    """The mixture of lowest BIC among those with enough points for each component."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points, d = standard.shape
    sizes = [k for k in COMPONENTS if 10 * d * k <= points] or [1]
    with warnings.catch_warnings():
        # A mixture that has not settled is still a candidate, judged by its BIC.
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [GaussianMixture(k, random_state=seed).fit(standard.numpy()) for k in sizes]
    return min(models, key=lambda model: model.bic(standard.numpy()))


def _standardised(train: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The training sample with mean 0 and deviation 1 per coordinate, and what undoes it, all in float64."""
    if train.ndim != 2 or len(train) < 2:
        raise ValueError(f"train must be (m, d) with m >= 2, got {tuple(train.shape)}")
    sample = train.detach().cpu().double()
    mean, std = sample.mean(dim=0), sample.std(dim=0, correction=0)
    return (sample - mean) / std.where(std > 0, 1.0), mean, std
