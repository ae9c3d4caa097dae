"""Checks the shapes of data, codec, net and sampler by two dummy items, before training."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from litdiffusion.data import Facts
from litdiffusion.diffusion.levels import Level, Prediction, seeded_noise
from litdiffusion.diffusion.samplers import Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError, first_line
from litdiffusion.training import DiffusionModule, TrainingModule

DUMMY_ITEMS = 2
"""Batch size of the checks; with 1 a net could mix up the batch with another dimension unnoticed."""


class DummyOutput(NamedTuple):
    """Shape of a net's output for two dummy items, and bytes of the activations that its gradient needs."""

    shape: tuple[int, ...]
    activation_bytes: int


def check_shapes(module: TrainingModule, facts: Facts) -> DummyOutput:
    """Refuses parts that do not fit each other; returns the net's output for two dummy items.

    Raises:
        UserError: names the part, the shape that it returns, and the shape that is needed.
    """
    return _check_diffusion(module, facts) if hasattr(module, "denoiser") else _check_autoencoder(module, facts)


def _check_autoencoder(module: TrainingModule, facts: Facts) -> DummyOutput:
    net, items = module.trained, facts.training_reference(DUMMY_ITEMS)
    with torch.random.fork_rng(devices=[]), measured_activations(net) as sizes:
        out = net(items)
    _require("the autoencoder", out.shape, items.shape, "return the shape of x")
    return DummyOutput(tuple(out.shape), sum(sizes))


def _check_diffusion(module: DiffusionModule, facts: Facts) -> DummyOutput:
    _check_codec(module, facts)
    told = module.num_classes, len(module.conditions)
    channels = module.shape[0] * (2 if module.denoiser.learned_variance else 1)
    output = dummy_forward(module.denoiser.net, module.shape, *told)
    needed = (DUMMY_ITEMS, channels, *module.shape[1:])
    remedy = "set out_channels: ${derived.out_channels}"
    if output.shape[2:] != needed[2:]:
        remedy = size_remedy(module.denoiser.net, module.shape, *told) or "return the size of x"
    _require("the net", output.shape, needed, remedy)
    _check_sampler(module.sampler, module.denoiser.schedule, module.shape)
    return output


def dummy_forward(net: nn.Module, shape: Sequence[int], num_classes: int = 0, conditions: int = 0) -> DummyOutput:
    """Calls the net with two dummy inputs (2, *shape) on the meta device, which needs no memory.

    A net that fails on the meta device (it holds tensors that are not buffers, or reads values) is called once on its
    own device, which decides whether the net is wrong.

    Raises:
        UserError: the net fails on real tensors.
    """
    try:
        return _call(net, shape, num_classes, conditions, torch.device("meta"))
    except Exception:  # a net may fail on meta in any way; the call below decides
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        try:
            return _call(net, shape, num_classes, conditions, device)
        except UserError:
            raise
        except Exception as error:
            reason = first_line(error)
            remedy = size_remedy(net, shape, num_classes, conditions) or "set shape: ${derived.shape} in its yaml"
            raise UserError(
                f"the net fails on x {(DUMMY_ITEMS, *shape)}, noise_label ({DUMMY_ITEMS},) and class_label "
                f"{_size(num_classes, conditions)}: {reason}; {remedy}, or take a net made for such data"
            ) from error


def size_remedy(net: nn.Module, shape: Sequence[int], num_classes: int = 0, conditions: int = 0) -> str:
    """The nearest sizes of images that the net can take, below and above; empty if none near is found.

    Sides that are multiples of 2, 4, 8, ... are tried, because a net that halves its input needs them.
    """
    if len(shape) != 3:
        return ""
    channels, *sides = shape
    factors = [2**k for k in range(1, 8) if 2**k <= 2 * max(sides)]
    below = (tuple(max(side // factor, 1) * factor for side in sides) for factor in factors)
    above = (tuple(-(-side // factor) * factor for side in sides) for factor in factors)
    found = dict.fromkeys(
        next((s for s in sizes if _takes(net, (channels, *s), num_classes, conditions)), None)
        for sizes in (below, above)
    )
    names = [f"{height}x{width}" for height, width in sorted(size for size in found if size is not None)]
    if not names:
        return ""
    height, width = next(size for size in found if size is not None)
    setting = f"data.image_size={height if height == width else f'[{height},{width}]'}"
    return f"sizes (height x width) that work: {' and '.join(names)}, e.g. {setting} where the data can be resized"


def _takes(net: nn.Module, shape: Sequence[int], num_classes: int, conditions: int) -> bool:
    """Whether the net returns images of the shape's size on the meta device."""
    try:
        return _call(net, shape, num_classes, conditions, torch.device("meta")).shape[2:] == tuple(shape[1:])
    except Exception:  # a net may fail in any way
        return False


def _size(num_classes: int, conditions: int) -> tuple[int, ...] | None:
    """The shape of ``class_label`` for the dummy items; None if nothing is told."""
    columns = (conditions + (num_classes > 0),) if conditions else ()
    return (DUMMY_ITEMS, *columns) if num_classes or conditions else None


def _call(net: nn.Module, shape: Sequence[int], num_classes: int, conditions: int, device: torch.device) -> DummyOutput:
    x = torch.zeros(DUMMY_ITEMS, *shape, device=device)
    noise_label = torch.ones(DUMMY_ITEMS, device=device)
    told, dtype = _size(num_classes, conditions), torch.float if conditions else torch.long
    class_label = None if told is None else torch.zeros(told, dtype=dtype, device=device)
    tensors = (*net.named_parameters(), *net.named_buffers())
    weights = {f"net.{name}": _to_device(value, device) for name, value in tensors}
    with measured_activations(net, weights.values()) as sizes:
        out = functional_call(_Uncompiled(net), weights, (x, noise_label, class_label))
    return DummyOutput(tuple(getattr(out, "shape", ())), sum(sizes))


@contextmanager
def measured_activations(net: nn.Module, weights: Iterable[Tensor] | None = None) -> Iterator[list[int]]:
    """Runs the block with the net in evaluation mode, and lists the bytes of each tensor that a gradient needs.

    ``weights``, by default the net's own, are left out.
    """
    own = {value.untyped_storage()._cdata for value in (net.parameters() if weights is None else weights)}
    kept: dict[int, Tensor] = {}
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    training = net.training
    net.eval()  # dummy items must not change running statistics
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield sizes
    finally:
        net.train(training)
    sizes += [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own]


def _to_device(value: Tensor, device: torch.device) -> Tensor:
    return value.detach().to(device).requires_grad_(value.requires_grad)


class _Uncompiled(nn.Module):
    """Calls a net without its compiled form, because compiling would take a minute."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None) -> Any:
        return self.net.forward(x, noise_label, class_label)


def _check_codec(module: DiffusionModule, facts: Facts) -> None:
    """Uses two real items, because a codec may not run on the meta device."""
    with torch.no_grad():
        items = facts.training_reference(DUMMY_ITEMS)
        latent = module.codec.encode(items)
        _require("the codec's encode", latent.shape[1:], tuple(module.shape), "return the shape of its latent_shape")
        decoded = module.codec.decode(latent)
    _require("the codec's decode", decoded.shape[1:], tuple(facts.shape), "return the shape of the data")


class _ZeroDenoiser(nn.Module):
    """A denoiser that always predicts x_0 = 0, so that a sampler runs without a net."""

    def __init__(self, schedule: NoiseSchedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, level: Level, class_label: Tensor | None = None) -> Prediction:
        variance_fraction = torch.full_like(x_t, 0.5)
        return Prediction(torch.zeros_like(x_t), x_t / level.sigma.to(x_t.dtype), variance_fraction)


def _check_sampler(sampler: Sampler, schedule: NoiseSchedule, shape: Sequence[int]) -> None:
    """Takes the sampler's first step from two draws of its prior, on the CPU because levels are real tensors."""
    noise = seeded_noise(0)
    try:
        start = sampler.prior(schedule, torch.zeros(DUMMY_ITEMS, *shape), noise)
        states = [state.x for state in islice(sampler.trajectory(_ZeroDenoiser(schedule), start, None, noise), 2)]
    except UserError:
        raise
    except Exception as error:  # a user's sampler may raise any kind of exception
        reason = first_line(error)
        raise UserError(f"the sampler fails on x {(DUMMY_ITEMS, *shape)}: {reason}; repair its step method") from error
    for x in states:
        _require("the sampler", x.shape, (DUMMY_ITEMS, *shape), "return the shape of x")


def _require(part: str, given: Sequence[int], needed: Sequence[int], remedy: str) -> None:
    if tuple(given) != tuple(needed):
        raise UserError(f"{part} returns shape {tuple(given)}, {tuple(needed)} is needed; {remedy}")
