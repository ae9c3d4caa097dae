"""smalldiffusion: ``training_loop`` and ``samples``, points as in its README, images as in its U-Net example.

The example is ``examples/fashion_mnist_unet.py``: another schedule, learning rate, ``gam``, scaled inputs, and an
average of the weights by torch-ema. Its mirror images are left out.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.data import DataLoader

from others.case import Case
from others.rival import OnStep, Rival, Settings, Trained, in_blocks


class _Recipe(NamedTuple):
    levels: int
    sigma_min: float
    sigma_max: float
    rate: float
    gam: float


POINTS = _Recipe(200, 0.005, 10.0, 1e-3, 2.0)
IMAGES = _Recipe(800, 0.01, 20.0, 7e-4, 1.6)
SAMPLING_STEPS, DECAY = 20, 0.999


def _model(case: Case, recipe: _Recipe) -> Any:
    """The net as a model of smalldiffusion: a function of x and sigma, which is () or (B, 1, ..., 1)."""
    from smalldiffusion import ModelMixin, Scaled

    class Net(nn.Module, ModelMixin):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.input_dims = case.net(), case.shape
            self.low, self.high = recipe.sigma_min, recipe.sigma_max

        def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
            u = (sigma / self.low).log() / Tensor([self.high / self.low]).log()
            return self.net(x, u.flatten().expand(len(x)))

    return Scaled(Net)() if case.is_image else Net()


def train(case: Case, steps: int, settings: Settings, on_step: OnStep) -> Trained:
    from smalldiffusion import ScheduleLogLinear, samples, training_loop

    recipe = IMAGES if case.is_image else POINTS
    schedule = ScheduleLogLinear(N=recipe.levels, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max)
    model, average = _model(case, recipe), None
    if case.is_image:
        from torch_ema import ExponentialMovingAverage

        average = ExponentialMovingAverage(model.parameters(), decay=DECAY)
    loader = DataLoader(case.x, batch_size=case.batch, shuffle=True)
    # The loop hands over before each step, so the step is complete when it hands over again.
    for step, state in enumerate(training_loop(loader, model, schedule, epochs=steps, lr=settings.lr or recipe.rate)):
        if step:
            on_step()
        if step == steps:
            break
        state.pbar.set_description(f"loss {state.loss.item():.5f}")
        if average is not None:
            average.update()
    calls = settings.limited(SAMPLING_STEPS)

    def block(k: int) -> Tensor:
        *_, x_0 = samples(model, schedule.sample_sigmas(calls), gam=recipe.gam, batchsize=k)
        return x_0

    def draw(n: int) -> Tensor:
        with average.average_parameters() if average else nullcontext():
            return in_blocks(n, 100 if case.is_image else 10_000, block)

    return Trained(draw, f"its samples(gam={recipe.gam:g}), {calls} calls")


def forces(case: Case) -> str:
    return "AdamW at a constant rate, no clipping" + ("" if case.is_image else ", no average of the weights")


RIVAL = Rival("smalldiffusion", ("smalldiffusion", "torch-ema"), train, forces)
