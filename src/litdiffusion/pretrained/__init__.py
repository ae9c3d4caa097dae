"""A finished model: load it, sample, inpaint, export."""
