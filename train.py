"""Trains a diffusion model: ``python train.py model=unet data=mnist``; ``python train.py --help`` lists all options."""

from litdiffusion.commands.entry import script

if __name__ == "__main__":
    script("train")
