import hashlib
import io
import logging
import time

import numpy as np
import pytest
import torch
from PIL import Image

import diffae_core as core
from diffae_core import data


@pytest.fixture(autouse=True)
def forget_folder():
    data._mnist_folder.cache_clear()
    yield
    data._mnist_folder.cache_clear()


def test_sample_is_balanced_and_its_splits_do_not_meet():
    train, test = core.load_sample("train"), core.load_sample("test")
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    assert not torch.isin(train.mnist_index, test.mnist_index).any()
    assert train.pixels.shape == (4000, 1, 28, 28) and train.pixels.dtype == torch.uint8


def test_digits_are_a_torch_dataset():
    image, label = core.load_sample("test")[3]
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32 and image.max() <= 1
    assert isinstance(label, int)


def test_sample_is_mnist(whole_mnist):
    for split in ("train", "test"):
        sample = core.load_sample(split)
        assert torch.equal(whole_mnist.pixels[sample.mnist_index], sample.pixels)
        assert torch.equal(whole_mnist.labels[sample.mnist_index], sample.labels)


def test_training_on_the_whole_set_leaves_the_samples_test_digits_out(whole_mnist):
    training, validation = core.split_training(whole_mnist)
    assert (len(whole_mnist), len(training), len(validation)) == (60_000, 54_000, 5_000)
    together = torch.cat([training.mnist_index, validation.mnist_index, core.load_sample("test").mnist_index])
    assert len(together.unique()) == 60_000


def test_split_of_the_sample_is_repeatable(sample):
    training, validation = core.split_training(sample)
    assert len(training) + len(validation) == len(sample)
    assert torch.equal(core.split_training(sample)[1].mnist_index, validation.mnist_index)


def no_network(*_, **__):
    raise OSError("Name or service not known")


def test_no_network_gives_the_sample_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.MNIST", no_network)
    with caplog.at_level(logging.WARNING):
        assert core.load_mnist("test").source == "sample"
        assert len(core.load_mnist("train")) == 4000
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert "embedded sample" in caplog.text


@pytest.fixture
def slow_mnist(monkeypatch):
    """torchvision's download, hanging as it does behind a silent firewall; and our own way of downloading."""
    monkeypatch.setattr(data, "STALL_SECONDS", 0.3)
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda *_, **__: time.sleep(5))


def test_a_hanging_download_is_given_up(tmp_path, slow_mnist):
    with pytest.raises(OSError, match="no progress"):
        data._download(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda good: good[:1000], lambda good: b"", lambda good: good[:-1] + b"x"])
def test_a_damaged_file_is_named_with_its_cure(tmp_path, monkeypatch, damage):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    good = b"not really MNIST" * 100
    for name in data.MNIST_MD5:
        monkeypatch.setitem(data.MNIST_MD5, name, hashlib.md5(good).hexdigest())
        (raw / name).write_bytes(good)
    (raw / "t10k-images-idx3-ubyte").write_bytes(damage(good))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.*delete it"):
        core.load_mnist("test")


@pytest.mark.parametrize("load", [core.load_mnist, core.load_sample])
def test_unknown_split(load):
    with pytest.raises(ValueError, match='"train" or "test", got \'validation\''):
        load("validation")


def test_as_images_takes_what_people_have():
    grey = np.arange(784, dtype=np.uint8).reshape(28, 28)
    wanted = torch.from_numpy(grey).float()[None, None] / 255
    for picture in (grey, torch.from_numpy(grey), Image.fromarray(grey), grey[None], grey[None, None], wanted):
        assert torch.equal(core.as_images(picture), wanted)
    with pytest.raises(ValueError, match="grey pictures"):
        core.as_images(np.zeros((1, 3, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="grey pictures"):
        core.as_images(np.zeros((28, 28, 3), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        core.as_images(np.zeros((28, 28), np.int64))


def drawing(size, background, ink, box):
    picture = Image.new("RGB", size, background)
    picture.paste(ink, box)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_read_digit_makes_ink_on_paper_look_like_mnist():
    on_white = core.read_digit(drawing((300, 200), "white", "black", (200, 20, 220, 140)))
    on_black = core.read_digit(drawing((300, 200), "black", "white", (200, 20, 220, 140)))
    assert on_white.shape == (1, 1, 28, 28) and on_white.dtype == torch.float32
    torch.testing.assert_close(on_white, on_black)
    rows, columns = (on_white[0, 0] > 0.5).nonzero().T
    assert rows.max() - rows.min() == 19 and rows.min() in (4, 5) and abs(columns.float().mean() - 14) < 1


def test_read_digit_takes_a_digit_of_mnist_as_it_is(sample):
    buffer = io.BytesIO()
    Image.fromarray(sample.pixels[0, 0].numpy()).save(buffer, "PNG")
    assert torch.equal(core.read_digit(buffer.getvalue()), sample.images[:1])


def test_read_digit_takes_a_photograph():
    """Grey, grainy paper, 16 bits, and a camera that was held sideways."""
    grain = np.random.default_rng(0).normal(165, 4, (300, 200)).clip(0, 255).astype(np.uint8)
    grain[60:240, 95:105] = 40
    upright = Image.fromarray(grain)
    sideways, exif, files = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif(), [io.BytesIO() for _ in range(3)]
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.save(files[0], "PNG")
    sideways.save(files[1], "PNG", exif=exif)
    Image.fromarray(grain.astype(np.uint16) * 256).save(files[2], "PNG")
    for file in files:
        digit = core.read_digit(file.getvalue())[0, 0]
        assert (digit > 0.2).float().mean() < 0.1 and (digit[6:22, 13:15] > 0.9).any(dim=1).all()


def test_read_digit_takes_transparent_paper():
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (45, 10, 55, 90))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    assert core.read_digit(buffer.getvalue())[0, 0, 14, 14] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a picture"),
        (b"GIF89a, and then no more", "expected a picture"),
        (drawing((50, 50), "white", "white", (0, 0, 1, 1)), "empty picture"),
        (drawing((28, 28), "black", "black", (0, 0, 1, 1)), "empty picture"),
        (drawing((5000, 4000), "white", "black", (0, 0, 1, 1)), "16 megapixels, got 5000 x 4000"),
    ],
)
def test_read_digit_refuses(content, message):
    with pytest.raises(ValueError, match=message):
        core.read_digit(content)


def test_read_digit_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        core.read_digit(tmp_path / "none.png")
