"""Makes docs/images/forward_processes.png: ``python docs/pictures.py``. The other pictures are copies from runs."""

from pathlib import Path

import torch
from PIL import Image

from litdiffusion.callbacks.pictures import level_titles
from litdiffusion.data import Spiral
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import CLEAN, seeded_noise
from litdiffusion.diffusion.schedules import VE, VP, LinearFlow, LinearSigma
from litdiffusion.plots import forward_picture

PROCESSES = {
    "VP: alpha² + sigma² = 1": VP(),
    "VE: alpha = 1, log sigma even in time": VE(),
    "EDM: alpha = 1, sigma even in time": LinearSigma(),
    "flow: alpha = 1 - t, sigma = t": LinearFlow(),
}
TIMES = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    x_0 = Spiral(batch_size=1, val_size=1, seed=0).draw(10_000, seed=0)
    rows = []
    for name, schedule in PROCESSES.items():
        levels = [CLEAN, *(schedule.at(t) for t in TIMES)]
        titles = [
            "t = 0",
            *(
                f"t = {t:g}, {head}" if schedule.explodes else f"t = {t:g}"
                for t, head in zip(TIMES, level_titles(schedule, levels[1:]), strict=True)
            ),
        ]
        noise = seeded_noise(0)
        rows.append(forward_picture([diffuse(x_0, noise(x_0), level).float() for level in levels], titles, name))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    small = sheet.resize((1500, sheet.height * 1500 // sheet.width), Image.Resampling.LANCZOS)
    path = Path(__file__).parent / "images" / "forward_processes.png"
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
