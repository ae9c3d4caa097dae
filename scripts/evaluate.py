"""Measures samples of checkpoints: ``python scripts/evaluate.py ckpt=outputs/.../last.ckpt steps=[10,50]``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("evaluate")
