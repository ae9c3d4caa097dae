"""Colours of all pictures: muted, and readable on a projector."""

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (38, 43, 51)
FAINT: Colour = (116, 122, 132)
RULE: Colour = (196, 201, 208)
ACCENT: Colour = (190, 98, 58)
TRUTH: Colour = (172, 178, 182)
"""Exact quantities, shown broad beneath learned ones."""
WARNING: Colour = (214, 40, 120)
"""Pixels that are not finite."""

NOISE_TO_DATA = ((206, 160, 122), (150, 148, 150), (92, 138, 166), (38, 108, 128))
"""A state in time: sand for pure noise, deep teal for data."""
DENSITY = ((246, 247, 249), (205, 219, 231), (128, 168, 199), (58, 107, 152), (22, 42, 84))
"""A density, from zero to its peak."""
START_TO_END = ((16, 16, 20), (112, 18, 30), (226, 28, 36))
"""The states of a chain, from start to end."""
