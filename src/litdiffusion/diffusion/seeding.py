"""Seeds as pure functions of (seed, name, position): every stream of random numbers has a name of its own.

Two streams with one seed share their numbers, even where one draws normals and the other signs. So a seed is never
passed to a generator as it is: `fold_seed` joins it with the name of the stream and with a position. `STREAMS` lists
the names. One generator may be used for several draws in a row.
"""

from functools import cache

import torch

STREAMS = {
    # a run; data order, times and noise are functions of the seed and of the position
    "init": "initial weights of the net",
    "train": "training points of a toy",
    "val": "validation points of a toy",
    "draw": "fresh points of a toy, for metrics",
    "epoch": "order of the items in an epoch of a run, as the seed of `order`",
    "order": "permutation of an epoch",
    "order of a stream": "permutation of what streams, by epoch",
    "step": "noise, dropout of classes and of the net in a training step",
    "times": "offset of the times of a training step",
    "augment": "flips and shifts of training images",
    "validation": "noise of a batch of validation, the same in every run",
    "predict": "samples of Trainer.predict",
    "facts": "random transforms while the facts about other data are inferred",
    "conditions": "which training items lend samples their conditions",
    # pictures
    "forward_process": "noise of the picture of the forward process",
    "trajectory": "samples of the trajectory",
    "trajectory_data": "noise on the data beside a trajectory",
    "field": "noise on the data below the learned field",
    "langevin_path": "the long Langevin chain",
    "langevin_data": "noise on the data below that chain",
    "condition_sweep": "samples while a condition is swept",
    "final_samples": "samples at the end of a run",
    # measurements
    "live_quality": "samples measured during a run, as the seed of `block`",
    "evaluation": "samples of scripts/evaluate.py, as the seed of `block`",
    "block": "a block of samples",
    "pilot": "pilot chains of the predictor-corrector",
    "fresh": "fresh data that samples are compared with",
    "blur": "noise on these data, where samples end at a noise level",
    "floor": "held-out images in the place of samples",
    "directions": "directions of the sliced Wasserstein distance",
    "kernel_density": "samples of the kernel density estimate",
    "mixture_fit": "starts of the Gaussian mixture's fit",
    "mixture_draws": "samples of the fitted mixture",
    "mixture_order": "order of these samples",
    "class_error": "histograms behind the spread of errors of classes and modes",
    "spectrum": "resampled sequences behind the spread of a spectrum's error",
    "subsets": "subsets of the kernel distance",
    "weights": "initial weights of the metrics' classifier",
    "shifts": "shifts of its training images",
    # likelihoods
    "live_likelihood": "likelihood during a run, as the seed of the next three",
    "bound": "noise of the variational bound",
    "probes": "Hutchinson's probes",
    "dequantisation": "uniform noise on bytes",
    "likelihood": "a batch of scripts/likelihood.py method=flow, as the seed of the last two",
    # finished models, one stream per item: see `item_seed`
    "samples": "sample i of scripts/sample.py",
    "bound_item": "noise of item i of scripts/likelihood.py method=bound",
    "inpainting": "noise of item i of scripts/inpaint.py",
    "mask": "random mask of an image",
    "conditional": "exact draws that inpainted points are compared with",
    # sweeps
    "search": "proposals of a search, anew for every command",
}
"""Every named stream and what is drawn from it.

Two streams have no name: which images are held out is fixed for all runs (`data.base.hold_out`), and the loaders'
workers draw nothing. Parts of other packages should call ``fold_seed(seed, "a name of their own", ...)``.
"""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    """SplitMix64's finaliser: a bijection of 64-bit integers; each input bit flips about half of the output bits."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def fold_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on all ``parts`` and on their order, e.g. ``fold_seed(seed, "probes", i)``.

    Integers count modulo 2**64. Names, as in `STREAMS`, count as their UTF-8 bytes.

    Torch's CPU generator (mt19937) uses only the low 32 bits of a seed. With ``seed + step`` or ``seed << 32``
    different streams would coincide; here the low bits are mixed as well as the high bits.

    Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014,
    doi 10.1145/2660193.2660195.
    """
    state = _mix(_GOLDEN)
    for part in parts:
        for word in _words(part) if isinstance(part, str) else (part,):
            state = _mix(((state ^ (word & _MASK)) + _GOLDEN) & _MASK)
    return state >> 1


def item_seed(name: str, item: int) -> int:
    """The seed of an item in the stream ``name``, for items that are numbered from the user's seed on.

    Consecutive items have consecutive seeds. Mixed ones would collide in their low 32 bits, so that of 100 000 samples
    two would be equal.
    """
    return _first_seed(name, item >> 32) + (item & 0xFFFFFFFF)


@cache
def _first_seed(name: str, block: int) -> int:
    return fold_seed(block, name)


def _words(name: str) -> list[int]:
    """The bytes of a name, eight at a time, as integers."""
    whole = name.encode()
    return [int.from_bytes(whole[start : start + 8], "big") for start in range(0, len(whole), 8)]


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds the default generators of the CPU and of ``device``, 60 times faster than torch.manual_seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
