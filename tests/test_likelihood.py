"""The variational bound: its terms, its place above densities in closed form, its bytes, and the script."""

import csv
import math
from itertools import pairwise

import pytest
import torch
from conftest import UNDRAWN
from mixtures import ENTROPY, GAUSSIAN, LINE, MEAN, STD, TWO_BY_TWO, Mixture, double, signs
from torch.distributions import Normal, kl_divergence

from litdiffusion.diffusion.gaussian import diffuse, posterior, transition
from litdiffusion.diffusion.levels import Prediction, seeded_noise
from litdiffusion.diffusion.likelihood import (
    bits_per_dimension,
    bound_term,
    byte_nats,
    dequantised,
    prior_divergence,
    variational_bound,
)
from litdiffusion.diffusion.likelihood.normals import kl_divergence as kl
from litdiffusion.diffusion.likelihood.normals import log_density, log_probability_8bit
from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    CosineChain,
    DiscreteSchedule,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    SingleLevel,
    SubVP,
)
from litdiffusion.errors import UserError

BYTES = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def gaussian_bound(schedule, variance, denoiser=None):
    denoiser = GAUSSIAN.denoiser(schedule) if denoiser is None else denoiser
    return variational_bound(denoiser, TWO_BY_TWO, variance, "gaussian", noise=signs)


def expected_terms(schedule, variance_fraction):
    """The mean bound of N(MEAN, STD²) under the perfect denoiser, from Ho's formulas, in closed form per step."""
    alphas = torch.stack([level.alpha for level in schedule.grid()[::-1]])
    betas = 1 - (alphas[1:] / alphas[:-1]) ** 2
    bars = torch.cumprod(1 - betas, 0)
    total = 0.5 * (bars[-1] * (MEAN**2 + STD**2) - bars[-1] - torch.log1p(-bars[-1]))
    for i in range(1, len(betas)):
        beta, bar, last = betas[i], bars[i], bars[i - 1]
        unexplained = STD**2 * (1 - bar) / (bar * STD**2 + 1 - bar)  # Var(x_0 | x_t)
        true, upper = beta * (1 - last) / (1 - bar), beta
        model = true ** (1 - variance_fraction) * upper**variance_fraction
        mean = last * (beta / (1 - bar)) ** 2 * unexplained
        total = total + 0.5 * ((true + mean) / model - 1 + (model / true).log())
    first = betas[0]
    unexplained = STD**2 * first / ((1 - first) * STD**2 + first)
    return total + 0.5 * (2 * math.pi * first).log() + unexplained / (2 * first)


@pytest.mark.parametrize(("variance", "variance_fraction"), [("posterior", 0.0), ("forward", 1.0)])
@pytest.mark.parametrize("make", [LinearChain, CosineChain], ids=["linear", "cosine"])
def test_the_bound_of_a_perfect_denoiser_on_a_gaussian_is_the_closed_form(make, variance, variance_fraction):
    schedule = make(60)
    terms = gaussian_bound(schedule, variance)
    assert terms.steps.shape == (4, 59)
    torch.testing.assert_close(terms.times * 60, torch.arange(2.0, 61.0, dtype=torch.float64))
    assert terms.total.mean().item() == pytest.approx(expected_terms(schedule, variance_fraction).item(), abs=1e-9)


def test_the_bound_with_forward_variances_closes_in_as_the_steps_become_many():
    gaps = [gaussian_bound(LinearChain(n), "forward").total.mean().item() - ENTROPY for n in (50, 100, 200, 400)]
    for n, gap in zip((50, 100, 200, 400), gaps, strict=True):
        assert gap * n == pytest.approx(1.1, rel=0.03)  # order 1 / T, from above


def test_posterior_variances_never_close_in_on_smooth_data():
    """The first steps of smooth data spread by the forward variance: sum over i of (1 / i - log(1 + 1 / i)) / 2."""
    gaps = []
    for n in (100, 400):
        schedule = DiscreteSchedule(torch.full((n,), 10 / n, dtype=torch.float64))
        gaps.append(gaussian_bound(schedule, "posterior").total.mean().item() - ENTROPY)
    assert 0.08 < gaps[0] < gaps[1] - 0.05 < 0.5772 / 2 - 0.05


def test_the_bound_of_a_mixture_stays_above_its_density_and_closes_in():
    x, weights = gauss_hermite(12)
    where = torch.cat([mean + std * x for mean, std in zip(LINE.means, LINE.stds, strict=True)])
    share = torch.cat([w * weights for w in LINE.weights])
    noise, noise_share = gauss_hermite(8)
    x_0, eps = where.repeat_interleave(8)[:, None], noise.repeat(len(where))[:, None]
    exact = -(share * LINE.log_density(where[:, None])).sum().item()
    gaps = []
    for n in (50, 100, 200):
        total = variational_bound(LINE.denoiser(LinearChain(n)), x_0, "forward", "gaussian", noise=lambda _: eps).total
        gaps.append((share.repeat_interleave(8) * noise_share.repeat(len(where)) * total).sum().item() - exact)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[0] / gaps[2] == pytest.approx(4, rel=0.15)
    assert gaps[2] < 0.03


def gauss_hermite(count):
    """Nodes and weights of the standard normal."""
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = (torch.from_numpy(array) for array in hermegauss(count))
    return nodes, weights / weights.sum()


@pytest.mark.parametrize(
    "schedule", [GeometricLadder(200), VP(), SubVP(), VE(), LinearFlow()], ids=lambda s: type(s).__name__
)
def test_the_bound_holds_for_exploding_chains_and_for_continuous_time(schedule):
    denoiser = GAUSSIAN.denoiser(schedule)
    gaps = [
        variational_bound(denoiser, TWO_BY_TWO, "forward", "gaussian", None, signs, steps).total.mean() - ENTROPY
        for steps in (50, 200)
    ]
    assert 0 < gaps[1] < gaps[0]
    assert gaps[1] < 0.2


@pytest.mark.parametrize("decoder", ["gaussian", "8bit"])
def test_the_sampled_terms_of_all_steps_are_the_bound_s(decoder):
    schedule, generator = LinearChain(24), torch.Generator().manual_seed(3)
    eps = torch.randn(24, 4, 2, dtype=torch.float64, generator=generator)
    x_0 = BYTES[torch.randint(256, (4, 2), generator=generator)]
    noisiest_first, denoiser = iter(eps.flip(0)), Poor(schedule)
    terms = variational_bound(denoiser, x_0, "learned", decoder, noise=lambda _: next(noisiest_first))
    level = schedule.at(torch.arange(1, 25, dtype=torch.float64).view(-1, 1) / 24)
    for k in range(4):  # one item at all levels
        x = x_0[k].expand(24, 2)
        found = bound_term(schedule, x, denoiser(diffuse(x, eps[:, k], level), level), level, decoder)
        torch.testing.assert_close(found[1:], terms.steps[k])
        torch.testing.assert_close(found[0], terms.decoder[k])
    assert torch.equal(terms.total, terms.prior + terms.steps.sum(1) + terms.decoder)


class Poor(torch.nn.Module):
    """A poor denoiser with a spread of its own at every point."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, level, class_label=None):
        return Prediction(0.8 * x_t.tanh(), x_t, x_t.sigmoid())


def test_divergences_equal_torch_s():
    generator = torch.Generator().manual_seed(0)
    q_mean, p_mean, q_log, p_log = torch.randn(4, 50, dtype=torch.float64, generator=generator)
    expected = kl_divergence(Normal(q_mean, (q_log / 2).exp()), Normal(p_mean, (p_log / 2).exp()))
    torch.testing.assert_close(kl(q_mean - p_mean, p_log - q_log, p_log), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_density(q_mean, p_log), Normal(0.0, (p_log / 2).exp()).log_prob(q_mean))
    level, x_0 = LinearChain(40).at(1.0), torch.randn(5, 3, dtype=torch.float64, generator=generator)
    expected = kl_divergence(Normal(level.alpha * x_0, level.sigma), Normal(double(0.0), double(1.5))).sum(1)
    torch.testing.assert_close(prior_divergence(x_0, level, 1.5), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
def test_every_step_of_the_bound_is_the_divergence_of_two_normals(variance):
    schedule, x_0 = LinearChain(25), torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    denoiser, noise = Poor(schedule), seeded_noise(5)
    terms = variational_bound(denoiser, x_0, variance, "gaussian", noise=seeded_noise(5))
    levels = schedule.grid()
    for column, (now, after) in enumerate(pairwise(levels[:-1])):
        x_t = diffuse(x_0, noise(x_0), now)
        step, guess = posterior(after, now), denoiser(x_t, now)
        lower, upper = step.variance, transition(after, now).variance
        model = {"posterior": lower, "forward": upper}.get(variance)
        model = lower ** (1 - guess.variance_fraction) * upper**guess.variance_fraction if model is None else model
        q = Normal(step.weight_x_0 * x_0 + step.weight_x_t * x_t, lower.sqrt())
        p = Normal(step.weight_x_0 * guess.x_0 + step.weight_x_t * x_t, model.sqrt())
        torch.testing.assert_close(terms.steps[:, 23 - column], kl_divergence(q, p).sum(1), rtol=1e-7, atol=1e-9)


def test_the_bound_refuses_what_it_cannot_measure():
    denoiser = GAUSSIAN.denoiser(LinearChain(24))
    with pytest.raises(UserError, match="variance=learned needs a denoiser with a learned variance"):
        variational_bound(denoiser, torch.zeros(1, 1), "learned", "gaussian")
    with pytest.raises(UserError, match="one of posterior, forward, learned, got 'fixed'"):
        variational_bound(denoiser, torch.zeros(1, 1), "fixed")
    with pytest.raises(UserError, match="decoder=8bit codes the 256 values"):
        variational_bound(denoiser, torch.full((1, 1), 0.3))
    with pytest.raises(UserError, match="a single noise level has no steps from noise to data"):
        variational_bound(GAUSSIAN.denoiser(SingleLevel()), torch.full((1, 1), 1.0))


@pytest.mark.parametrize("std", [1e-4, 3e-3, 0.02, 0.3, 5.0])
@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.3, 0.0, 0.999, 40.0])
def test_the_probabilities_of_the_256_values_sum_to_1(mean, std):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        x = BYTES.to(dtype)
        log_variance = torch.tensor(2 * math.log(std), dtype=dtype)
        log_p = log_probability_8bit(x, torch.full_like(x, mean), log_variance)
        assert log_p.isfinite().all()
        assert log_p.exp().sum().item() == pytest.approx(1, abs=tolerance)


def test_the_probability_of_a_value_is_the_integral_over_its_bin():
    mean, log_variance = double(0.1).expand(256), double(2 * math.log(0.2))
    log_p = log_probability_8bit(BYTES, mean, log_variance)
    normal = Normal(double(0.1), double(0.2))
    mass = normal.cdf(BYTES + 1 / 255) - normal.cdf(BYTES - 1 / 255)
    torch.testing.assert_close(log_p[1:-1].exp(), mass[1:-1], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(log_p[-1].exp(), 1 - normal.cdf(double(1 - 1 / 255)), rtol=1e-9, atol=0)
    wide = log_probability_8bit(BYTES, mean, double(2 * math.log(3.0)))[1:-1]
    torch.testing.assert_close(wide, log_density(BYTES - 0.1, double(2 * math.log(3.0)))[1:-1] + math.log(2 / 255))


def test_the_8_bit_decoder_has_a_gradient_far_from_the_value():
    mean = double([-30.0, 0.0, 30.0]).requires_grad_()
    log_variance = double(-9.0).requires_grad_()
    log_probability_8bit(BYTES[[153]].expand(3), mean, log_variance).sum().backward()
    assert mean.grad.isfinite().all()
    assert mean.grad[0] > 0 > mean.grad[2]
    assert log_variance.grad.isfinite()


def test_uniform_bytes_cost_8_bits_and_a_flat_density_codes_them_as_well():
    assert bits_per_dimension(double(3 * math.log(256)), 3).item() == pytest.approx(8)
    x_0 = BYTES[torch.randint(256, (2000, 3), generator=torch.Generator().manual_seed(0))]
    variance_fraction = dequantised(x_0, seed=1)
    assert torch.equal(variance_fraction, dequantised(x_0, seed=1))
    assert ((variance_fraction - x_0).abs() <= 1 / 255).all()
    assert (variance_fraction - x_0).std().item() == pytest.approx(2 / 255 / 12**0.5, rel=0.03)
    flat = torch.full((2000,), -3 * math.log(256 * 2 / 255), dtype=torch.float64)  # on the bins' 256 * 2 / 255
    assert bits_per_dimension(byte_nats(flat, 3), 3).mean().item() == pytest.approx(8)


def test_the_bound_of_bytes_lies_above_their_exact_code_length():
    """Two values of one byte: the exact law under the chain's model costs at least log 2 nats."""
    x_0 = BYTES[[20, 230]].repeat(200)[:, None]
    mixture = Mixture([0.5, 0.5], [[BYTES[20].item()], [BYTES[230].item()]], [0.0, 0.0])
    found = {}
    for variance in ("posterior", "forward"):
        found[variance] = variational_bound(mixture.denoiser(LinearChain(200)), x_0, variance, noise=seeded_noise(0))
        assert found[variance].total.mean() > math.log(2)
    # The posterior's is exact for points: what is left is the choice between the two, and the width of the decoder.
    chosen = found["posterior"].total - found["posterior"].decoder
    assert chosen.mean().item() == pytest.approx(math.log(2), abs=4 * chosen.std().item() / 20)


QUICK = UNDRAWN


def table(folder):
    with (folder / "likelihood.csv").open() as file:
        return {row["term"]: row for row in csv.DictReader(file)}


def test_the_script_measures_a_toy_by_both_methods(command, trained, tmp_path):
    run = trained(*QUICK, "data=gaussian_mixture", "schedule.steps=25", "trainer.max_steps=4")
    ckpt = f"ckpt={run}/checkpoints/last.ckpt"
    status, out, err = command("scripts/likelihood.py", ckpt, "n=20", f"out={tmp_path}/bound")
    assert status == 0, err
    rows = table(tmp_path / "bound")
    parts = [float(row["nats"]) for name, row in rows.items() if name.startswith(("prior", "steps", "decoder"))]
    assert len(parts) == 6
    assert sum(parts) == pytest.approx(float(rows["bound (forward variance)"]["nats"]), rel=1e-6)
    assert "a density of the standardised data" in out
    assert (tmp_path / "bound" / "likelihood.png").stat().st_size > 5000
    assert len((tmp_path / "bound" / "steps.csv").read_text().splitlines()) == 25
    status, out, err = command("scripts/likelihood.py", ckpt, "n=20", "method=flow", f"out={tmp_path}/flow")
    assert status == 0, err
    rows = table(tmp_path / "flow")
    difference = float(rows["flow (exact divergence)"]["nats"]) - float(rows["exact density of the data"]["nats"])
    assert difference == pytest.approx(float(rows["excess of the model"]["nats"]), abs=1e-6)


def test_the_script_measures_bytes_and_refuses_bad_input(command, trained, tmp_path):
    tiny = ["model=unet", "data=digits", "model.channels=[8]", "model.blocks=1", "data.batch_size=8"]
    run = trained(*QUICK, *tiny, "schedule.steps=25", "trainer.max_steps=1")
    ckpt = f"ckpt={run}/checkpoints/last.ckpt"
    for method in ("bound", "flow"):
        loose = ["rtol=1e-2", "atol=1e-2"]
        status, out, err = command(
            "scripts/likelihood.py", ckpt, "n=4", f"method={method}", f"out={tmp_path}/x", *loose
        )
        assert status == 0, err
        assert "bits/dim" in out
        total = list(table(tmp_path / "x").values())[-1]
        assert float(total["bits_per_dimension"]) == pytest.approx(float(total["nats"]) / (64 * math.log(2)), rel=1e-6)
        (tmp_path / "x" / "likelihood.csv").unlink()
    for argument, message in (
        ("method=exact", "method must be one of bound, flow, got 'exact'"),
        ("steps=2000", "sampler steps = 2000 must lie in 1..25"),
    ):
        status, _, err = command("scripts/likelihood.py", ckpt, argument, f"out={tmp_path}/y")
        assert (status, message in err) == (2, True), err
