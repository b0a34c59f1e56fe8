import io

import numpy as np
import pytest
import torch
from PIL import Image

import diffae_core as core


def opened(png):
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return np.asarray(picture)


def test_tile_puts_each_digit_in_its_place_and_clips_what_is_out_of_range():
    images = torch.zeros(3, 1, 4, 4)
    images[2] = 1
    sheet = core.plotting.tile(images, columns=2, gap=1)
    assert sheet.shape == (11, 11) and sheet.dtype == np.uint8
    assert (sheet[1:5, 1:5] == 255).all() and (sheet[1:5, 6:10] == 255).all()
    assert (sheet[6:10, 1:5] == 0).all()
    assert (sheet[0] == 220).all() and (sheet[6:10, 6:10] == 220).all()
    for ink, grey in ((3.0, 0), (-3.0, 255)):
        assert (core.plotting.tile(torch.full((1, 1, 2, 2), ink), gap=0) == grey).all()


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4), (2, 3, 4, 4)])
def test_what_is_no_row_of_images_is_refused(shape):
    images = torch.zeros(shape)
    for draw in (core.labelled_png, lambda rows: core.plotting.tile(rows["a"])):
        with pytest.raises(ValueError, match="one or more images"):
            draw({"a": images})
        with pytest.raises(ValueError, match="NaN or infinity"):
            draw({"a": torch.full((1, 1, 2, 2), float("nan"))})
    for rows in ([], {}, {1: images}, images):
        with pytest.raises(TypeError, match="expected one or more rows"):
            core.labelled_png(rows)


def test_a_saved_png_keeps_every_pixel(tmp_path):
    images = torch.rand(4, 1, 28, 28)
    core.plotting.save_png(images, tmp_path / "samples" / "a.png", columns=2, zoom=1)
    assert (opened((tmp_path / "samples/a.png").read_bytes()) == core.plotting.tile(images, 2)).all()
    core.plotting.save_png(images, tmp_path / "samples" / "a.png", columns=2)
    core.plotting.save_png(core.plotting.labelled_picture({"first": images, "second": images}), tmp_path / "b.png")
    assert Image.open(tmp_path / "samples/a.png").size == (3 * 62, 3 * 62)
    assert Image.open(tmp_path / "b.png").size[0] > 100 and len(list(tmp_path.rglob("*.*"))) == 2


def test_labelled_png_places_digits_beside_their_labels():
    rows = {"one": torch.zeros(2, 1, 4, 4), "a longer label": torch.ones(2, 1, 4, 4)}
    picture = opened(core.labelled_png(rows, ("left", "right"), zoom=2, gap=1))
    left = picture.shape[1] - 2 * 11  # two digits of 4 pixels and three gaps, twice as large
    assert left > 50 and picture.shape[0] == 22 + 2 * 12
    assert (picture[24:32, left + 2 : left + 10] == 255).all()  # no ink
    assert (picture[36:44, left + 2 : left + 10] == 0).all()  # all ink
    assert (picture[22:, : left - 8] < 128).any() and (picture[:22, left:] < 128).any()  # label and heading


def test_names_in_other_alphabets_are_drawn_and_a_missing_letter_is_named(caplog):
    rows = {name: torch.zeros(1, 1, 4, 4) for name in ("привет", "été", "ш", "ж")}
    picture = opened(core.labelled_png(rows, zoom=8))
    labels = [picture[top : top + 64, :-64] for top in (2 * 64, 3 * 64)]
    assert not caplog.text and (labels[0] != labels[1]).any(), "two letters, not twice the same box"
    for _ in range(2):
        core.labelled_png({"あ and 7": torch.zeros(1, 1, 4, 4)})
    assert [record.getMessage() for record in caplog.records] == [
        "the font for pictures has no あ: empty boxes stand for them; rename 'あ and 7'"
    ]
