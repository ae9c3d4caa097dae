"""The likelihood of held-out data under a checkpoint: a table, a csv file and a picture of the bound's terms."""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from litdiffusion.config.settings import require_int
from litdiffusion.data import Facts
from litdiffusion.data.conditions import CLASS
from litdiffusion.diffusion.denoisers import ClippedDenoiser
from litdiffusion.diffusion.levels import Noise, per_sample_noise
from litdiffusion.diffusion.likelihood import (
    BoundTerms,
    Exact,
    are_bytes,
    bits_per_dimension,
    divergence_for,
    flow_nats,
    variational_bound,
)
from litdiffusion.diffusion.seeding import fold_seed, item_seed
from litdiffusion.errors import UserError
from litdiffusion.plots.figures import hex_colour, rendered, style_axes
from litdiffusion.plots.palette import ACCENT, INK
from litdiffusion.pretrained import Pretrained
from litdiffusion.pretrained.outputs import device_for, folder_for
from litdiffusion.runs.files import write_picture, write_rows
from litdiffusion.training.quartiles import quartile_index

QUARTILES = ("(0, 1/4]", "(1/4, 1/2]", "(1/2, 3/4]", "(3/4, 1]")


class Term(NamedTuple):
    """A term of the negative log-likelihood, in nats per item (n,)."""

    name: str
    nats: Tensor

    def numbers(self, coordinates: int | None) -> tuple[float, float, float | None]:
        """Mean, its standard error, and bits per dimension for items with ``coordinates`` bytes (None: no bytes)."""
        mean = self.nats.mean()
        bits = None if coordinates is None else bits_per_dimension(mean, coordinates).item()
        return mean.item(), self.nats.std().item() / len(self.nats) ** 0.5, bits


class HeldOut(NamedTuple):
    """Held-out items in model space (n, ...), whether they are bytes, and a sentence about their units.

    ``class_label`` holds what a conditional model is told of each item: its likelihood is that of x given this.
    ``log_units`` is what a density in model space lacks of one in data space, in nats per item, see `Codec.log_units`.
    """

    x_0: Tensor
    bytes: bool
    units: str
    class_label: Tensor | None = None
    log_units: float = 0.0


def likelihood_to_files(cfg: DictConfig) -> Path:
    """Measures ``cfg.n`` validation items, prints the table, writes ``likelihood.csv`` and returns its folder.

    ``method=bound`` also writes ``steps.csv`` and ``likelihood.png``, the terms of the bound against t.
    """
    _check(cfg)
    pretrained = Pretrained(cfg.ckpt, cfg.weights, cfg.trust, ema=cfg.ema)
    data = pretrained.data(cfg.data_root, cfg.data_path)
    held = _held_out(data, pretrained, cfg.n)._replace(
        class_label=pretrained.class_labels_of(data, cfg.n, cfg.class_label, cfg.condition)
    )
    folder = folder_for(cfg, "likelihood", "likelihood.csv")
    rows, terms = METHODS[cfg.method](cfg, pretrained, held)
    if held.log_units:
        shift = Term("units of the data", torch.full_like(rows[-1].nats, held.log_units))
        rows += [shift, Term(f"{rows[-1].name}, in them", rows[-1].nats + held.log_units)]
    rows += _exact_terms(data, rows[-1], cfg.n) if held.class_label is None else []
    _write_table(rows, held, cfg, pretrained, folder)
    if terms is not None:
        _write_steps(terms, folder)
    print(f"likelihood: {folder}")
    return folder


def _check(cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, "ckpt"):
        raise UserError("give a checkpoint: litdiffusion likelihood ckpt=outputs/.../checkpoints/last.ckpt")
    if cfg.method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got {cfg.method!r}")
    optional = {name: 1 for name in ("steps", "probes") if cfg[name] is not None}
    for name, least in {"n": 2, "batch_size": 1, "seed": 0, **optional}.items():
        require_int(cfg, name, least)


def _held_out(data: Facts, pretrained: Pretrained, n: int) -> HeldOut:
    with torch.no_grad():
        x_0 = pretrained.codec.encode(data.reference(n))
    if not pretrained.codec.in_data_space:
        return HeldOut(x_0, False, "a density of the codec's latents, not of the data")
    if log_units := pretrained.codec.log_units(x_0):
        return HeldOut(x_0, False, "a density of the data in their own units", log_units=log_units)
    if data.value_range is not None and are_bytes(x_0):
        return HeldOut(x_0, True, "bits per dimension: per byte of the data; 8 without a model")
    shift = getattr(data, "std", torch.ones(1)).log().sum().item()
    units = "a density of the data in their own units"
    if shift:  # a toy is a set of standardised points
        units = f"a density of the standardised data; add {shift:.4f} nats for the density in the data's own units"
    return HeldOut(x_0, False, units)


def _bound(cfg: DictConfig, pretrained: Pretrained, held: HeldOut) -> tuple[list[Term], BoundTerms]:
    denoiser: nn.Module = pretrained.denoiser
    variance = cfg.variance or ("learned" if denoiser.learned_variance else "forward")
    decoder = "8bit" if held.bytes else "gaussian"
    if cfg.clip and held.bytes:  # bytes are not standardised
        denoiser = ClippedDenoiser(denoiser, *pretrained.value_range)
    measure = partial(variational_bound, denoiser, variance=variance, decoder=decoder, steps=cfg.steps)

    def noise_of(start: int, count: int) -> Noise:
        return per_sample_noise([item_seed("bound_item", cfg.seed + start + i) for i in range(count)])

    parts = [
        measure(x_0, class_label=class_label, noise=noise_of(start, len(x_0)))
        for start, x_0, class_label in _batches(cfg, pretrained, held)
    ]
    *fields, times = zip(*parts, strict=True)
    terms = BoundTerms(*(torch.cat(field).double().cpu() for field in fields), times[0].cpu())
    quarter = quartile_index(terms.times)
    steps = [Term(f"steps, t in {name}", terms.steps[:, quarter == k].sum(1)) for k, name in enumerate(QUARTILES)]
    rows = [Term("prior", terms.prior), *steps, Term(f"decoder ({decoder})", terms.decoder)]
    return [*rows, Term(f"bound ({variance} variance)", terms.total)], terms


def _flow(cfg: DictConfig, pretrained: Pretrained, held: HeldOut) -> tuple[list[Term], None]:
    coordinates, nats = prod(pretrained.shape), []
    for start, x_0, class_label in _batches(cfg, pretrained, held):
        seed = fold_seed(cfg.seed, "likelihood", start)
        divergence = divergence_for(coordinates, cfg.probes, seed)
        found = flow_nats(pretrained.denoiser, x_0, held.bytes, divergence, seed, class_label, cfg.rtol, cfg.atol)
        nats.append(found.double().cpu())
    kind = "exact" if isinstance(divergence, Exact) else "estimated"
    return [Term(f"flow ({kind} divergence)", torch.cat(nats))], None


METHODS = {"bound": _bound, "flow": _flow}


def _batches(cfg: DictConfig, pretrained: Pretrained, held: HeldOut) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Yields (index of the first item, items, class labels) on the device, with a progress bar over items."""
    device = device_for(cfg.device)
    pretrained.denoiser.to(device).requires_grad_(False)
    with tqdm(total=len(held.x_0), unit="item", desc=cfg.method, mininterval=0.5) as bar:
        for start in range(0, len(held.x_0), cfg.batch_size):
            batch = held.x_0[start : start + cfg.batch_size].to(device)
            class_label = (
                None if held.class_label is None else held.class_label[start : start + cfg.batch_size].to(device)
            )
            yield start, batch, class_label
            bar.update(len(batch))


def _exact_terms(data: Facts, total: Term, n: int) -> list[Term]:
    """Nats of the same items under the data's exact density, if it is known, and the model's excess over them.

    For a perfect model the excess is not 0 but the gap of the method: of the bound, or of the flow's density at t_min.
    """
    mixture = data.mixture
    if mixture is None:
        return []
    truth = -mixture.log_density(data.reference(n)).double()
    return [Term("exact density of the data", truth), Term("excess of the model", total.nats - truth)]


def _write_table(rows: list[Term], held: HeldOut, cfg: DictConfig, pretrained: Pretrained, folder: Path) -> None:
    coordinates = prod(pretrained.shape) if held.bytes else None
    told = [*([CLASS] if pretrained.num_classes else []), *pretrained.condition_names]
    what = f"-log p(x | {', '.join(told)})" if told else "-log p"
    weights = cfg.weights if cfg.ema is None else f"ema {cfg.ema:g}"
    print(f"{what} of {len(held.x_0)} validation items, {prod(pretrained.shape)} numbers each, {weights} weights")
    print(f"{held.units}\n{'':32}{'nats':>12}{'std. error':>12}" + (f"{'bits/dim':>12}" if held.bytes else ""))
    cells = []
    for row in rows:
        mean, error, bits = row.numbers(coordinates)
        cells.append({"term": row.name, "nats": mean, "standard_error": error, "bits_per_dimension": bits})
        print(f"{row.name:32}{mean:12.4f}{error:12.4f}" + ("" if bits is None else f"{bits:12.4f}"))
    write_rows(folder / "likelihood.csv", list(cells[0]), cells)


def _write_steps(terms: BoundTerms, folder: Path) -> None:
    from matplotlib.figure import Figure

    nats = terms.steps.mean(0)
    steps = zip(terms.times.tolist(), nats.tolist(), strict=True)
    write_rows(folder / "steps.csv", ["t", "nats"], [{"t": t, "nats": value} for t, value in steps])
    figure = Figure((9, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.semilogy(terms.times, nats.clamp(min=1e-12), color=hex_colour(ACCENT), linewidth=1.6)
    axes.set(xlabel="t", ylabel="nats per step", xlim=(0, 1))
    title = f"Variational bound {terms.total.mean():.4g} nats: {len(nats)} steps {nats.sum():.4g}"
    title += f", decoder {terms.decoder.mean():.4g}, prior {terms.prior.mean():.2g}"
    axes.set_title(title, color=hex_colour(INK), loc="left")
    style_axes(axes)
    write_picture(folder / "likelihood.png", rendered(figure))
