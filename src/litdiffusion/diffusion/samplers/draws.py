"""The driver that draws all samples of callbacks, measures and scripts."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.levels import Noise, seeded_noise
from litdiffusion.diffusion.samplers.base import Sampler, State, blank
from litdiffusion.diffusion.seeding import fold_seed


def unchanged(x: Tensor) -> Tensor:
    """Returns x: the decoder of a model in data space."""
    return x


def _ignored(state: State) -> None:
    """Does nothing with a state."""


@dataclass(frozen=True)
class Draws:
    """Draws samples from a denoiser with a sampler.

    Args:
        sampler: the sampler, from noise to data.
        denoiser: (x_t, level, class_label) -> `Prediction`, with a ``schedule``.
        shape: shape of one sample in model space.
        decode: maps model space to data space.
        device: device of the samples; None: the CPU.
        on_state: called with every state, e.g. for a progress bar.
    """

    sampler: Sampler
    denoiser: AnyDenoiser
    shape: Sequence[int]
    decode: Callable[[Tensor], Tensor] = unchanged
    device: torch.device | None = None
    on_state: Callable[[State], object] = _ignored

    def states(
        self, count: int, noise: Noise, class_label: Tensor | None = None, keep: Container[int] | None = None
    ) -> list[State]:
        """States of ``count`` samples that start from the prior, see `states_from`."""
        x = self.sampler.prior(self.denoiser.schedule, blank(count, self.shape, self.device), noise)
        return self.states_from(x, noise, class_label, keep)

    @torch.no_grad()
    def states_from(
        self, x: Tensor, noise: Noise, class_label: Tensor | None = None, keep: Container[int] | None = None
    ) -> list[State]:
        """The states of the trajectory from x (B, *shape), decoded and in float32.

        Args:
            x: initial values in model space.
            noise: source of the sampler's noise.
            class_label: (B,), for a conditional denoiser.
            keep: step numbers of the returned states; None: only the last state.
        """
        class_label = None if class_label is None else class_label.to(x.device)
        kept: list[State] = []
        for state in self.sampler.trajectory(self.denoiser, x, class_label, noise):
            self.on_state(state)
            kept = [state] if keep is None else [*kept, state] if state.step in keep else kept
        return [state._replace(x=self.decode(state.x).float()) for state in kept]

    def batch(self, indices: range, noise: Noise, class_labels: Tensor | None = None) -> State:
        """The samples with the ``indices``; sample i has the class label ``class_labels[i % N]`` of (N,)."""
        chosen = None if class_labels is None else class_labels[torch.tensor(indices) % len(class_labels)]
        return self.states(len(indices), noise, chosen)[-1]

    def block(self, index: int, size: int, seed: int, class_labels: Tensor | None = None) -> State:
        """Block ``index`` of ``size`` samples, which depends only on (seed, index); class labels as in `batch`.

        Every split of the blocks over processes therefore gives the same samples, up to the rounding of the device.
        """
        indices = range(index * size, (index + 1) * size)
        return self.batch(indices, seeded_noise(fold_seed(seed, "block", index)), class_labels)
