"""Pictures: the right pixel in the right place, true densities, and the same bytes every time."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from litdiffusion import plots
from litdiffusion.plots.density import common_window, density_image, histogram, widening
from litdiffusion.plots.images import to_pixels
from litdiffusion.plots.palette import ACCENT, FAINT, PAPER, RULE, WARNING
from litdiffusion.plots.sheets import MARGIN, titled_columns

TIMES = [1.0, 0.75, 0.5, 0.25, 0.0]
TITLES = [f"t = {t:.2f}" for t in TIMES]


def counted(count: int) -> list[str]:
    return [f"k = {k}" for k in range(count)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noised(data: Tensor) -> list[Tensor]:
    noise = normal(*data.shape, seed=9)
    return [math.cos(t * math.pi / 2) * data + math.sin(t * math.pi / 2) * noise for t in TIMES]


def marked_states(rows: int, columns: int, channels: int, height: int, width: int) -> list[Tensor]:
    """Flat tiles, each of its own value: chain i of state j is (i · columns + j) / (rows · columns) in [0,
    1).
    """
    values = torch.arange(rows * columns).reshape(rows, columns) / (rows * columns)
    return [values[:, j, None, None, None].expand(rows, channels, height, width) for j in range(columns)]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 6, 10), (1, 300, 200)])
def test_sheet_shows_chains_as_rows_and_states_as_columns(channels: int, height: int, width: int) -> None:
    """The middle of each tile has its state's value, on a lattice that starts at the lower right corner."""
    rows, columns = 3, 13
    sheet = plots.trajectory_sheet(
        marked_states(rows, columns, channels, height, width), counted(columns), "", (0.0, 1.0)
    )
    pixels = np.asarray(sheet)
    pitch_x = (sheet.width - 2 * MARGIN + 2) / columns
    pitch_y = (pitch_x - 2) * height / width + 2
    for i in range(rows):
        for j in range(columns):
            x = MARGIN + (j + 0.5) * pitch_x - 1
            y = sheet.height - MARGIN + 2 - (rows - i - 0.5) * pitch_y - 1
            assert pixels[int(y), int(x)].tolist() == [round(255 * (i * columns + j) / (rows * columns))] * 3


def test_sheet_enlarges_by_repeating_pixels_and_keeps_the_image_upright() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[0, :, 0, 3] = torch.tensor([1.0, -1.0, 1.0])
    sheet = np.asarray(plots.trajectory_sheet([image] * 20, counted(20), ""))
    tile = (sheet.shape[1] - 2 * MARGIN + 2) // 20 - 2
    assert tile % 4 == 0
    last = sheet[-MARGIN - tile : -MARGIN, -MARGIN - tile : -MARGIN]
    corner = (last == (255, 0, 255)).all(axis=-1)
    assert corner[: tile // 4, -tile // 4 :].all()
    assert corner.sum() == (tile // 4) ** 2


@pytest.mark.parametrize("title", ["", "A title"])
def test_sheet_shows_every_pixel_of_its_tiles_unchanged(title: str) -> None:
    """Noise of 260 tiles: each is the rounded image, every value repeated over a square, with paper between."""
    states = [normal(10, 1, 28, 28, seed=i) for i in range(26)]
    sheet = np.asarray(plots.trajectory_sheet(states, counted(26), title))
    body, side = sheet[-MARGIN - 10 * 86 + 2 : -MARGIN, MARGIN:-MARGIN], 84
    assert body.shape == (10 * 86 - 2, 26 * 86 - 2, 3)
    for j, state in enumerate(states):
        for i, shade in enumerate((state[:, 0].clamp(-1, 1) + 1).mul(127.5).round().byte().numpy()):
            tile = body[86 * i : 86 * i + side, 86 * j : 86 * j + side]
            assert (tile == np.kron(shade, np.ones((3, 3), np.uint8))[..., None]).all()
    assert (body[side::86] == PAPER).all()
    assert (body[:, side + 1 :: 86] == PAPER).all()


@pytest.mark.parametrize(("side", "chains"), [(8, 10), (28, 10), (64, 10), (256, 2)])
def test_sheet_is_of_a_size_for_a_slide(side: int, chains: int) -> None:
    sheet = plots.trajectory_sheet([normal(chains, 1, side, side)] * 26, counted(26), "A title")
    assert 1600 <= sheet.width <= 2420
    assert sheet.height <= 1300


def test_pixels_clip_average_and_flag_what_is_not_finite() -> None:
    image = torch.tensor([[-5.0, 5.0], [0.0, torch.nan]])[None, None]
    shown = to_pixels(image, (-1.0, 1.0))[0]
    assert shown[:, 0, 0].tolist() == [0] * 3
    assert shown[:, 0, 1].tolist() == [255] * 3
    assert shown[:, 1, 1].tolist() == list(WARNING)
    halves = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])[None, None]
    assert to_pixels(halves, (-1.0, 1.0), (1, 1)).flatten().tolist() == [128] * 3
    with pytest.raises(ValueError, match="decode latents"):
        to_pixels(torch.zeros(2, 5, 8, 8), (-1.0, 1.0))


def test_image_grid_fills_rows_first_with_two_pixels_between() -> None:
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 7, 5)
    grid = np.asarray(plots.image_grid(images, columns=3))
    width = (grid.shape[1] - 4) // 3
    height = width * 7 // 5
    assert grid.shape == (2 * height + 2, 3 * width + 4, 3)
    assert grid.shape[1] >= 600
    firsts = [int(grid[r * (height + 2), c * (width + 2), 0]) for r in range(2) for c in range(3)]
    assert firsts == [0, 64, 128, 191, 255, 255]
    assert (grid[:, width : width + 2] == PAPER[0]).all()


def test_one_image_fills_its_grid_and_one_that_is_not_finite_is_pink() -> None:
    grid = np.asarray(plots.image_grid(torch.full((1, 1, 7, 5), torch.inf), columns=3))
    assert grid.shape == (840, 600, 3)
    assert (grid == WARNING).all()


@pytest.mark.parametrize("d", [1, 2])
def test_each_title_stands_over_its_panel(d: int) -> None:
    """Another title changes pixels in the strip over its own panel, and nowhere else but in the note of histograms."""
    data, titles = normal(400, d), ["σ = 3.1", "k = 1000", "noised data"]

    def pixels(*titles: str) -> np.ndarray:
        return np.asarray(plots.trajectory_picture([data, 2 * data], titles[:2], data, data_title=titles[2]))

    sheet = pixels(*titles)
    pitch = (sheet.shape[1] - 2 * MARGIN + 14) // 3
    for k in range(3):
        changed = (sheet != pixels(*titles[:k], "other", *titles[k + 1 :])).any(axis=-1)
        rows, columns = np.nonzero(changed[: sheet.shape[0] // 2])
        assert MARGIN <= rows.min() < rows.max() < MARGIN + 31
        assert MARGIN + k * pitch <= columns.min() < columns.max() < MARGIN + (k + 1) * pitch - 14
        assert changed[sheet.shape[0] // 2 :].any() == (k == 2 and d == 1)


@pytest.mark.parametrize("d", [1, 2])
def test_the_name_of_the_data_reaches_the_gif_where_they_have_a_panel(d: int, tmp_path: Path) -> None:
    data = normal(400, d)
    for name in ("noised data", "data"):
        (tmp_path / f"{name}.gif").write_bytes(plots.trajectory_gif([data], TITLES[:1], data, data_title=name))
    named, plain = ((tmp_path / f"{name}.gif").read_bytes() for name in ("noised data", "data"))
    assert (named != plain) == (d == 2)  # histograms have the data's outline and no panel of theirs


@pytest.mark.parametrize("count", [1, 2, 5, 11, 26, 27, 60])
@pytest.mark.parametrize("pitch", [20.0, 45.0, 86.0])
def test_thinned_titles_keep_both_ends_and_never_overlap(count: int, pitch: float) -> None:
    kept = titled_columns(count, pitch, room=90.0)
    assert kept[-1] == count - 1
    assert kept[0] == 0 or (count - 1) * pitch < 90
    assert all((b - a) * pitch >= 90 for a, b in pairwise(kept))


def test_histogram_is_a_density() -> None:
    """It integrates to one, and its bins hold the normal law's mass, 0.2 at most: n = 50 000 errs by .002."""
    sample = normal(50_000, 1)
    window = common_window([], sample)._replace(half=torch.tensor([8.0]), centre=torch.zeros(1, dtype=torch.float64))
    density = histogram(sample, window, 32)
    assert float(density.sum()) * 16 / 32 == pytest.approx(1.0, abs=1e-12)
    middles = (torch.arange(32, dtype=torch.float64) + 0.5) / 2 - 8
    mass = torch.special.ndtr(middles + 0.25) - torch.special.ndtr(middles - 0.25)
    assert float((density / 2 - mass).abs().max()) < 0.01
    inner = histogram(sample, window._replace(half=torch.tensor([1.0])), 10)
    assert float(inner.sum()) / 5 == pytest.approx(0.683, abs=0.01)


@pytest.mark.parametrize(("x", "y"), [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_density_lies_where_the_points_are_seen(x: int, y: int) -> None:
    """Points at the upper right are dark in the upper right quadrant: rows downwards, columns to the right."""
    window = common_window([], torch.tensor([[-2.0, -2.0], [2.0, 2.0]]))
    density = density_image(0.1 * normal(500, 2) + torch.tensor([x, y]), window, bins=40)
    top, right = slice(0, 20) if y > 0 else slice(20, 40), slice(20, 40) if x > 0 else slice(0, 20)
    assert float(density.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(density[top, right].sum()) == pytest.approx(1.0, abs=1e-6)


def test_density_panel_is_dark_in_the_right_quadrant_of_its_tile() -> None:
    data = torch.tensor([[-2.0, -2.0], [2.0, 2.0]]).repeat(50, 1)
    sheet = plots.trajectory_picture([0.05 * normal(300, 2) + torch.tensor([1.0, 1.0])], ["t = 0"], data)
    pixels = np.asarray(sheet).astype(int)
    above = MARGIN + 31
    tile = pixels[above + 4 : above + 376, MARGIN + 4 : MARGIN + 376].sum(axis=-1)
    assert tile[:180, 192:].min() < 250 < 600 < min(tile[192:].min(), tile[:, :180].min())
    assert (pixels[above:, MARGIN + 394 :] == ACCENT).all(axis=-1).sum() > 4 * 370 * 4 * 0.9


def test_histogram_stands_on_its_panel_where_the_points_are() -> None:
    """Points spread over [1, 2] fill a box in the right of the panel, as high as the data's two boxes are together."""
    spread = torch.linspace(0, 1, 20_001)[:, None]
    data = torch.cat((spread - 2, spread + 1))
    pixels = np.asarray(plots.trajectory_picture([1 + spread], ["t = 0"], data)).astype(int)
    above, width, height = MARGIN + 31, 380, 253
    tile = pixels[above + 1 : above + height - 1, MARGIN + 1 : MARGIN + width - 1]
    light = (np.abs(tile - PAPER) <= 2).all(axis=-1)
    columns = np.arange(1, width - 1)
    x = (columns / width * 2 - 1) * 1.06 * 2
    inside = (x > 1.15) & (x < 1.85)
    assert light[:-2, np.abs(x) < 0.8].all()
    assert not light[height // 2 :, inside].any()
    assert (~light[:, inside]).sum(axis=0).mean() == pytest.approx(height / 1.1, abs=4)
    assert (np.abs(tile[:, x < -1.15] - FAINT) <= 2).all(axis=-1).any()
    assert (pixels[above, MARGIN + 1 : MARGIN + width - 1] == RULE).all()
    assert (pixels[above + 1 : above + height - 1, MARGIN] == RULE).all()


def test_wide_states_get_wider_axes_and_say_so() -> None:
    data = normal(1000, 2)
    states = [80 * normal(1000, 2, seed=1), data]
    window = common_window(states, data)
    factors = [widening(state, window) for state in states]
    assert factors[1] == 1
    assert 32 <= factors[0] <= 128
    assert float(window.half[0]) < 6
    assert float(common_window([2 * data], data).half[0]) > float(common_window([data], data).half[0])


def test_axes_of_unequal_units_have_their_own_scales_and_say_so() -> None:
    """Metres beside prices: on one scale the points would be a line; up to 4 times as wide they share it."""
    points = normal(2000, 2) * torch.tensor([1.0, 500.0]) + torch.tensor([0.0, 9000.0])
    window = common_window([3 * points - 2 * points.mean(dim=0)], points)
    assert not window.equal
    shares = density_image(points, window, bins=40) > 1e-4
    assert shares.any(dim=0).sum() == pytest.approx(int(shares.any(dim=1).sum()), abs=4)  # as wide as it is high
    assert common_window([], normal(2000, 2) * torch.tensor([1.0, 3.0])).equal
    assert common_window([], points * torch.tensor([0.0, 1.0])).equal  # a constant coordinate has no scale of its own
    across, up = plots.field_grid(points, 6).std(dim=0)
    assert float(up / across) == pytest.approx(float(window.half[1] / window.half[0]), rel=1e-6)


def test_points_that_are_not_finite_count_as_outside() -> None:
    sample = normal(1000, 2)
    broken = sample.clone()
    broken[:250] = torch.nan
    window = common_window([broken], sample)
    assert float(density_image(broken, window).sum()) == pytest.approx(0.75, abs=0.01)
    assert float(histogram(broken, window, 20).sum()) * 2 * float(window.half[0]) / 20 == pytest.approx(0.75, abs=0.01)
    with pytest.raises(ValueError, match="finite"):
        common_window([sample], sample * torch.nan)


DATA = {
    "1-D": normal(400, 1),
    "2-D": normal(400, 2),
    "5-D": normal(400, 5),
    "image": normal(6, 1, 8, 6).tanh(),
}


@pytest.mark.parametrize("kind", DATA)
def test_every_picture_repeats_byte_for_byte(kind: str, tmp_path: Path) -> None:
    data = DATA[kind]
    before = [data.clone(), torch.random.get_rng_state()]

    def render() -> list[bytes]:
        states = noised(data)
        (tmp_path / "a.gif").write_bytes(plots.trajectory_gif(states, TITLES, data))
        pictures = [
            plots.trajectory_picture(states, TITLES, data, "Title"),
            plots.forward_picture(states[::-1], TITLES[::-1], "Title"),
        ]
        if data.ndim == 2:
            pictures.append(plots.comparison_picture({"data": data, "samples: W = 0.1": states[2]}, "Title"))
        assert all(picture.mode == "RGB" for picture in pictures)
        return [(tmp_path / "a.gif").read_bytes(), *(picture.tobytes() for picture in pictures)]

    assert render() == render()
    assert torch.equal(before[0], data)
    assert torch.equal(before[1], torch.random.get_rng_state())


def test_nothing_is_rendered_through_pyplots_global_state() -> None:
    for path in Path(plots.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text()


@pytest.mark.parametrize("kind", DATA)
def test_gif_has_a_frame_per_state_holds_the_last_and_loops(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(plots.trajectory_gif(noised(DATA[kind]), TITLES, DATA[kind]))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == len(TIMES)
        assert gif.info["loop"] == 0
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(len(TIMES) - 1)
        assert gif.info["duration"] == 1500
        last = np.asarray(gif.convert("RGB")).astype(int)
    assert (np.abs(first - last).max(axis=-1) > 40).mean() > 0.01


def test_gif_of_large_images_is_small_and_true_to_its_frames(tmp_path: Path) -> None:
    noise = [normal(10, 3, 64, 64, seed=i) for i in range(26)]
    (tmp_path / "a.gif").write_bytes(plots.trajectory_gif(noise, counted(26), noise[0]))
    assert (tmp_path / "a.gif").stat().st_size < 2_000_000
    flat = [torch.full((2, 1, 8, 8), value) for value in (-1.0, 0.0, 1.0)]
    (tmp_path / "b.gif").write_bytes(plots.trajectory_gif(flat, counted(3), flat[0]))
    with Image.open(tmp_path / "b.gif") as gif:
        for i, shade in enumerate((0, 128, 255)):
            gif.seek(i)
            shown = np.asarray(gif.convert("RGB")).astype(int)
            tile = (shown.shape[1] - 2 * MARGIN - 2) // 2
            assert np.abs(shown[-MARGIN - tile : -MARGIN, MARGIN : MARGIN + tile] - shade).max() <= 5


def test_forward_picture_puts_the_cleanest_first() -> None:
    clean, noisy = torch.full((8, 1, 8, 8), -1.0), torch.full((8, 1, 8, 8), 1.0)
    pixels = np.asarray(plots.forward_picture([clean, noisy], ["t = 0", "t = 1"]))
    row = pixels[pixels.shape[0] // 2, :, 0]
    assert row[MARGIN + 5] == 0
    assert row[-MARGIN - 5] == 255


def test_more_than_two_coordinates_show_the_first_two_and_say_so() -> None:
    data = DATA["5-D"]
    full = plots.trajectory_picture(noised(data), TITLES, data, "")
    plane = plots.trajectory_picture([s[:, :2] for s in noised(data)], TITLES, data[:, :2], "")
    note = "(first two of 5 coordinates)"
    named = plots.trajectory_picture([s[:, :2] for s in noised(data)], TITLES, data[:, :2], note)
    assert full.tobytes() == named.tobytes() != plane.tobytes()


def test_states_without_a_title_are_refused() -> None:
    with pytest.raises(ValueError, match="one title"):
        plots.trajectory_sheet([normal(2, 1, 8, 8)], counted(2))
    with pytest.raises(ValueError, match="one title"):
        plots.trajectory_picture([normal(9, 1)], counted(2), normal(9, 1))


def test_what_draws_is_imported_on_first_use() -> None:
    code = "import sys, litdiffusion.plots; print({'matplotlib', 'PIL', 'torchvision', 'scipy'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
