"""Chains that end at alpha = 0: every row, sampler, likelihood and weight is finite there, or refused in one line."""

from itertools import product

import pytest
import torch
from analytic import MEAN, STD, double, gaussian, mixture, moments
from parts import ROWS, presets

from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.likelihood import Hutchinson, flow_log_likelihood, variational_bound
from litdiffusion.diffusion.likelihood.bound import VARIANCES, bound_term
from litdiffusion.diffusion.objectives import DenoisingObjective, HybridObjective
from litdiffusion.diffusion.samplers import Ancestral, Euler, Heun, RePaint
from litdiffusion.diffusion.samplers.grids import GRIDS
from litdiffusion.diffusion.schedules import (
    CosineChain,
    DiscreteSchedule,
    LinearChain,
    ScaledLinearChain,
    SigmoidChain,
)
from litdiffusion.diffusion.times import LogitNormalTimes, LogNormalSigma, LossAwareTimes, UniformTimes
from litdiffusion.diffusion.weightings import SNR, Likelihood, MinSNR, Simple, Variational
from litdiffusion.errors import UserError

CHAINS = {
    "cosine": CosineChain(50, max_beta=1.0),
    "cosine, rescaled": CosineChain(50, zero_terminal_snr=True),
    "sigmoid": SigmoidChain(50, max_beta=1.0),
    "linear": LinearChain(50, zero_terminal_snr=True),
    "scaled_linear": ScaledLinearChain(50, zero_terminal_snr=True),
    "mnist_source": LinearChain(200, 1e-4, 0.02, zero_terminal_snr=True),
    "two steps": DiscreteSchedule([0.5, 1.0]),
}
LONG = CosineChain(400, max_beta=1.0)
SINGULAR = {"epsilon", "score"}
SAMPLERS = presets("sampler")
UNFIT = {"ode", "langevin", "annealed_langevin", "euler_maruyama"}
every_chain = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS)


class Net(torch.nn.Module):
    """A net with one weight, which shows whether gradients are finite."""

    def __init__(self, out=1):
        super().__init__()
        self.weight, self.out = torch.nn.Parameter(torch.tensor(0.7)), out

    def forward(self, x, noise_label, class_label=None):
        return (self.weight * x).repeat(1, self.out)


def learned(schedule, row="v", out=1):
    return Denoiser(Net(out), schedule, ROWS[row](schedule), learned_variance=out == 2)


# The chain.


@every_chain
def test_the_chain_ends_without_signal_and_is_finite_between_its_levels(schedule):
    assert (schedule.at(1.0).alpha.item(), schedule.at(1.0).sigma.item()) == (0.0, 1.0)
    assert schedule.loses_signal
    t = torch.linspace(0.2 / schedule.steps, 1, 999, dtype=torch.float64)
    level, rates = schedule.at(t), schedule.rates(t)
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones_like(t), rtol=0, atol=1e-14)
    assert (level.alpha.diff() < 0).all()
    for rate, field in zip(rates, (level.alpha, level.sigma), strict=True):
        assert rate.isfinite().all()
        assert field.isfinite().all()
    torch.testing.assert_close(schedule.time(level.log_snr), t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.at_angle(level.angle).alpha, level.alpha, rtol=1e-7, atol=1e-12)
    assert schedule.snap(torch.ones(1, dtype=torch.float64)).alpha.item() == 0


def test_the_rates_are_the_slopes_between_the_levels():
    t, h = torch.linspace(0.013, 0.997, 200, dtype=torch.float64), 1e-6
    schedule = CHAINS["cosine"]
    ahead, behind = schedule.at(t + h), schedule.at(t - h)
    inside = (t * 50).frac() * (1 - (t * 50).frac()) > 1e-3  # not at a kink
    for rate, high, low in zip(schedule.rates(t), ahead[1:], behind[1:], strict=True):
        torch.testing.assert_close(rate[inside], ((high - low) / (2 * h))[inside], rtol=1e-5, atol=1e-7)


def test_rescaled_tables_are_those_of_algorithm_1():
    """By its own lines on alpha_bar; and by diffusers, where it is installed."""
    for make in (LinearChain, ScaledLinearChain, CosineChain, SigmoidChain):
        plain, rescaled = make(40), make(40, zero_terminal_snr=True)
        root = plain.probe().alpha
        first, last = root[0].clone(), root[-1].clone()
        expected = (root - last) * first / (first - last)
        torch.testing.assert_close(rescaled.probe().alpha, expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(rescaled.at(rescaled.t_min).alpha, plain.at(plain.t_min).alpha, rtol=1e-12, atol=0)
    diffusers = pytest.importorskip("diffusers")
    settings = {"beta_start": 1e-3, "beta_end": 0.2, "rescale_betas_zero_snr": True}
    other = diffusers.DDIMScheduler(num_train_timesteps=100, prediction_type="v_prediction", **settings)
    alpha_bar = LinearChain(100, 1e-3, 0.2, zero_terminal_snr=True).probe().alpha ** 2
    torch.testing.assert_close(alpha_bar.float(), other.alphas_cumprod, rtol=1e-3, atol=1e-6)


def test_only_the_last_beta_may_be_1():
    for betas in ([0.5, 1.0, 0.5], [1.0, 1.0], [0.5, 1.1], [0.0, 1.0]):
        with pytest.raises(UserError, match="strictly between 0 and 1, only the last one may be 1, got"):
            DiscreteSchedule(betas)


# Rows.


@pytest.mark.parametrize("row", ROWS)
@every_chain
def test_every_row_decodes_at_every_level_or_is_refused_with_the_remedy(schedule, row):
    if row in SINGULAR:
        with pytest.raises(UserError, match=r"cannot be decoded at t = 1, where alpha = 0 .*take parameterization=v"):
            learned(schedule, row)
        return
    denoiser, level = learned(schedule, row), schedule.probe()
    level = type(level)(*(field[:, None] for field in level))
    x_0, eps = (torch.randn(schedule.steps, 1, generator=torch.Generator().manual_seed(k)).double() for k in (0, 1))
    x_t = level.alpha * x_0 + level.sigma * eps
    found = denoiser.parameterization.decode(denoiser.parameterization.target(x_0, eps, level), x_t, level)
    torch.testing.assert_close(found.x_0, x_0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.eps, eps, rtol=1e-7, atol=1e-7)
    assert all(field.isfinite().all() for field in denoiser(x_t.float(), level)[:2])


# Training.

WEIGHTINGS = {
    "simple": lambda s: Simple(),
    "snr": lambda s: SNR(),
    "min_snr": lambda s: MinSNR(),
    "likelihood": Likelihood,
    "variational": Variational,
    "variational, posterior": lambda s: Variational(s, "posterior"),
}
TIMES = (UniformTimes, LogNormalSigma, LogitNormalTimes, LossAwareTimes)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@every_chain
def test_every_weight_loss_and_gradient_is_finite(schedule, weighting):
    for row, times in product(set(ROWS) - SINGULAR, TIMES):
        denoiser, weight = learned(schedule, row), WEIGHTINGS[weighting](schedule)
        assert weight.weight(schedule.probe(), denoiser.parameterization).isfinite().all()
        losses = DenoisingObjective(times(schedule), weight)(denoiser, torch.ones(64, 1), offset=0.0)
        losses.mean().backward()
        assert losses.t.max() > 0.9 or times is LogNormalSigma
        assert losses.value.isfinite().all()
        assert denoiser.net.weight.grad.isfinite()


@every_chain
def test_a_learned_variance_trains(schedule):
    denoiser = learned(schedule, "v", out=2)
    objective = HybridObjective(UniformTimes(schedule), Simple(), value_range=None)
    losses = objective(denoiser, torch.ones(200, 1), offset=0.0)
    losses.mean().backward()
    assert denoiser.net.weight.grad.isfinite()
    level = schedule.snap(torch.ones(3, 1, dtype=torch.float64))
    prediction = denoiser(torch.ones(3, 1), level)
    assert bound_term(schedule, torch.ones(3, 1), prediction, level, "gaussian").isfinite().all()


# Samplers.


@pytest.mark.parametrize("name", SAMPLERS)
@every_chain
def test_every_sampler_walks_from_the_last_level_to_finite_samples_or_is_refused(schedule, name):
    """On every grid, in every coordinate, with the exact and with a learned denoiser, clipped or not."""
    for grid, steps in product(("uniform", *GRIDS), {1, 2, min(schedule.steps, 9)}):
        walker = SAMPLERS[name].respaced(steps)
        if hasattr(walker, "grid"):
            walker.grid = grid
        if name in UNFIT:
            with pytest.raises(UserError, match=f"sampler={name} does not fit this process: "):
                walker.check(schedule)
            continue
        walker.check(schedule)
        assert tuple(walker.levels(schedule)[0]) == tuple(schedule.at(1.0))
        for denoiser in (mixture(schedule), ClippedDenoiser(learned(schedule).double(), -1, 1)):
            x = walker.prior(schedule, torch.empty(8, 1, dtype=torch.float64), seeded_noise(0))
            assert walker.sample(denoiser, x, noise=seeded_noise(1)).isfinite().all()


@every_chain
def test_the_other_choices_of_samplers_are_finite_or_refused(schedule):
    x, known = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).double(), double([[0.3]]).expand(8, 1)
    mask = torch.arange(8)[:, None] < 4
    walkers = [kind(None, coordinate=axis) for kind in (Euler, Heun) for axis in ("time", "angle", "auto")]
    walkers += [Ancestral(variance="forward"), RePaint(known, mask, min(schedule.steps, 9), resample=3)]
    for walker in walkers:
        walker.check(schedule)
        assert walker.sample(mixture(schedule), x, noise=seeded_noise(1)).isfinite().all()
    denoiser = learned(schedule, "v", out=2).double()
    assert Ancestral(variance="learned").sample(denoiser, x, noise=seeded_noise(1)).isfinite().all()
    for kind in (Euler, Heun):
        with pytest.raises(UserError, match=r"take sampler\.coordinate=time"):
            kind(None, coordinate="ratio").check(schedule)


NOISY = {
    "ancestral": lambda: Ancestral(variance="forward"),
    "ddim": lambda: SAMPLERS["ddim"].respaced(None),
    "euler": lambda: Euler(None, coordinate="auto"),
    "heun": lambda: Heun(None, coordinate="auto"),
    "dpm_solver": lambda: SAMPLERS["dpm_solver"].respaced(100),
    "sde_dpm_solver": lambda: SAMPLERS["sde_dpm_solver"].respaced(100),
    "unipc": lambda: SAMPLERS["unipc"].respaced(100),
    "predictor_corrector": lambda: SAMPLERS["predictor_corrector"].respaced(None),
}


@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_samples_of_a_gaussian_have_its_mean_and_deviation(make):
    """N(1, 0.25), exactly, without Monte Carlo: the prior N(0, 1) is exact at alpha = 0, so the mean is met by all."""
    mean, variance = moments(make(), LONG, 0.0, 1.0, draws=2 * LONG.steps)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance**0.5 == pytest.approx(STD, abs=0.015)


def test_a_chain_that_keeps_signal_misses_the_mean_and_its_rescaled_table_does_not():
    """The table of the MNIST source ends at alpha = 0.36; it starts from the wrong prior, as the paper's figures do."""
    with pytest.warns(UserWarning, match="samples start from the wrong prior"):
        plain = LinearChain(200, 1e-4, 0.02)
    for schedule, error in ((plain, 0.03), (CHAINS["mnist_source"], 0.0)):
        mean, _ = moments(Ancestral(variance="forward"), schedule, 0.0, 1.0, draws=400)
        assert abs(mean - MEAN) == pytest.approx(error, abs=0.01)


# Likelihoods.


@pytest.mark.parametrize("variance", VARIANCES)
@every_chain
def test_the_bound_is_finite(schedule, variance):
    denoiser = learned(schedule, "v", out=2 if variance == "learned" else 1).double()
    x_0 = double([[-1.0], [1 / 127.5 - 1], [1.0]])
    for decoder, steps in product(("8bit", "gaussian"), (2, None)):
        terms = variational_bound(denoiser, x_0, variance, decoder, steps=steps)
        assert terms.total.isfinite().all()
        assert (terms.prior == 0).all()


@every_chain
def test_the_flow_s_density_is_that_of_the_noised_data(schedule):
    x = torch.linspace(-1, 2.5, 9, dtype=torch.float64)[:, None]
    found = flow_log_likelihood(gaussian(schedule), x, rtol=1e-6, atol=1e-6).log_density
    std = (STD**2 + schedule.at(schedule.t_min).ratio ** 2).sqrt()
    torch.testing.assert_close(found, torch.distributions.Normal(MEAN, std).log_prob(x[:, 0]), rtol=0, atol=1e-4)
    net = flow_log_likelihood(learned(schedule).double(), x, None, Hutchinson(1), 1e-3, 1e-3).log_density
    assert net.isfinite().all()


# Runs.


def test_a_run_trains_samples_and_measures_on_such_a_chain(trained):
    words = ["schedule=cosine", "schedule.max_beta=1.0", "schedule.steps=25", "parameterization=v"]
    words += ["callbacks.trajectory=null", "callbacks.final_samples.points=100", "metrics.distances=[wasserstein]"]
    assert (trained(*words) / "pictures" / "samples.png").is_file()


@pytest.mark.parametrize("words", [["schedule.zero_terminal_snr=true"], ["schedule=cosine", "schedule.max_beta=1.0"]])
@pytest.mark.parametrize("row", sorted(SINGULAR))
def test_a_run_refuses_epsilon_and_score_in_one_line(built, words, row):
    with pytest.raises(UserError, match=r"cannot be decoded at t = 1.*take parameterization=v \(or flow\)") as refusal:
        built(*words, f"parameterization={row}")
    assert "\n" not in str(refusal.value)
