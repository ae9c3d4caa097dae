"""The classical density estimate a diffusion model has to beat on low-dimensional data."""

import torch
from torch import Tensor


def kernel_density_samples(train: Tensor, n: int, seed: int) -> Tensor:
    """Draws n samples (n, d) from a Gaussian kernel density estimate of the training sample (m, d).

    A draw is ``x_i + std · h · z`` with i uniform, z standard normal and Scott's factor ``h =
    m^(-1/(d+4))``, so each variance is the sample's times ``1 + h²``. The data are standardised per
    coordinate for the fit: scikit-learn's ``bandwidth="scott"`` is the bare factor and takes no account of
    their scale. A constant coordinate stays constant. Source: scikit-learn, KernelDensity; Multivariate
    Density Estimation, Scott 1992.
    """
    from sklearn.neighbors import KernelDensity

    if train.ndim != 2 or len(train) < 2:
        raise ValueError(f"train must be (m, d) with m >= 2, got {tuple(train.shape)}")
    sample = train.detach().cpu().double()
    mean, std = sample.mean(dim=0), sample.std(dim=0, correction=0)
    standard = (sample - mean) / std.where(std > 0, 1.0)
    model = KernelDensity(kernel="gaussian", bandwidth="scott").fit(standard.numpy())
    drawn = torch.from_numpy(model.sample(n, random_state=seed))
    return (mean + std * drawn).to(train)
