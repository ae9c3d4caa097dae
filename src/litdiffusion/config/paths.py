"""Where the yamls of the package lie."""

from pathlib import Path

CONF = Path(__file__).parents[1] / "conf"
