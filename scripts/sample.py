"""Draws samples from a checkpoint: ``python scripts/sample.py ckpt=outputs/.../last.ckpt sampler=ddim steps=50``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("sample")
