"""Colours of every picture: muted, readable on a projector, the same everywhere."""

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (38, 43, 51)
FAINT: Colour = (116, 122, 132)
RULE: Colour = (196, 201, 208)
ACCENT: Colour = (190, 98, 58)
TRUTH: Colour = (172, 178, 182)
"""What is exact, drawn broad under what is learned."""
WARNING: Colour = (214, 40, 120)
"""Marks pixels that are not finite numbers."""

NOISE_TO_DATA = ((206, 160, 122), (150, 148, 150), (92, 138, 166), (38, 108, 128))
"""The colour of a state along its way: sand at pure noise, deep teal at data."""
DENSITY = ((246, 247, 249), (205, 219, 231), (128, 168, 199), (58, 107, 152), (22, 42, 84))
"""Nothing, little, ..., most points."""
START_TO_END = ((16, 16, 20), (112, 18, 30), (226, 28, 36))
"""The colour of a chain's states in time."""
