"""Learned fields and long chains: the numbers are those of the law, the pictures show them where they are."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_UNET
from PIL import Image
from torch import Tensor, nn

from litdiffusion import plots
from litdiffusion.callbacks.field import Field, field
from litdiffusion.callbacks.langevin_path import LangevinPath
from litdiffusion.diffusion.denoisers import Denoiser, GaussianMixtureDenoiser
from litdiffusion.diffusion.levels import Level, seeded_noise
from litdiffusion.diffusion.parameterizations import V
from litdiffusion.diffusion.schedules import (
    VE,
    VP,
    GeometricLadder,
    LinearChain,
    LinearFlow,
    NoiseSchedule,
    SingleLevel,
)
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots.density import common_window
from litdiffusion.plots.field import SHORTEST, arrows
from litdiffusion.plots.grids import window_of
from litdiffusion.plots.palette import ACCENT, INK, START_TO_END, TRUTH

SCHEDULES = {
    "chain": LinearChain(1000),
    "ladder": GeometricLadder(50),
    "single": SingleLevel(0.3),
    "vp": VP(),
    "ve": VE(),
    "flow": LinearFlow(),
}
WEIGHTS, MEANS, STD = torch.tensor([0.4, 0.6]).double(), torch.tensor([[-1.0, 0.5], [1.5, 0.0]]).double(), 0.6
PLANE, LINE = (66, 66, 600, 600), (66, 66, 552, 384)
"""Left, top, width and height in pixels of the first panel of a picture without a title."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def at(schedule: NoiseSchedule, ratio: float) -> Level:
    """The level at which sigma / alpha is about this."""
    return schedule.snap(schedule.time(torch.tensor(-2 * math.log(ratio), dtype=torch.float64)))


def near(pixels: np.ndarray, colour: tuple[int, int, int], by: int = 24) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) <= by).all(axis=-1)


def inside(picture: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, width, height = box
    return np.asarray(picture)[top + 2 : top + height - 1, left + 2 : left + width - 1]


# The fields as numbers.


class ExactNet(nn.Module):
    """What a net with parameterization v learns of N(mean, std²) data at one level: E[x_0 | x] and E[eps | x]."""

    def __init__(self, level: Level, mean: float, std: float):
        super().__init__()
        self.level, self.mean, self.std = level, mean, std

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None) -> Tensor:
        alpha, sigma = self.level.alpha.item(), self.level.sigma.item()
        centred = x / V().input_scale(self.level) - alpha * self.mean
        variance = alpha**2 * self.std**2 + sigma**2
        x_0 = self.mean + alpha * self.std**2 * centred / variance
        return V().target(x_0, sigma * centred / variance, self.level)


@pytest.mark.parametrize("name", ["chain", "vp", "flow", "ve"])
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_fields_of_an_exact_net_are_those_of_the_gaussian(name: str, ratio: float) -> None:
    """score = -(x - alpha m) / v with v = alpha² s² + sigma², and the flow that carries N(alpha m, v) along is
    alpha' m + v' / (2 v) (x - alpha m)."""
    schedule, mean, std = SCHEDULES[name], 0.7, 0.5
    level, denoiser = at(schedule, ratio), Denoiser(ExactNet(at(schedule, ratio), mean, std), schedule, V())
    x = plots.field_grid(normal(500, 2), 20)
    (alpha, sigma), (alpha_rate, sigma_rate) = level[1:], schedule.rates(level.t)
    variance, rate = alpha**2 * std**2 + sigma**2, 2 * (alpha * alpha_rate * std**2 + sigma * sigma_rate)
    centred = x - alpha * mean
    velocity = alpha_rate * mean + rate / (2 * variance) * centred
    assert torch.allclose(field(denoiser, x, level, "score"), -centred / variance, rtol=1e-9, atol=1e-9)
    assert torch.allclose(field(denoiser, x, level, "velocity"), velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_score_of_a_mixture_is_the_gradient_of_its_log_density(name: str) -> None:
    schedule = SCHEDULES[name]
    level, denoiser = (
        at(schedule, 0.4),
        GaussianMixtureDenoiser(schedule, WEIGHTS, MEANS, torch.tensor(STD, dtype=torch.float64)),
    )
    x = plots.field_grid(2 * normal(500, 2), 20).requires_grad_()
    alpha, sigma = level.alpha.item(), level.sigma.item()
    scale = torch.full_like(MEANS, math.sqrt(alpha**2 * STD**2 + sigma**2))
    parts = torch.distributions.Independent(torch.distributions.Normal(alpha * MEANS, scale), 1)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(WEIGHTS), parts)
    gradient = torch.autograd.grad(law.log_prob(x).sum(), x)[0]
    assert torch.allclose(field(denoiser, x.detach(), level, "score"), gradient, rtol=1e-8, atol=1e-8)


# The panels of the callback.


@pytest.fixture
def panels_of(built, tmp_path):
    """The panels of a run whose denoiser is ``exact(schedule, mixture)``, or its own fresh net."""

    def make(*overrides: str, exact: bool = True, **options):
        experiment = built(*overrides)
        module, data = experiment.module, experiment.data
        module.trainer = experiment.trainer
        if exact:
            mixture = data.mixture
            truth = GaussianMixtureDenoiser(module.denoiser.schedule, mixture.weights, mixture.means, mixture.std)
            module.sampling_denoiser = lambda weights: truth
        trainer = SimpleNamespace(datamodule=data)
        return Field(tmp_path, **options).panels(trainer, module), module

    return make


@pytest.mark.parametrize("kind", ["score", "velocity"])
@pytest.mark.parametrize("data", ["two_gaussians", "gaussian_mixture"])
def test_an_exact_denoiser_lies_on_the_truth(panels_of, data: str, kind: str) -> None:
    panels, _ = panels_of(f"data={data}", kind=kind, points=500)
    assert len(panels) == 5
    for panel in panels:
        assert panel.points.shape == panel.vectors.shape == panel.truth.shape
        assert len(panel.points) == (400 if data == "two_gaussians" else 200)
        assert float((panel.vectors - panel.truth).abs().max()) < 1e-3 * float(panel.truth.abs().max())


def test_default_levels_are_geometric_in_the_noise_of_the_data(panels_of) -> None:
    """0.05 to 3 deviations of the standardised data, four equal factors of 60^(1/4) = 2.78 between."""
    panels, _ = panels_of("schedule=ve", "data=two_gaussians", points=500)
    ratios = [float(panel.title.removeprefix("σ = ")) for panel in panels]
    assert ratios == pytest.approx([0.05 * 60 ** (k / 4) for k in range(5)], rel=0.02)
    noised = [float(panel.density.var(dim=0).mean()) ** 0.5 for panel in panels]
    assert noised == pytest.approx([math.hypot(1, ratio) for ratio in ratios], rel=0.06)


def test_levels_that_coincide_are_shown_once_and_the_cleanest_first(panels_of) -> None:
    panels, _ = panels_of("recipe=dsm", "schedule.sigma=0.5", "data=two_gaussians", points=100)
    assert [panel.title for panel in panels] == ["σ = 0.5"]
    panels, _ = panels_of("schedule.steps=100", "data=two_gaussians", points=100, levels=(1.0, 0.195, 0.2))
    assert [panel.title.split(",")[0] for panel in panels] == ["t = 20", "t = 100"]


def test_other_data_have_no_truth_and_the_net_returns_to_its_mode(panels_of) -> None:
    panels, module = panels_of("data=spiral", exact=False, points=100, weights="raw")
    assert all(panel.truth is None for panel in panels)
    assert module.denoiser.training
    assert not any(panel.vectors.requires_grad for panel in panels)


def test_pictures_are_saved_and_do_not_change_the_run(built, tmp_path: Path) -> None:
    weights, options = [], ("data=two_gaussians", "trainer.max_steps=3")
    pictures = [Field(tmp_path, every_n_steps=2, points=100, levels=(0.1,)), LangevinPath(tmp_path, 20, keep_every=5)]
    for callbacks in ([], pictures):
        experiment = built(*options)
        experiment.trainer.callbacks.extend(callbacks)
        experiment.trainer.fit(experiment.module, experiment.data)
        weights.append(experiment.module.state_dict())
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["field.png", "field_step_000002.png", "langevin_path.png"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_images_have_no_field_and_no_path(built, tmp_path: Path) -> None:
    experiment = built(*TINY_UNET)
    trainer = SimpleNamespace(is_global_zero=True, global_step=0)
    for callback in (Field(tmp_path), LangevinPath(tmp_path)):
        callback.on_train_end(trainer, experiment.module)
    assert not (tmp_path / "pictures").exists()


NONSENSE = [
    (Field, {"kind": "flow"}, "callbacks.field.kind must be score or velocity, got 'flow'"),
    (Field, {"weights": "best"}, "callbacks.field.weights must be ema or raw"),
    (Field, {"arrows": 1}, "callbacks.field.arrows must be at least 2"),
    (Field, {"every_n_steps": 0}, "callbacks.field.every_n_steps must be at least 1"),
    (Field, {"levels": (0.0, 1.0)}, "callbacks.field.levels must be times"),
    (LangevinPath, {"steps": 0}, "callbacks.langevin_path.steps must be at least 1"),
    (LangevinPath, {"step_size": 0.0}, "callbacks.langevin_path.step_size must be positive"),
    (LangevinPath, {"weights": "best"}, "callbacks.langevin_path.weights must be ema or raw"),
]


@pytest.mark.parametrize(("kind", "options", "message"), NONSENSE)
def test_nonsense_is_refused(kind: type, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        kind(tmp_path, **options)


# Grids and arrows.


def test_grid_fills_its_window_and_tells_it() -> None:
    points = normal(2000, 2) * torch.tensor([1.0, 3.0]) + 5
    grid, window = plots.field_grid(points, 20), common_window([], points)
    assert grid.shape == (400, 2)
    assert len(grid[:, 0].unique()) == len(grid[:, 1].unique()) == 20
    told = window_of(grid)
    assert torch.allclose(told.centre, window.centre)
    assert torch.allclose(told.half, window.half)
    assert plots.field_grid(points[:, :1], 50).shape == (50, 1)


def test_grids_share_a_window_up_to_twice_the_cleanest() -> None:
    samples = [scale * normal(2000, 2) for scale in (1.0, 1.5, 30.0)]
    first, second, third = (float(window_of(grid).half[0]) for grid in plots.field_grids(samples, 10))
    assert first == second == pytest.approx(float(common_window([], samples[1]).half[0]), rel=0.01)
    assert third == pytest.approx(float(common_window([], samples[2]).half[0]))


def test_arrows_keep_directions_and_compress_lengths() -> None:
    vectors = torch.tensor([[4.0, 0.0], [0.0, -1.0], [0.0, 0.0], [torch.nan, 1.0], [1e-9, -1e-9]])
    shown = arrows(vectors, largest=4.0)
    assert shown[:2].tolist() == [[1.0, 0.0], [0.0, -(SHORTEST + (1 - SHORTEST) / 2)]]
    assert shown[2:4].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert shown[4].tolist() == pytest.approx([SHORTEST / 2**0.5, -SHORTEST / 2**0.5], rel=1e-4)


# The fields as pixels.


def lone_arrow(vector: tuple[float, float], truth: tuple[float, float] | None = None) -> np.ndarray:
    """The panel of a field on a 5 x 5 grid over [-1, 1]² that is 0 but in the middle."""
    grid = plots.field_grid(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), 5)
    fields = [torch.zeros(25, 2) for _ in range(2)]
    for tensor, value in zip(fields, (vector, truth or (0.0, 0.0)), strict=True):
        tensor[12] = torch.tensor(value)
    far = torch.full((10, 2), 100.0)  # outside the window: nothing lies under the arrow
    panel = plots.FieldPanel("σ = 1", far, grid, fields[0], None if truth is None else fields[1])
    return inside(plots.field_picture([panel]), PLANE)


@pytest.mark.parametrize("angle", [0, 90, 200])
def test_an_arrow_begins_at_its_point_and_points_along_the_field(angle: int) -> None:
    """Pixels lie from the middle of the panel on, in the field's direction, y upwards, and as far as it is long."""
    direction = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    rows, columns = np.nonzero(near(lone_arrow(tuple(7 * direction)), ACCENT))
    middle = 298
    along = (columns - middle) * direction[0] - (rows - middle) * direction[1]
    across = (columns - middle) * direction[1] + (rows - middle) * direction[0]
    length = 1.1 * 600 / (5 * (1 + 1.1 / 5))  # LONGEST times the pitch; the window has half an arrow more at each side
    assert along.min() > -4
    assert along.max() == pytest.approx(length, abs=5)
    assert abs(across.mean()) < 1.5
    head = along > length / 2
    assert np.abs(across[head]).max() > np.abs(across[~head]).max() + 2


@pytest.mark.parametrize(("gradient", "vector"), [(False, (1.0, 100.0)), (True, (1.0, 0.01))])
def test_on_unequal_axes_a_velocity_and_a_gradient_point_up_the_same_slope(gradient: bool, vector: tuple) -> None:
    """x is 100 times as wide in y: the diagonal of the picture is the velocity (1, 100) and the gradient (1, 1/100)."""
    grid = plots.field_grid(torch.tensor([[-1.0, -100.0], [1.0, 100.0]]), 5)
    field = torch.zeros(25, 2)
    field[12] = torch.tensor(vector)
    panel = plots.FieldPanel("σ = 1", torch.full((10, 2), 1e4), grid, field, gradient=gradient)
    rows, columns = np.nonzero(near(inside(plots.field_picture([panel]), PLANE), ACCENT))
    middle = 298
    assert (columns - middle).mean() > 20
    assert (columns - middle).mean() == pytest.approx((middle - rows).mean(), abs=2)


def test_a_field_of_zeros_has_no_arrow_and_the_truth_lies_beneath() -> None:
    assert not near(lone_arrow((0.0, 0.0)), ACCENT).any()
    apart, alike = lone_arrow((1.0, 0.0), (0.0, 1.0)), lone_arrow((1.0, 0.0), (1.0, 0.0))
    assert near(apart, TRUTH, 6)[:270].sum() > 100
    assert near(alike, ACCENT).sum() == pytest.approx(near(lone_arrow((1.0, 0.0)), ACCENT).sum(), rel=0.05)
    assert near(alike, TRUTH, 6).sum() < near(apart, TRUTH, 6).sum() / 2


def test_a_line_passes_through_the_values_of_the_field() -> None:
    """v = -x over the panel's height of 2.2 largest |v|: falling, through zero at the middle."""
    grid = plots.field_grid(torch.tensor([[-1.0], [1.0]]), 200)
    panel = plots.FieldPanel("t = 1", torch.full((10, 1), 100.0), grid, -grid)
    shown = near(inside(plots.field_picture([panel]), LINE), ACCENT)
    height, width = shown.shape
    for share in (0.1, 0.5, 0.8):
        rows = np.nonzero(shown[:, int(share * width)])[0]
        value = -(2 * share - 1) * 200 / 199 / 1.1  # in units of the half height
        assert rows.mean() == pytest.approx(height / 2 * (1 - value), abs=3)


@pytest.mark.parametrize(("d", "count"), [(1, 1), (1, 5), (2, 3), (2, 4)])
def test_every_number_of_panels_fits_and_repeats_byte_for_byte(d: int, count: int) -> None:
    sample, state = normal(300, d), torch.random.get_rng_state()
    grid = plots.field_grid(sample, 8)
    panel = plots.FieldPanel("t = 1", sample, grid, -grid, torch.full_like(grid, torch.nan))
    picture = plots.field_picture([panel] * count, "Title", "score")
    assert picture.mode == "RGB"
    assert picture.width < 2100
    if count <= 3:
        assert picture.tobytes() == plots.field_picture([panel] * count, "Title", "score").tobytes()
    assert torch.equal(state, torch.random.get_rng_state())


# The long chain.


def test_chain_is_langevin_from_the_origin(built, tmp_path: Path) -> None:
    experiment = built("recipe=dsm", "data=two_gaussians")
    module = experiment.module
    module.trainer = experiment.trainer
    path = LangevinPath(tmp_path, steps=25, step_size=0.01, keep_every=10, seed=3).path(module)
    denoiser, noise, x, kept = (
        module.sampling_denoiser("ema"),
        seeded_noise(fold_seed(3, "langevin_path")),
        torch.zeros(1, 2),
        [],
    )
    level = module.denoiser.schedule.at(1.0)
    with torch.no_grad():
        for step in range(26):
            kept += [x] if step % 10 == 0 else []
            score = -denoiser(x, level).eps / level.sigma.item()
            x = x + 0.01 * score + math.sqrt(0.02) * noise(x)
    assert torch.allclose(path, torch.cat(kept), atol=1e-6)
    assert path.shape == (3, 2)


def test_path_runs_from_a_ringed_black_to_red_over_faint_points() -> None:
    """Each state lies at its place: the first black in a dark ring, the last red; the points a pale blue."""
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.5, -0.5]])
    path = torch.tensor([[-0.5, 0.5], [torch.nan, 0.0], [0.5, 0.5]])
    picture = plots.path_picture(points, path)
    pixels, side = np.asarray(picture), 7.2 * 120

    def pixel(x: float, y: float, right: float = 0.0) -> np.ndarray:
        half = 1.06
        column, row = (x + half) / (2 * half) * side, (half - y) / (2 * half) * side
        top = picture.height - (0.95 + 7.2) * 120
        return pixels[round(top + row), round(0.7 * 120 + column + right)]

    assert near(pixel(-0.5, 0.5), START_TO_END[0])
    assert near(pixel(0.5, 0.5), START_TO_END[-1])
    ring = [pixel(-0.5, 0.5, right) for right in np.arange(9, 16)]
    assert any(near(shade, INK) for shade in ring)
    blue = pixel(0.5, -0.5)
    assert 150 < int(blue[0]) < int(blue[2]) < 250


def test_path_in_one_dimension_is_shown_against_time() -> None:
    """A chain that climbs goes from the lower left to the upper right, from black to red."""
    path = torch.linspace(-1, 1, 101)[:, None]
    pixels = np.asarray(plots.path_picture(normal(500, 1), path, every=10))[66:-150, 100 : int(10.4 * 120)]
    red, black = near(pixels, START_TO_END[-1], 40), near(pixels, START_TO_END[0], 20)
    (red_rows, red_columns), (black_rows, black_columns) = np.nonzero(red), np.nonzero(black)
    assert red_columns.mean() > 900 > 200 > black_columns.mean()
    assert red_rows.mean() < black_rows.mean()
