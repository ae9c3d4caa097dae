"""Inpaints from a checkpoint: ``python scripts/inpaint.py ckpt=outputs/.../last.ckpt mask=left``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("inpaint")
