"""Samplers: walks down the noise levels, from pure noise to data."""

from litdiffusion.samplers.adaptive import AdaptiveODE
from litdiffusion.samplers.ancestral import Ancestral
from litdiffusion.samplers.base import Sampler, State, blank
from litdiffusion.samplers.ddim import DDIM
from litdiffusion.samplers.langevin import AnnealedLangevin, Langevin
from litdiffusion.samplers.multistep import DPMSolver2M, SDEDPMSolver2M, UniPC
from litdiffusion.samplers.ode import Euler, Heun
from litdiffusion.samplers.repaint import RePaint
from litdiffusion.samplers.stochastic import EulerMaruyama, PredictorCorrector

__all__ = [
    "DDIM",
    "AdaptiveODE",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver2M",
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
