import io

import numpy as np
import pytest
import torch
from PIL import Image

import diffae_core as core


def test_tile_puts_each_digit_in_its_place():
    images = torch.zeros(3, 1, 4, 4)
    images[2] = 1
    sheet = core.tile(images, columns=2, gap=1)
    assert sheet.shape == (11, 11) and sheet.dtype == np.uint8
    assert (sheet[1:5, 1:5] == 255).all() and (sheet[1:5, 6:10] == 255).all()
    assert (sheet[6:10, 1:5] == 0).all()
    assert (sheet[0] == 220).all() and (sheet[6:10, 6:10] == 220).all()


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4), (2, 3, 4, 4)])
def test_tile_refuses(shape):
    with pytest.raises(ValueError, match="one or more pictures"):
        core.tile(torch.zeros(shape))


def test_tile_clips_what_is_out_of_range():
    assert core.tile(torch.full((1, 1, 2, 2), 3.0), gap=0).max() == 0
    assert core.tile(torch.full((1, 1, 2, 2), -3.0), gap=0).min() == 255


def test_a_png_keeps_every_pixel():
    sheet = core.tile(torch.rand(4, 1, 28, 28))
    picture = Image.open(io.BytesIO(core.png_bytes(Image.fromarray(sheet))))
    assert picture.format == "PNG" and (np.asarray(picture) == sheet).all()


def test_files(tmp_path):
    images = torch.rand(4, 1, 28, 28)
    core.save_png(images, tmp_path / "samples" / "a.png", columns=2)
    core.save_figure(core.rows_figure({"first": images, "second": images}, "title"), tmp_path / "b.png")
    assert Image.open(tmp_path / "samples/a.png").size == (3 * 62, 3 * 62)
    for name in ("samples/a.png", "b.png"):
        assert Image.open(tmp_path / name).size[0] > 100
    assert len(list(tmp_path.rglob("*.*"))) == 2


def test_labelled_png_places_digits_beside_their_labels():
    rows = {"one": torch.zeros(2, 1, 4, 4), "a longer label": torch.ones(2, 1, 4, 4)}
    picture = np.asarray(Image.open(io.BytesIO(core.labelled_png(rows, ("left", "right"), zoom=2, gap=1))))
    left = picture.shape[1] - 2 * 11  # two digits of 4 pixels and three gaps, twice as large
    assert left > 50 and picture.shape[0] == 22 + 2 * 12
    assert (picture[24:32, left + 2 : left + 10] == 255).all()  # no ink
    assert (picture[36:44, left + 2 : left + 10] == 0).all()  # all ink
    assert (picture[22:, : left - 8] < 128).any() and (picture[:22, left:] < 128).any()  # label and heading
