"""Muon against torch's own on matrices, against the singular value decomposition, and on kernels."""

import pytest
import torch
from torch import nn

from litdiffusion.training.muon import Muon, orthogonalised


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def moved(make, weights, gradients):
    """The weights after one step for each list of gradients."""
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = make(parameters)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (7, 7), (1, 5)])
def test_the_direction_has_the_singular_vectors_of_the_matrix_and_values_near_one(shape):
    matrix = torch.randn(*shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = u.mT @ orthogonalised(matrix) @ vh.mT
    values = found.diagonal()
    assert torch.allclose(found, values.diag(), atol=1e-9)
    assert 0.65 < values.min() <= values.max() < 1.25
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new in torch 2.9")
@pytest.mark.parametrize("settings", [{"lr": 0.01}, {"lr": 0.003, "momentum": 0.8, "weight_decay": 0.2}])
def test_it_moves_matrices_as_torchs_own_does(settings):
    """torch's own multiplies in bfloat16, with 8 bits of mantissa."""
    weights = [torch.randn(40, 90), torch.randn(64, 16)]
    gradients = [[torch.randn_like(weight) for weight in weights] for _ in range(4)]
    ours = moved(lambda p: Muon(p, **settings), weights, gradients)
    given = {"weight_decay": 0.0, "momentum": 0.95, **settings}
    theirs = moved(lambda p: torch.optim.Muon(p, adjust_lr_fn="match_rms_adamw", **given), weights, gradients)
    for before, a, b in zip(weights, ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * (b - before).norm()


def test_its_step_has_the_size_of_adamws():
    """The entries of an AdamW step have a root mean square of about 0.2 to 0.4 learning rates (arXiv 2502.16982)."""
    for shape in ((64, 576), (128, 128), (512, 64)):
        (after,) = moved(lambda p: Muon(p, lr=1.0), [torch.zeros(shape)], [[torch.randn(shape)]])
        assert after.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.25)


def test_a_kernel_is_a_matrix_of_its_outputs_in_any_layout():
    kernel, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    (flat,) = moved(lambda p: Muon(p, lr=0.1), [kernel.flatten(1)], [[gradient.flatten(1)]])
    for layout in (torch.contiguous_format, torch.channels_last):
        given = [x.contiguous(memory_format=layout) for x in (kernel, gradient)]
        (found,) = moved(lambda p: Muon(p, lr=0.1), given[:1], [given[1:]])
        assert torch.allclose(found.flatten(1), flat, atol=1e-6)
        assert found.is_contiguous(memory_format=layout)


def test_weights_without_a_gradient_stay():
    weight = nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([weight], weight_decay=0.5)
    assert optimizer.step(lambda: torch.tensor(2.0)) == 2.0
    assert torch.equal(weight, torch.ones(3, 3))
