"""Measures the likelihood of held-out data: ``python scripts/likelihood.py ckpt=outputs/.../last.ckpt method=flow``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("likelihood")
