"""Exports a model: ``python scripts/export.py ckpt=outputs/.../last.ckpt out=my_model``."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("export")
