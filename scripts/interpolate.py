"""Walks between samples: ``python scripts/interpolate.py ckpt=outputs/.../last.ckpt class_label=[3,8]``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("interpolate")
