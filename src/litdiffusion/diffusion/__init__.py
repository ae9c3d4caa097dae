"""The mathematics of diffusion: built on torch, without Lightning or Hydra, so that it works in a notebook."""
