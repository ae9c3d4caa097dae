"""The mathematics of diffusion; torch alone, for notebooks too."""
