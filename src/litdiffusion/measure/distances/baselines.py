"""Samples of classical density estimates, the baselines of a diffusion model on low-dimensional data."""

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litdiffusion.diffusion.seeding import fold_seed

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

COMPONENTS = (1, 2, 4, 8, 16, 32)


def kernel_density_samples(train: Tensor, n: int, seed: int) -> Tensor:
    """n samples (n, d) of a Gaussian kernel density estimate of the training sample (m, d).

    A draw is ``x_i + std · h · z`` with i uniform, z standard normal and Scott's factor ``h = m^(-1/(d+4))``. Each
    variance is therefore the variance of the training sample times ``1 + h²``. The data are standardised per coordinate
    for the fit, because scikit-learn's ``bandwidth="scott"`` is h alone, without the scale of the data. A constant
    coordinate stays constant.

    Raises:
        ValueError: unless the training sample is (m, d) with m >= 2.

    Source: scikit-learn, KernelDensity; Scott, "Multivariate Density Estimation", 1992.
    """
    from sklearn.neighbors import KernelDensity

    standard, mean, std = _standardised(train)
    model = KernelDensity(kernel="gaussian", bandwidth="scott").fit(standard.numpy())
    drawn = torch.from_numpy(model.sample(n, random_state=_numpy_seed(seed, "kernel_density")))
    return (mean + std * drawn).to(train)


def gaussian_mixture_samples(train: Tensor, n: int, seed: int) -> Tensor:
    """n samples (n, d) of a Gaussian mixture with full covariances, fitted to the training sample (m, d).

    Expectation maximisation starts from k-means, with 1, 2, 4, 8, 16 and 32 components but at least 10·d points for
    each. The mixture with the lowest Bayesian information criterion (BIC) is drawn from. The data are standardised per
    coordinate, so the fit and its ridge of 1e-6 follow their scale. A constant coordinate stays constant. Each mixture
    has one start, so another seed may find another optimum. Time is about 1 s for 10 000 points in the plane, linear
    in m.

    Raises:
        ValueError: unless the training sample is (m, d) with m >= 2.

    Source: scikit-learn, GaussianMixture; Schwarz, "Estimating the Dimension of a Model", 1978.
    """
    standard, mean, std = _standardised(train)
    model = _best_mixture(standard, seed)
    # Another seed than the fit's, because scikit-learn would start from the same numbers again.
    model.set_params(random_state=_numpy_seed(seed, "mixture_draws"))
    drawn = torch.from_numpy(model.sample(n)[0])
    # scikit-learn sorts the draws by component; shuffled, the first few are a sample too.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(fold_seed(seed, "mixture_order")))
    return (mean + std * drawn[order]).to(train)


def _best_mixture(standard: Tensor, seed: int) -> "GaussianMixture":
    """The mixture of lowest BIC among those with at least 10·d points for each component."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points, d = standard.shape
    sizes = [k for k in COMPONENTS if 10 * d * k <= points] or [1]
    with warnings.catch_warnings():
        # A mixture that has not converged is still a candidate by its BIC.
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = _numpy_seed(seed, "mixture_fit")
        models = [GaussianMixture(k, random_state=start).fit(standard.numpy()) for k in sizes]
    return min(models, key=lambda model: model.bic(standard.numpy()))


def _numpy_seed(seed: int, stream: str) -> int:
    """The seed of a stream in the range that numpy allows."""
    return fold_seed(seed, stream) % 2**32


def _standardised(train: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The training sample standardised per coordinate, its mean, and its standard deviation, in float64."""
    if train.ndim != 2 or len(train) < 2:
        raise ValueError(f"train must be (m, d) with m >= 2, got {tuple(train.shape)}")
    sample = train.detach().cpu().double()
    mean, std = sample.mean(dim=0), sample.std(dim=0, correction=0)
    return (sample - mean) / std.where(std > 0, 1.0), mean, std
