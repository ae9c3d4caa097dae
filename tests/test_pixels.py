"""Pictures in folders: values, transparency, links, class folders, and the lines that say what was changed."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from litdiffusion.data import DataModule, ImageFolder, facts_of
from litdiffusion.data.batch import Batch
from litdiffusion.data.folders import natural_key
from litdiffusion.data.health import constant_problem
from litdiffusion.errors import UserError
from litdiffusion.plots.images import chequered, to_pixels

SIDE = 8
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)


def folder(path: Path, **changes: object) -> ImageFolder:
    """A data module of the folder with pictures of 8 x 8."""
    settings = {"path": path, "image_size": SIDE, "channels": 1, "batch_size": 1, "val_size": 1, "seed": 0}
    return ImageFolder(**settings | changes)


def values(data: ImageFolder) -> torch.Tensor:
    """All pictures of a set in the order of its files."""
    data.load()
    parts = torch.cat([part.data.index_select(0, torch.arange(len(part.data))) for part in (data.train, data.val)])
    order = torch.tensor([data.paths.index(path) for path in _paths_in_order(data)])
    return parts[order.argsort()]


def _paths_in_order(data: ImageFolder) -> list[Path]:
    from litdiffusion.data.base import hold_out

    return [data.paths[i] for i in torch.cat(hold_out(len(data.paths), data.val_size)).tolist()]


def refusal(data: ImageFolder) -> str:
    with pytest.raises(UserError) as error:
        data.load()
    assert "\n" not in str(error.value)
    return str(error.value)


def save(array: np.ndarray, path: Path, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)


def deep_png(path: Path, array: np.ndarray) -> None:
    """A PNG of 16 bits with 1 to 4 channels (H, W, C), which Pillow cannot write."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    kind = (0, 4, 2, 6)[channels - 1]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*chunks, (b"IEND", b"")]
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# ---- the range of values ----

KNOWN = {
    "floats from 0 to 1": (RAMP.astype(np.float32), 1.0, 0.0),
    "floats from -1 to 1": ((2 * RAMP - 1).astype(np.float32), 1.0, -1.0),
    "floats from 0 to 255": ((255 * RAMP).astype(np.float32), 255.0, 0.0),
    "32-bit integers from 0 to 255": (np.rint(255 * RAMP).astype(np.int32), 255.0, 0.0),
    "dark 32-bit integers": (np.rint(49 * RAMP).astype(np.int32), 255.0, 0.0),
    "16-bit integers from 0 to 255": (np.rint(255 * RAMP).astype(np.uint16), 255.0, 0.0),
    "16 bits": (np.rint(65535 * RAMP).astype(np.uint16), 65535.0, 0.0),
    "32-bit integers of 16 bits": (np.rint(65535 * RAMP).astype(np.int32), 65535.0, 0.0),
    "bytes": (np.rint(255 * RAMP).astype(np.uint8), 255.0, 0.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_values_keep_their_place_in_their_range(name: str, tmp_path: Path, capsys):
    array, high, low = KNOWN[name]
    for i in range(3):
        save(array, tmp_path / f"{i}.tif")
    expected = np.rint((array.astype(np.float64) - low) * 255 / (high - low))
    found = values(folder(tmp_path))
    assert found.dtype == torch.uint8
    assert np.abs(found[0, 0].numpy() - expected).max() == 0
    line = f"values in [{low:g}, {high:g}] become bytes 0 to 255"
    assert (line in capsys.readouterr().out) == (name != "bytes")


UNKNOWN = {
    "12 bits in 16": (np.rint(4095 * RAMP).astype(np.uint16), "[0,4095]"),
    "10 bits in 32": (np.rint(1000 * RAMP).astype(np.int32), "[0,1023]"),
    "floats of 12 bits": ((4095 * RAMP).astype(np.float32), "[0,4095]"),
    "small floats": ((0.01 * RAMP).astype(np.float32), "[0,1]"),
    "floats around 0": ((6 * RAMP - 3).astype(np.float32), "[-3,3]"),
    "resampled floats": ((1.02 * RAMP - 0.01).astype(np.float32), "[-0.01,1.01]"),
    "floats that overshoot": ((1.02 * RAMP).astype(np.float32), "[0,1.02]"),
    "negative integers": (np.rint(400 * RAMP - 100).astype(np.int32), "[-100,300]"),
    "more than 16 bits": (np.rint(1e6 * RAMP).astype(np.int32), "[0,1e+06]"),
    "masks of bytes": (np.rint(RAMP).astype(np.uint8), "[0,1]"),
    "four bits in bytes": (np.rint(15 * RAMP).astype(np.uint8), "[0,15]"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_range_that_cannot_be_known_is_asked_for_and_then_used(name: str, tmp_path: Path):
    array, proposed = UNKNOWN[name]
    for i in range(2):
        save(array, tmp_path / f"{i}.tif")
    message = refusal(folder(tmp_path))
    assert f"set data.value_range={proposed}" in message
    low, high = map(float, proposed[1:-1].split(","))
    expected = np.rint((array.astype(np.float64) - low) * 255 / (high - low))
    for limit in (2.0, 0.0):  # decoded once, or on access
        found = values(folder(tmp_path, value_range=[low, high], memory_limit_gb=limit, num_workers=0))
        assert np.abs(found[0, 0].numpy() - expected).max() == 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_12_of_them_in_every_channel(channels: int, tmp_path: Path):
    array = np.stack([np.rint(4095 * np.roll(RAMP, k)) for k in range(channels)], axis=2)
    if channels in (2, 4):
        array[..., -1] = 65535
    for i in range(2):
        deep_png(tmp_path / f"{i}.png", array.astype(np.uint16))
    assert "set data.value_range=[0,4095]" in refusal(folder(tmp_path))
    kept = 3 if channels > 2 else 1
    found = values(folder(tmp_path, channels=kept, value_range=[0, 4095]))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - np.rint(array[..., :kept] * 255 / 4095)).max() == 0


def test_the_range_is_that_of_the_set_and_not_of_a_picture(tmp_path: Path):
    for i, peak in enumerate((1.0, 0.5, 0.01)):
        save((peak * RAMP).astype(np.float32), tmp_path / f"{i}.tif")
    found = values(folder(tmp_path))
    assert [int(image.max()) for image in found] == [255, 128, 3]


MIXED = {
    "floats of 1 and 255": (np.float32, (1, 255), "a.tif has values up to 1, b.tif up to 255"),
    "16-bit integers of 255 and 65535": (np.uint16, (255, 65535), "a.tif has values up to 255, b.tif up to 65535"),
}


@pytest.mark.parametrize(("kind", "peaks", "words"), MIXED.values(), ids=MIXED)
def test_pictures_of_unlike_ranges_are_not_scaled_alike(kind, peaks, words, tmp_path: Path):
    """Scaled by the wider range, half of the set would be black."""
    for name, peak in zip("abc", (*peaks, peaks[1]), strict=True):
        save((peak * RAMP).astype(kind), tmp_path / f"{name}.tif")
    assert words in refusal(folder(tmp_path))
    found = values(folder(tmp_path, value_range=[0, peaks[1]]))
    assert int(found[1].max()) == 255


def tiff(path: Path, array: np.ndarray, photometric: int = 1, sample_format: int = 1) -> None:
    """An uncompressed grey TIFF file (H, W) with these tags, which Pillow would not write."""
    height, width = array.shape
    pixels = array.tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8 * array.itemsize), (259, 3, 1, 1)]
    entries += [(262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height)]
    entries += [(279, 4, 1, len(pixels)), (339, 3, 1, sample_format)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + b"\0\0\0\0")


def test_signed_bytes_are_no_bytes(tmp_path: Path):
    array = np.rint(100 * RAMP - 50).astype(np.int8)
    for name in "ab":
        tiff(tmp_path / f"{name}.tif", array, sample_format=2)
    assert "values from -50 to 50, which leaves their range unknown" in refusal(folder(tmp_path))
    found = values(folder(tmp_path, value_range=[-50, 50]))
    assert np.abs(found[0, 0].numpy() - np.rint((array + 50.0) * 2.55)).max() == 0


@pytest.mark.parametrize(("kind", "peak"), [(np.uint8, 255), (np.uint16, 65535)])
def test_a_file_in_which_0_is_white_is_inverted_whatever_its_depth(kind, peak, tmp_path: Path):
    for name in "ab":
        tiff(tmp_path / f"{name}.tif", np.rint(peak * RAMP).astype(kind), photometric=0)
    found = values(folder(tmp_path))
    assert np.abs(found[0, 0].numpy() - np.rint(255 - 255 * RAMP)).max() <= 1


def test_floats_in_which_0_is_white_are_refused(tmp_path: Path):
    for name in "ab":
        tiff(tmp_path / f"{name}.tif", RAMP.astype(np.float32), photometric=0, sample_format=3)
    assert "0 is white in it" in refusal(folder(tmp_path))


def test_one_picture_of_another_kind_does_not_hide_masks(tmp_path: Path):
    for i in range(5):
        save(np.rint(RAMP).astype(np.uint8), tmp_path / f"{i}.png")
    save(np.full((SIDE, SIDE, 4), 200, np.uint8), tmp_path / "odd.png")
    for limit in (2.0, 0.0):
        message = refusal(folder(tmp_path, memory_limit_gb=limit, num_workers=0))
        assert "the values of 5 pictures lie from 0 to 1 of 255" in message
    for i in range(5):
        (tmp_path / f"{i}.png").rename(tmp_path / f"{i}.jpeg.png")
        save(np.full((SIDE, SIDE, 4), 40 * i, np.uint8), tmp_path / f"colour{i}.png")
    values(folder(tmp_path))  # five dark pictures among eleven are no doubt


def test_values_beyond_the_given_range_and_values_that_are_no_numbers_are_refused(tmp_path: Path):
    save((5000 * RAMP).astype(np.uint16), tmp_path / "a.tif")
    save((100 * RAMP).astype(np.uint16), tmp_path / "b.tif")
    message = refusal(folder(tmp_path, value_range=[0, 4095]))
    assert "a.tif has the value 5000, outside data.value_range=[0,4095]" in message
    broken = RAMP.astype(np.float32).copy()
    broken[1, 1] = np.nan
    save(broken, tmp_path / "c.tif")
    assert "c.tif has values that are NaN or infinite" in refusal(folder(tmp_path))
    for wrong in ([1], [5, 5], [0, float("inf")], ["a", "b"]):
        with pytest.raises(UserError, match=r"data\.value_range="):
            folder(tmp_path, value_range=wrong)


def test_bytes_are_not_darkened_by_the_range_of_deeper_files(tmp_path: Path):
    save(np.rint(4000 * RAMP).astype(np.uint16), tmp_path / "a.tif")
    save(np.rint(255 * RAMP).astype(np.uint8), tmp_path / "b.tif")
    assert "b.tif is an 8-bit picture, which cannot fill data.value_range=[0,4095]" in refusal(
        folder(tmp_path, value_range=[0, 4095])
    )
    save(np.rint(65535 * RAMP).astype(np.uint16), tmp_path / "a.tif")
    both = values(folder(tmp_path))  # each in its own range, which is known
    assert torch.equal(both[0], both[1])


def test_colour_of_16_bits_outside_png_is_read_by_its_high_bytes_or_refused(tmp_path: Path):
    def tiff(name: str, array: np.ndarray) -> None:
        """A little-endian TIFF of 16-bit colour, which Pillow cannot write."""
        height, width, _ = array.shape
        pixels = array.astype("<u2").tobytes()
        bits, start = 8, 14
        entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
        entries += [(273, 4, 1, start), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels)), (284, 3, 1, 1)]
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        head = b"II*\0" + struct.pack("<I", start + len(pixels)) + struct.pack("<3H", 16, 16, 16)
        (tmp_path / name).write_bytes(head + pixels + directory + b"\0\0\0\0")

    colours = np.stack([np.roll(RAMP, k) for k in range(3)], axis=2)
    for name in ("a.tif", "b.tif"):
        tiff(name, np.rint(65535 * colours))
    for given in (None, [0, 65535]):
        found = values(folder(tmp_path, channels=3, value_range=given))
        assert np.abs(found[0].permute(1, 2, 0).numpy() - 255 * colours).max() <= 1
    assert "save it as PNG of 16 bits" in refusal(folder(tmp_path, channels=3, value_range=[0, 4095]))
    for name in ("a.tif", "b.tif"):
        tiff(name, np.rint(4095 * colours))
    assert "only the high bytes of such files can be read; save them as PNG" in refusal(folder(tmp_path, channels=3))


def test_netpbm_files_declare_their_range(tmp_path: Path):
    array = np.rint(1000 * RAMP).astype(">u2")
    for name in "ab":
        (tmp_path / f"{name}.pgm").write_bytes(b"P5\n8 8\n4095\n" + array.tobytes())
    found = values(folder(tmp_path))
    assert np.abs(found[0, 0].numpy() - array.astype(float) * 255 / 4095).max() <= 0.51


# ---- data that do not vary ----


class Given(DataModule):
    def __init__(self, data: torch.Tensor):
        super().__init__(batch_size=1, val_size=2, seed=0)
        self.data, self.shape = data, tuple(data.shape[1:])

    def read(self) -> tuple[Batch, Batch]:
        return Batch(self.data), Batch(self.data[:2])


NEARLY = torch.zeros(50, 1, 8, 8)
NEARLY[0, 0, 0, :5] = 1
CONSTANT = {
    "images of one value": (torch.zeros(5, 1, 4, 4, dtype=torch.uint8), "every value is -1"),
    "nearly one value": (NEARLY, "99.84 % of the values are 0"),
    "masks in bytes": (torch.randint(0, 2, (9, 1, 4, 4), dtype=torch.uint8), "all values lie from -1 to -0.9922"),
    "a constant channel": (torch.stack((torch.rand(9, 4, 4), torch.ones(9, 4, 4)), 1), "channel 1 of 2 has the one"),
    "vectors of one value": (torch.full((9, 2), 3.0), "every value is 3"),
    "a constant coordinate": (torch.stack((torch.rand(9), torch.full((9,), 2.0)), 1), "coordinate 1 of 2 has the one"),
}


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("kind", ["module", "loader"])
def test_data_that_do_not_vary_are_warned_of(name: str, kind: str):
    data, message = CONSTANT[name]
    with pytest.warns(UserWarning, match=message):
        facts_of(Given(data) if kind == "module" else DataLoader(TensorDataset(data), batch_size=5))


def test_data_that_vary_are_not(recwarn: pytest.WarningsRecorder):
    Given(torch.rand(9, 3)).load()
    Given(torch.randint(0, 255, (9, 1, 4, 4), dtype=torch.uint8)).load()
    assert constant_problem(torch.eye(10)[torch.arange(400) % 10]) is None
    assert not recwarn.list


def test_a_black_folder_is_warned_of(tmp_path: Path):
    for i in range(3):
        save(np.zeros((SIDE, SIDE), np.float32), tmp_path / f"{i}.tif")
    with pytest.warns(UserWarning, match="every value is -1"):
        folder(tmp_path).load()


# ---- transparency ----

GREEN, BLACK, WHITE = (0, 255, 0), (0, 0, 0), (255, 255, 255)


def transparent_pictures(path: Path) -> None:
    """Pictures that look alike: red on the left, and on the right nothing, above another hidden colour in each."""
    for i, hidden in enumerate((GREEN, BLACK, WHITE)):
        array = np.zeros((SIDE, SIDE, 4), np.uint8)
        array[:, :4], array[:, 4:] = (255, 0, 0, 255), (*hidden, 0)
        save(array, path / f"rgba{i}.png")
        palette = Image.new("P", (SIDE, SIDE))
        palette.putpalette([255, 0, 0, *hidden])
        palette.paste(1, (4, 0, SIDE, SIDE))
        palette.save(path / f"palette{i}.png", transparency=1)
        key = np.zeros((SIDE, SIDE, 3), np.uint8)
        key[:, :4], key[:, 4:] = (255, 0, 0), (*hidden[:2], 7)
        Image.fromarray(key).save(path / f"key{i}.png", transparency=(*hidden[:2], 7))


@pytest.mark.parametrize(
    ("background", "colour"),
    [(None, WHITE), ("white", WHITE), ("#0000ff", (0, 0, 255)), ([10, 20, 30], (10, 20, 30))],
)
def test_transparent_pixels_show_the_background_and_not_what_is_hidden(background, colour, tmp_path: Path, capsys):
    transparent_pictures(tmp_path)
    found = values(folder(tmp_path, channels=3, background=background))
    assert (found[:, :, :, :4] == torch.tensor((255, 0, 0)).view(3, 1, 1)).all()
    assert (found[:, :, :, 4:] == torch.tensor(colour).view(3, 1, 1)).all()
    ground = "white" if colour == WHITE else "rgb({}, {}, {})".format(*colour)
    assert capsys.readouterr().out.count(f"9 pictures with transparency laid on {ground}") == 1


def test_grey_with_alpha_half_transparency_and_16_bits_too(tmp_path: Path):
    for i, hidden in enumerate((0, 99)):
        array = np.full((SIDE, SIDE, 2), (hidden, 0))
        array[:, :2], array[:, 2:4] = (100, 255), (100, 128)
        save(array.astype(np.uint8), tmp_path / "bytes" / f"{i}.png")
        (tmp_path / "deep").mkdir(exist_ok=True)
        deep_png(tmp_path / "deep" / f"{i}.png", array * 257)
    expected = [100, 100, 177, 177, 255, 255, 255, 255]  # 128 / 255 * 100 + 127 / 255 * 255 = 177.2
    assert values(folder(tmp_path / "bytes"))[:, 0, 0].tolist() == [expected] * 2
    assert values(folder(tmp_path / "deep", value_range=[0, 65535]))[:, 0, 0].tolist() == [expected] * 2


def test_opaque_pictures_are_not_spoken_of(tmp_path: Path, capsys):
    for i in range(2):
        save(np.rint(255 * RAMP).astype(np.uint8), tmp_path / f"{i}.png")
    folder(tmp_path).load()
    assert capsys.readouterr().out == "2 images without classes\n"


def test_four_channels_keep_alpha_and_are_drawn_over_a_chequered_ground(tmp_path: Path):
    transparent_pictures(tmp_path)
    for limit in (2.0, 0.0):
        found = values(folder(tmp_path, channels=4, memory_limit_gb=limit, num_workers=0))
        assert found.shape == (9, 4, SIDE, SIDE)
        assert (found[:, 3, :, :4] == 255).all()
        assert (found[:, 3, :, 4:] == 0).all()
    drawn = to_pixels(found.float() / 127.5 - 1, (-1.0, 1.0), (16, 16)).float()
    assert (drawn[:, :, :, :8] == torch.tensor((255.0, 0, 0)).view(3, 1, 1)).all()
    assert (drawn[:, :, :, 8:] == chequered(16, 16)[:, 8:]).all()
    assert chequered(16, 16).unique().tolist() == [204, 255]


# ---- links, classes, other files ----


def animals(path: Path, names: tuple[str, ...] = ("bird", "cat", "dog"), count: int = 6) -> None:
    for k, name in enumerate(names):
        for i in range(count):
            save(np.full((SIDE, SIDE), 20 * k + i + 16, np.uint8), path / name / f"{i}.png")


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Three classes of six pictures: a folder, a link to a folder, and a folder of links to files."""
    animals(tmp_path / "store")
    root = tmp_path / "set"
    (root / "cat").mkdir(parents=True)
    os.rename(tmp_path / "store" / "bird", root / "bird")
    (root / "dog").symlink_to(tmp_path / "store" / "dog")
    for i in range(6):
        (root / "cat" / f"{i}.png").symlink_to(tmp_path / "store" / "cat" / f"{i}.png")
    return root


def test_links_are_followed_counted_and_printed(linked: Path, capsys):
    data = folder(linked)
    data.load()
    assert capsys.readouterr().out.splitlines()[0] == "18 images in 3 classes: 0 = bird, 1 = cat, 2 = dog"
    assert torch.cat((data.train.class_label, data.val.class_label)).bincount().tolist() == [6, 6, 6]
    whole = linked.parent / "link"
    whole.symlink_to(linked)
    assert len(folder(whole).paths) == 18


def test_cycles_are_cut_and_broken_links_named(linked: Path, capsys):
    (linked / "cat" / "again").symlink_to(linked)
    (linked / "self").symlink_to(linked)
    data = folder(linked)
    data.load()
    out = capsys.readouterr().out
    assert len(data.paths) == 18
    assert data.class_names == ["bird", "cat", "dog"]
    assert "left out links that lead back to a folder around them: cat/again, self" in out
    (linked / "fish").symlink_to(linked / "nowhere")
    assert "fish leads nowhere" in refusal(folder(linked))


def test_numbers_sort_as_numbers(tmp_path: Path, capsys):
    animals(tmp_path, tuple(str(k) for k in range(12)), 1)
    data = folder(tmp_path)
    assert data.class_names == [str(k) for k in range(12)]
    data.load()
    assert "12 images in 12 classes: 0 = 0, 1 = 1, 2 = 2, 3 = 3" in capsys.readouterr().out
    words = ["class10", "class2", "b", "-1", "10", "2.5", "007", "a"]
    assert sorted(words, key=natural_key) == ["-1", "2.5", "007", "10", "a", "b", "class2", "class10"]


def test_a_stray_picture_is_named_with_the_remedy(tmp_path: Path, capsys):
    animals(tmp_path)
    save(np.full((SIDE, SIDE), 9, np.uint8), tmp_path / "stray.png")
    data = folder(tmp_path)
    data.load()
    assert data.num_classes == 0
    out = capsys.readouterr().out
    assert "no classes: 1 picture beside the class folders bird, cat, dog (stray.png)" in out
    assert "move or remove them" in out


def test_empty_folders_hidden_and_other_files_do_no_harm_but_are_told(tmp_path: Path, capsys):
    animals(tmp_path)
    (tmp_path / "fish").mkdir()
    for name in (
        ".DS_Store",
        "._a.png",
        "cat/._0.png",
        "Thumbs.db",
        "cat/.hidden/x.png",
        "__MACOSX/cat/0.png",
        "cat/@eaDir/0.png",
        "@eaDir/0.png",
        "lost+found/1.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    data = folder(tmp_path)
    data.load()
    assert (len(data.paths), data.class_names) == (18, ["bird", "cat", "dog"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["left out 1 file of another kind: cat/notes.txt", "no images in the folder fish: no class"]


def test_sizes_colours_and_frames_that_are_lost_are_told(tmp_path: Path, capsys):
    for i in range(2):
        save(np.random.default_rng(i).integers(0, 256, (10 + i, 20, 3), np.uint8), tmp_path / f"{i}.png")
    frames = [Image.fromarray(np.full((SIDE, SIDE), k * 100, np.uint8)) for k in range(2)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    folder(tmp_path).load()
    out = capsys.readouterr().out
    assert (
        "2 pictures resized to cover 8x8 (height x width) and cropped at the centre; the files have 8x8 to 11x20" in out
    )
    assert "2 pictures in colour become grey" in out or "3 pictures in colour become grey" in out
    assert "1 picture with several frames: only the first is read" in out


def test_bad_colours_are_refused(tmp_path: Path):
    for wrong in ("whitish", [1, 2], [1, 2, 300]):
        with pytest.raises(UserError, match=r"data\.background="):
            folder(tmp_path, background=wrong)
