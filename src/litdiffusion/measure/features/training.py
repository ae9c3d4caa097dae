"""Trains a small classifier of images in a plain loop: the result is a function of the images and one seed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, pad

from litdiffusion.data.base import bytes_to_floats
from litdiffusion.data.batch import Batch
from litdiffusion.data.loaders import Sliceable, take
from litdiffusion.data.order import shuffled_batches
from litdiffusion.diffusion.seeding import fold_seed, seed_generators
from litdiffusion.errors import UserError
from litdiffusion.nets.classifier import Classifier

# Each of the cycle's two parts, 30 % and 70 % of the steps, needs a step.
_FEWEST_STEPS = 10


@dataclass(frozen=True)
class ClassifierTraining:
    """Settings of a training: AdamW, a one-cycle learning rate, randomly shifted images.

    The training ends after ``steps`` batches or ``max_epochs`` passes over the images, whichever is first. ``lr`` is
    the peak of the cycle, ``shift`` the largest shift in pixels along each axis, and ``width`` the width of the net.

    Raises:
        UserError: for values out of range.
    """

    steps: int = 900
    max_epochs: int = 30
    batch_size: int = 128
    lr: float = 1e-2
    weight_decay: float = 1e-2
    shift: int = 1
    width: int = 16

    def __post_init__(self) -> None:
        least = {"steps": _FEWEST_STEPS, "max_epochs": 1, "batch_size": 2, "weight_decay": 0, "shift": 0, "width": 1}
        for name, minimum in least.items():
            if not getattr(self, name) >= minimum:
                raise UserError(f"{name}={getattr(self, name)} of the classifier must be at least {minimum}")
        if not 0 < self.lr < 1:
            raise UserError(f"lr={self.lr} of the classifier must lie between 0 and 1; 0.01 is the default")


@contextmanager
def _own_mode() -> Iterator[None]:
    """Gradients in full precision, also where the caller is in inference mode or mixed precision."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        yield


@_own_mode()
def fit_classifier(
    images: Sliceable,
    class_labels: Tensor,
    *,
    shape: Sequence[int],
    num_classes: int,
    seed: int,
    training: ClassifierTraining | None = None,
) -> Classifier:
    """A `Classifier` of ``images`` by the mean cross-entropy with ``class_labels``, in evaluation mode on the CPU.

    The same arguments and number of threads give the same weights, bit for bit. The global random state and the
    caller's gradient mode have no effect and stay unchanged.

    Shapes: images uint8, or float in [-1, 1], (N, *shape) with N >= 2; class labels (N,) integers in [0, num_classes).

    Raises:
        UserError: for class labels out of range, or a shape that the net cannot take.

    Source of the cycle: Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2017, arXiv 1708.07120.
    """
    training = training or ClassifierTraining()
    check_class_labels(len(images), class_labels, num_classes)
    net = new_classifier(shape, num_classes, training.width, fold_seed(seed, "weights"))
    batch_size, steps = _length(len(images), training)
    generator = torch.Generator().manual_seed(fold_seed(seed, "shifts"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=steps)
    for index in shuffled_batches(len(images), batch_size, seed, steps):
        batch = take(Batch(images, class_labels), index)
        _, logits = net(shifted(bytes_to_floats(batch.data), training.shift, generator))
        optimizer.zero_grad()
        cross_entropy(logits, batch.class_label).backward()
        optimizer.step()
        cycle.step()
    return net.eval().requires_grad_(False)


@_own_mode()
def new_classifier(shape: Sequence[int], num_classes: int, width: int, seed: int) -> Classifier:
    """An untrained `Classifier`; its weights follow from ``seed``, and the global random state stays unchanged."""
    with torch.random.fork_rng(devices=[]):
        seed_generators(torch.device("cpu"), seed)
        return Classifier(shape, num_classes, width)


@_own_mode()
@torch.no_grad()
def accuracy(net: Classifier, part: Batch, batch_size: int = 500) -> float:
    """The share of images of ``part`` whose largest logit is at their class label, in [0, 1]."""
    right = 0
    for index in torch.arange(len(part.data)).split(batch_size):
        batch = take(part, index)
        right += int((net(bytes_to_floats(batch.data))[1].argmax(1) == batch.class_label).sum())
    return right / len(part.data)


def shifted(x: Tensor, shift: int, generator: Generator) -> Tensor:
    """Each image of x (B, C, H, W), shifted by whole pixels that are uniform in -shift..shift along both axes.

    The edge is repeated into the empty pixels. ``shift = 0`` returns x and draws nothing.
    """
    if shift == 0:
        return x
    batch, channels, height, width = x.shape
    down, right = torch.randint(2 * shift + 1, (2, batch, 1), generator=generator)
    rows = (down + torch.arange(height))[:, None, :, None]
    columns = (right + torch.arange(width))[:, None, None, :]
    item, channel = torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None]
    return pad(x, (shift,) * 4, mode="replicate")[item, channel, rows, columns]


def check_class_labels(n: int, class_labels: Tensor, num_classes: int) -> None:
    """Raises a `UserError` unless ``class_labels`` are n integers in [0, num_classes)."""
    whole = not class_labels.is_floating_point() and class_labels.shape == (n,)
    if not whole or n < 2 or not bool(((class_labels >= 0) & (class_labels < num_classes)).all()):
        raise UserError(
            f"a classifier of {num_classes} classes needs at least 2 images with one whole class label from 0 to "
            f"{num_classes - 1} for each, got {n} images and class labels of shape {tuple(class_labels.shape)}"
        )


def _length(n: int, training: ClassifierTraining) -> tuple[int, int]:
    """The batch size and the number of steps for n images."""
    batch_size = min(training.batch_size, n)
    return batch_size, max(_FEWEST_STEPS, min(training.steps, training.max_epochs * (n // batch_size)))
