"""diffusers: the loop of its tutorial "Train a diffusion model", with accelerate, and the sampling loop of a pipeline.

Learning rate, warm-up, clipping and the noise scheduler are the tutorial's; it keeps no average of the weights. Changed
are the half precision, which a CPU lacks, and the mirror images. A warm-up of 500 steps would outlast a short run, so
it is at most a tenth of the run.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from others.case import Case
from others.rival import OnStep, Rival, Settings, Trained, endless, in_blocks

TIMESTEPS, RATE, WARMUP = 1000, 1e-4, 500


class TimestepNet(nn.Module):
    """The net as diffusers calls it: a function of x and a timestep, which returns a tuple."""

    def __init__(self, case: Case):
        super().__init__()
        self.net = case.net()

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.net(sample, timestep / (TIMESTEPS - 1)),)


def train(case: Case, steps: int, settings: Settings, on_step: OnStep) -> Trained:
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    accelerator, scheduler = Accelerator(), DDPMScheduler(num_train_timesteps=TIMESTEPS)
    net = TimestepNet(case)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr or RATE)
    rates = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, steps // 10), steps)
    loader = DataLoader(2 * case.to_unit(case.x) - 1, batch_size=case.batch, shuffle=True)
    net, optimizer, loader, rates = accelerator.prepare(net, optimizer, loader, rates)
    bar, batches = tqdm(range(steps)), endless(loader)
    for _ in bar:
        x_0 = next(batches)
        noise = torch.randn_like(x_0)
        timesteps = torch.randint(0, TIMESTEPS, (len(x_0),), device=x_0.device)
        x_t = scheduler.add_noise(x_0, noise, timesteps)
        with accelerator.accumulate(net):
            loss = nn.functional.mse_loss(net(x_t, timesteps, return_dict=False)[0], noise)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        bar.set_postfix(loss=loss.detach().item(), lr=rates.get_last_lr()[0])
        on_step()
    calls = settings.limited(TIMESTEPS)
    trained = accelerator.unwrap_model(net).eval()

    @torch.no_grad()
    def block(k: int) -> Tensor:
        scheduler.set_timesteps(calls)
        x = torch.randn(k, *case.shape)
        for t in scheduler.timesteps:
            x = scheduler.step(trained(x, t.expand(k))[0], t, x).prev_sample
        return x

    size = 100 if case.is_image else 10_000
    return Trained(lambda n: case.from_unit((in_blocks(n, size, block) + 1) / 2), f"DDPMScheduler, {calls} calls")


def forces(case: Case) -> str:
    scaled = "" if case.is_image else ", points scaled to [-1, 1], to which its scheduler clips"
    return f"no average of the weights{scaled}"


RIVAL = Rival("diffusers' tutorial", ("diffusers", "accelerate"), train, forces)
