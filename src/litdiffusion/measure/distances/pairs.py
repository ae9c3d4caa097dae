"""The checks of two samples that precede every distance between them."""

from torch import Tensor


def checked_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both samples (n, d) and (m, d) in float64, on the device of x.

    Raises:
        ValueError: for unequal d, empty samples, or non-finite values.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"samples must be non-empty (n, d) and (m, d), got {tuple(x.shape)}, {tuple(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("samples hold non-finite values: the sampler diverged; look at its trajectory picture")
    return x.detach().double(), y.detach().to(x.device).double()


def centred_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`checked_pair`, with the mean of y subtracted from both.

    Pairwise distances are computed as ``|x|² + |y|² - 2 x·y``, which loses digits far from the origin.
    """
    x, y = checked_pair(x, y)
    mean = y.mean(dim=0)
    return x - mean, y - mean
