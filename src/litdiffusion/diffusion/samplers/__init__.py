"""Samplers: from pure noise down the noise levels to data."""

from litdiffusion.diffusion.samplers.adaptive import AdaptiveODE
from litdiffusion.diffusion.samplers.ancestral import Ancestral
from litdiffusion.diffusion.samplers.base import Sampler, State, blank
from litdiffusion.diffusion.samplers.ddim import DDIM
from litdiffusion.diffusion.samplers.draws import Draws
from litdiffusion.diffusion.samplers.langevin import AnnealedLangevin, Langevin
from litdiffusion.diffusion.samplers.multistep import DPMSolver2M, SDEDPMSolver2M, UniPC
from litdiffusion.diffusion.samplers.ode import Euler, Heun
from litdiffusion.diffusion.samplers.repaint import RePaint
from litdiffusion.diffusion.samplers.stochastic import EulerMaruyama, PredictorCorrector

__all__ = [
    "DDIM",
    "AdaptiveODE",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver2M",
    "Draws",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "RePaint",
    "SDEDPMSolver2M",
    "Sampler",
    "State",
    "UniPC",
    "blank",
]
