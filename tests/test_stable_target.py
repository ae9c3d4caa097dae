"""The batch's own posterior mean as the target: its value, its limits, and what it is for."""

import torch

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.objectives import DenoisingObjective, StableTargetObjective
from litdiffusion.diffusion.objectives.stable_target import posterior_mean
from litdiffusion.diffusion.parameterizations import X0, Epsilon
from litdiffusion.diffusion.schedules import LinearChain
from litdiffusion.diffusion.times import UniformTimes
from litdiffusion.diffusion.weightings import Simple

SCHEDULE = LinearChain(steps=50)


class Zero(torch.nn.Module):
    """A net whose output is zero, so that the loss is the mean square of the target."""

    def forward(self, x, noise_label, class_label=None):
        return torch.zeros_like(x)


def level(alpha: float, sigma: float) -> Level:
    return Level(
        torch.tensor(0.5, dtype=torch.float64), *(torch.tensor(v, dtype=torch.float64) for v in (alpha, sigma))
    )


def points(count: int, seed: int = 0, dimension: int = 2) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def losses(kind: type[DenoisingObjective], x_0: torch.Tensor, parameterization=None, training: bool = True):
    objective = kind(UniformTimes(SCHEDULE), Simple()).train(training)
    denoiser = Denoiser(Zero(), SCHEDULE, parameterization or X0())
    noise = lambda like: points(len(like), 7, like.shape[1])  # noqa: E731
    return objective(denoiser, x_0, noise=noise, offset=0.3).value


def test_the_mean_is_bayes_rule_over_the_batch():
    x_0, where = points(5).double(), level(0.8, 0.6)
    x_t = diffuse(x_0, points(5, 1).double(), where)
    for i in range(5):
        density = [torch.exp(-((x_t[i] - 0.8 * x) ** 2).sum() / (2 * 0.36)) for x in x_0]
        expected = sum(p * x for p, x in zip(density, x_0, strict=True)) / sum(density)
        torch.testing.assert_close(posterior_mean(x_0, x_t, where)[i], expected)


def test_little_noise_leaves_the_own_item_and_pure_noise_the_mean():
    x_0 = points(8)
    x_t = diffuse(x_0, points(8, 1), level(1.0, 1e-4))
    torch.testing.assert_close(posterior_mean(x_0, x_t, level(1.0, 1e-4)), x_0)
    mean = x_0.mean(dim=0).expand(8, 2)
    torch.testing.assert_close(posterior_mean(x_0, points(8, 1), level(0.0, 1.0)), mean, atol=1e-4, rtol=0)


def test_items_share_a_mean_with_their_label_alone():
    x_0, where = points(6), level(0.6, 0.8)
    x_t, labels = diffuse(x_0, points(6, 1), where), torch.tensor([0, 0, 0, 1, 1, 1])
    apart = [posterior_mean(x_0[half], x_t[half], where) for half in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(posterior_mean(x_0, x_t, where, labels), torch.cat(apart))


def test_a_batch_of_one_is_the_denoising_loss():
    for parameterization in (X0(), Epsilon()):
        pair = [losses(kind, points(1), parameterization) for kind in (StableTargetObjective, DenoisingObjective)]
        torch.testing.assert_close(*pair)


def test_validation_takes_the_denoising_loss():
    pair = [losses(kind, points(32), training=False) for kind in (StableTargetObjective, DenoisingObjective)]
    assert torch.equal(*pair)


def test_the_target_has_the_mean_of_the_exact_denoiser_and_a_small_part_of_the_variance():
    # x_0 ~ N(0, I): E[x_0 | x_t] = alpha x_t, and one x_0 varies about it by sigma² a coordinate.
    where, errors = level(0.6, 0.8), {"batch": [], "item": []}
    for seed in range(40):
        x_0 = points(512, seed)
        x_t = diffuse(x_0, points(512, 1000 + seed), where)
        exact = 0.6 * x_t
        errors["batch"].append(posterior_mean(x_0, x_t, where) - exact)
        errors["item"].append(x_0 - exact)
    spread = {name: torch.cat(values).square().mean().item() for name, values in errors.items()}
    assert abs(spread["item"] - 0.64) < 0.02
    assert spread["batch"] < 0.05 * spread["item"]
    assert torch.cat(errors["batch"]).mean(dim=0).abs().max() < 0.01
