import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import diffae_core as core
from diffae_core.data import pictures as images
from diffae_core.data.photos import with_look

GREY = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
AS_FLOAT = torch.from_numpy(GREY).float()[None, None] / 255


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


SAME = [GREY, GREY[None], GREY[None, None], GREY[None, ..., None], torch.from_numpy(GREY), AS_FLOAT, AS_FLOAT.double()]
SAME += [GREY.astype(int), GREY.astype("u2"), (GREY / 255).astype(">f4"), np.frombuffer(GREY, np.uint8).reshape(28, 28)]
SAME += [
    AS_FLOAT.to_sparse(),
    GREY[::-1, ::-1][::-1, ::-1],
    [GREY],
    (AS_FLOAT[0],),
    [Image.fromarray(GREY).convert("P")],
]


@pytest.mark.parametrize("picture", SAME)
def test_as_images_takes_what_people_have(picture):
    torch.testing.assert_close(core.as_images(picture), AS_FLOAT, rtol=0, atol=1e-7)
    several = core.as_images([Image.fromarray(GREY).convert("RGB")] * 3)
    assert several.shape == (3, 1, 28, 28) and core.as_images(GREY > 127).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.zeros((1, 3, 28, 28), np.uint8), ValueError, "make colour grey"),
        (np.zeros((28, 28, 3), np.uint8), ValueError, "colour"),
        (torch.zeros(3, 28, 28), ValueError, "one picture in colour: .*pictures\\[:, None\\]"),
        (np.full((28, 28), 256), ValueError, "256: divide"),
        (np.full((28, 28), -1), ValueError, "from -1"),
        (np.ones((28, 28), int), ValueError, "give a mask as bool"),
        (GREY % 2, ValueError, "black: give a mask as bool"),
        (GREY % 17, ValueError, "from 0 to 16, which would be nearly black: divide them by 16"),
        (GREY % 17 / 1, ValueError, "from 0 to 16: divide them by 16"),
        (GREY / 127.5 - 1, ValueError, "from -1 to 1: take"),
        (np.full((28, 28), np.nan, np.float32), ValueError, "NaN"),
        (np.zeros(784, np.uint8), ValueError, "got \\(784,\\)"),
        (np.array(0.5), ValueError, "got \\(\\)"),
        (Image.new("RGBA", (0, 5)), ValueError, "got \\(5, 0\\)"),
        ([GREY, GREY[:9]], TypeError, "list that is no array"),
        *(
            (wrong, TypeError, "file use read_digit\\), got")
            for wrong in ("digit.png", None, b"", GREY + 1j, iter(GREY))
        ),
    ],
)
def test_as_images_refuses(wrong, error, message):
    with pytest.raises(error, match=message):
        core.as_images(wrong)


def in_mode(mode: str) -> Image.Image:
    """``GREY`` in this mode of Pillow's."""
    grey = Image.fromarray(GREY)
    if mode.startswith("I;16"):
        return Image.frombytes(mode, (28, 28), (GREY.astype(">u2" if mode.endswith("B") else "<u2") * 257).tobytes())
    steps = {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("LA", "PA"), "HSV": ("RGB", "HSV")}
    for step in steps.get(mode, (mode,)):
        grey = grey.convert(step)
    return grey


COLOUR_MODES = ["P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "HSV"]


@pytest.mark.parametrize("mode", ["L", "I", "F", "I;16", "I;16L", "I;16B", *COLOUR_MODES])
def test_every_mode_of_pillow_gives_the_same_grey(mode):
    picture = in_mode(mode)
    assert picture.mode == mode
    torch.testing.assert_close(core.as_images(picture), AS_FLOAT, rtol=0, atol=1e-6)


def test_bilevel_lab_and_floating_point_pictures():
    bilevel = Image.fromarray(GREY > 127)
    assert bilevel.mode == "1" and torch.equal(core.as_images(bilevel), (AS_FLOAT > 0.5).float())
    assert torch.equal(core.as_images(Image.fromarray(AS_FLOAT[0, 0].numpy())), AS_FLOAT)  # mode F, in [0, 1]
    lightness = Image.fromarray(GREY)
    assert torch.equal(core.as_images(Image.merge("LAB", [lightness] * 3)), AS_FLOAT)
    dark = Image.fromarray(np.full((28, 28), 200, np.uint16))
    assert dark.mode == "I;16" and torch.equal(core.as_images(dark), torch.full((1, 1, 28, 28), 200 / 65535))
    with pytest.raises(ValueError, match="from -1 to -1 in mode F: scale"):
        core.as_images(Image.new("F", (28, 28), -1))


def test_colour_becomes_luminance():
    for colour, wanted in {"red": 0.299, "lime": 0.587, "blue": 0.114}.items():
        assert abs(float(core.as_images(Image.new("RGB", (28, 28), colour)).mean()) - wanted) < 1 / 255


@pytest.mark.parametrize(("ink", "behind"), [(0, 1.0), (255, 0.0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_ink_on_transparency_keeps_its_contrast(mode, ink, behind):
    picture = Image.new("LA", (28, 28), (ink, 0))
    picture.paste((ink, 255), (10, 10, 20, 20))
    if mode == "P":
        picture = Image.new("P", (28, 28), 0)
        picture.putpalette([9, 9, 9, ink, ink, ink])
        picture.paste(1, (10, 10, 20, 20))
        picture.info["transparency"] = 0
    grey = core.as_images(picture if mode != "RGBA" else picture.convert("RGBA"))[0, 0]
    assert (grey[10:20, 10:20] == ink / 255).all() and (grey[:10] == behind).all()


def test_a_photograph_with_transparent_corners_keeps_its_paper():
    picture = Image.new("LA", (100, 100), (220, 255))
    picture.paste((20, 255), (45, 10, 55, 90))
    picture.paste((0, 0), (0, 0, 20, 20))
    grey = core.as_images(picture)[0, 0]
    assert (grey[:20, :20] == 220 / 255).all() and grey[50, 50] == 20 / 255


def photo(pixels: torch.Tensor, paper: float = 0.85, ink: float = 0.15, shadow: float = 0.0, seed: int = 0) -> bytes:
    """A JPEG of a digit written 150 pixels high somewhere on grainy paper, with a shadow over its left half."""
    dice = np.random.default_rng(seed)
    digit = Image.fromarray(pixels[0].numpy()).resize((210, 210), Image.Resampling.BICUBIC)
    stroke = np.asarray(digit.filter(ImageFilter.GaussianBlur(3)), np.float32) > 110
    mask = np.zeros((300, 400), np.float32)
    top, left = dice.integers(0, 90), dice.integers(0, 190)
    mask[top : top + 210, left : left + 210] = stroke
    light = 1 - shadow / (1 + np.exp((np.arange(400) - left - 105) / 8))
    levels = (paper + (ink - paper) * mask) * light + dice.normal(0, 0.015, mask.shape)
    return encoded(Image.fromarray((levels.clip(0, 1) * 255).astype(np.uint8)), "JPEG", quality=85)


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"paper": 0.45, "ink": 0.1},  # grey paper
        {"ink": 0.6},  # a pencil
        {"shadow": 0.45},
        {"paper": 0.55, "ink": 1.0},  # a white pen on coloured paper
        {"paper": 0.12, "ink": 0.9, "shadow": 0.45},  # chalk
    ],
    ids=str,
)
def test_photographed_digits_are_classified_correctly(conditions, held_out, classifier):
    digits = held_out.spaced(12)
    read = [core.read_digit(photo(pixels, seed=seed, **conditions)) for seed, pixels in enumerate(digits.pixels)]
    assert (classifier(torch.cat(read)).argmax(1).cpu() == digits.labels).float().mean() >= 0.9


def drawing(size, background, *inks, box=(200, 20, 220, 140), mode="RGB") -> Image.Image:
    picture = Image.new(mode, size, background)
    for ink, place in inks or [("black", box)]:
        picture.paste(ink, place)
    return picture


def test_ink_on_paper_looks_like_mnist():
    on_white = core.read_digit(encoded(drawing((300, 200), "white")))
    on_black = core.read_digit(encoded(drawing((300, 200), "black", ("white", (200, 20, 220, 140)))))
    assert on_white.shape == (1, 1, 28, 28) and on_white.dtype == torch.float32
    torch.testing.assert_close(on_white, on_black, rtol=0, atol=0.1)
    rows, columns = (on_white[0, 0] > 0.5).nonzero().T
    assert rows.max() - rows.min() == 19 and rows.min() in (4, 5) and abs(columns.float().mean() - 13.5) < 1


def test_thin_strokes_are_widened_and_thick_ones_kept():
    thin, thick = (
        core.read_digit(encoded(drawing((300, 200), "white", box=(150 - half, 20, 150 + half, 140))))[0, 0]
        for half in (2, 15)
    )
    assert 2 <= thin[10:18].sum(1).mean() <= 3.2  # MNIST's strokes are 2.6 wide
    assert 4.5 <= thick[10:18].sum(1).mean() <= 5.5


def test_a_digit_of_mnist_is_taken_as_it_is(sample):
    picture = Image.fromarray(sample.pixels[0, 0].numpy())
    assert torch.equal(core.read_digit(encoded(picture)), sample.images[:1])


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("is_dark", [False, True])
def test_a_digit_gets_the_look_of_a_set(held_out, size, is_dark):
    """A picture of the set itself, in any size, is only scaled; another gets its size, and its paper."""
    large = [Image.fromarray(pixels[0].numpy()).resize((96, 96)) for pixels in held_out.spaced(60).pixels]
    large = [ImageOps.invert(picture) for picture in large] if is_dark else large
    scaled = [np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) for picture in large]
    digits = core.Digits.from_arrays(np.stack(scaled))
    assert digits.paper == is_dark
    for picture, image in zip(large[:12], digits.images):
        for own in (Image.fromarray(scaled[0]), picture):
            read = core.read_digit(encoded(own), digits)
            torch.testing.assert_close(
                read, digits.images[:1] if own is not picture else image[None], rtol=0, atol=0.03
            )
    drawn = core.read_digit(drawing((300, 200), "white"), digits)
    wanted = with_look(core.read_digit(drawing((300, 200), "white")), digits)
    assert torch.equal(drawn, wanted) and drawn.shape == (1, 1, size, size) and drawn[0, 0, 0, 0] == is_dark
    with pytest.raises(ValueError, match="to take the look from, got none"):
        core.read_digit(large[0], digits.subset([]))
    with pytest.raises(TypeError, match="expected Digits, got Tensor"):
        core.read_digit(large[0], digits.images)


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_transparent_paper(ink):
    picture = drawing((100, 100), (ink, ink, ink, 0), ((ink, ink, ink, 255), (45, 10, 55, 90)), mode="RGBA")
    digit = core.read_digit(encoded(picture))[0, 0]
    assert digit[14, 13:15].min() == 1 and digit[:, :9].max() == 0


def test_specks_and_a_dark_corner_are_left_out():
    paper = drawing((300, 200), "white", box=(140, 60, 150, 130))
    clean = core.read_digit(encoded(paper))
    for dirt in ([(165, 90), (168, 90), (168, 93), (165, 93)], [(0, 200), (60, 200), (0, 140)]):
        dirty = paper.copy()
        ImageDraw.Draw(dirty).polygon(dirt, "black")
        torch.testing.assert_close(core.read_digit(encoded(dirty)), clean, rtol=0, atol=0.05)


def test_a_stroke_apart_is_kept():
    """The bar of a five that does not touch its body."""
    body, bar = ("black", (100, 60, 116, 160)), ("black", (124, 40, 180, 52))
    digit = core.read_digit(encoded(drawing((300, 200), "white", body, bar)))[0, 0]
    assert digit[:8, 16:].max() > 0.9


def test_two_digits_give_the_larger_and_a_warning(caplog):
    one, other = ("black", (60, 40, 80, 160)), ("black", (200, 60, 220, 150))
    with caplog.at_level(logging.WARNING, "diffae_core"):
        alone = core.read_digit(encoded(drawing((300, 200), "white", one)))
        assert not caplog.records
        both = core.read_digit(encoded(drawing((300, 200), "white", one, other)))
    assert "Found 2 digits" in caplog.text and "read the largest" in caplog.text
    torch.testing.assert_close(both, alone, rtol=0, atol=0.05)


def test_a_large_photo_is_shrunk_and_a_bomb_refused(monkeypatch):
    large = encoded(drawing((5000, 4000), 255, (0, (2400, 500, 2700, 3500)), mode="L"))
    assert core.read_digit(large)[0, 0, 14, 13:15].min() > 0.9
    monkeypatch.setattr(images, "MAX_PIXELS", 19_000_000)
    with pytest.raises(ValueError, match="got the bytes: 5000 x 4000 pixels, more than 19 megapixels"):
        core.read_digit(large)


@pytest.mark.parametrize(
    "picture", [drawing((50, 50), "white", box=(0, 0, 0, 0)), drawing((28, 28), "black"), drawing((1, 1), "white")]
)
def test_an_empty_picture_is_refused(picture):
    with pytest.raises(ValueError, match="empty picture: draw it with more contrast"):
        core.read_digit(encoded(picture))


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a, and then no more", b"<svg/>", encoded(drawing((300, 200), "white"))[:200]]
)
def test_no_picture_is_named(tmp_path, content):
    (tmp_path / "digit.png").write_bytes(content)
    for file, name in ((tmp_path / "digit.png", ".*digit.png"), (content, "the bytes"), (tmp_path, str(tmp_path))):
        with pytest.raises(ValueError, match=f"expected a picture .*got {name}: ") as error:
            core.read_digit(file)
        assert "BytesIO" not in str(error.value)


def test_what_a_picture_can_be_read_from(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paper = drawing((300, 200), "white")
    content, path = encoded(paper), tmp_path / "ein Blatt ○.png"
    path.write_bytes(content)
    wanted = core.read_digit(path)
    for file in (
        str(path),
        f"~/{path.name}",
        content,
        bytearray(content),
        memoryview(content),
        io.BytesIO(content),
        paper,
    ):
        assert torch.equal(core.read_digit(file), wanted)
    assert paper.size == (300, 200)
    for file, message in (("~/none.png", "check the path"), ("https://example.org/digit.png", "download it first")):
        with pytest.raises(FileNotFoundError, match=message):
            core.read_digit(file)
    for wrong in (None, 3, np.asarray(paper)):
        with pytest.raises(TypeError, match="expected a picture's path, bytes, open file or PIL image, got "):
            core.read_digit(wrong)


MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I;16 turned", "animation", *range(1, 9)]


@pytest.mark.parametrize("mode", MODES)
def test_a_large_picture_of_any_mode_is_shrunk_to_the_same_digit(mode):
    paper = drawing((2600, 2600), 255, (0, (1200, 300, 1400, 2300)), mode="L")
    if mode == "I;16":
        file = encoded(Image.fromarray(np.asarray(paper, np.uint16) * 257))
    elif mode == "I;16 turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        file = encoded(Image.fromarray(np.asarray(paper.rotate(90), np.uint16) * 257), exif=exif)
    elif mode == "animation":
        file = encoded(paper, "GIF", save_all=True, append_images=[paper.rotate(90)])
    elif isinstance(mode, int):  # a camera held in another way, in EXIF's numbers
        exif, turned = Image.Exif(), paper.rotate(90) if mode >= 5 else paper
        exif[0x0112] = mode
        file = encoded(turned, "JPEG", exif=exif)
    else:
        colours = paper.convert("RGB") if mode == "CMYK" else paper
        file = encoded(colours.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    torch.testing.assert_close(core.read_digit(file), core.read_digit(paper.resize((520, 520))), rtol=0, atol=0.1)
