"""Callbacks that make pictures, measure and save while a run trains."""

from litdiffusion.callbacks.autoencoding import FinalReconstruction, LatentWalk, Reconstructions
from litdiffusion.callbacks.condition_sweep import ConditionSweep
from litdiffusion.callbacks.field import Field
from litdiffusion.callbacks.final_samples import FinalSamples
from litdiffusion.callbacks.final_validation import FinalValidation
from litdiffusion.callbacks.forward_process import ForwardProcess
from litdiffusion.callbacks.interrupts import Interrupts, Requeued, Stopped
from litdiffusion.callbacks.langevin_path import LangevinPath
from litdiffusion.callbacks.last_checkpoint import LastCheckpoint
from litdiffusion.callbacks.live_likelihood import LiveLikelihood
from litdiffusion.callbacks.live_quality import LiveQuality
from litdiffusion.callbacks.other_processes import OtherProcesses
from litdiffusion.callbacks.posthoc_ema import PosthocEMA
from litdiffusion.callbacks.progress import StepProgress
from litdiffusion.callbacks.trajectory import Trajectory

__all__ = [
    "ConditionSweep",
    "Field",
    "FinalReconstruction",
    "FinalSamples",
    "FinalValidation",
    "ForwardProcess",
    "Interrupts",
    "LangevinPath",
    "LastCheckpoint",
    "LatentWalk",
    "LiveLikelihood",
    "LiveQuality",
    "OtherProcesses",
    "PosthocEMA",
    "Reconstructions",
    "Requeued",
    "StepProgress",
    "Stopped",
    "Trajectory",
]
