import gzip
import hashlib
import http.server
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import diffae_core as core
from diffae_core.data import digits as data
from diffae_core.data import mnist
from diffae_core.data.arrays import as_batch

# md5 of pixels and labels
MNIST_TRAIN = "712e52944104779e0910b9bedfba808d"
MNIST_VALIDATION = "fca1f210e0469f4498b55846bc7f5e93"
MNIST_TEST = "a9c5e64a683c5dd2f6a9bf7c61b53e6f"
SAMPLE_TRAIN = "54dfb6ccd3b8d7846cdeba58a53c39db"
SAMPLE_VALIDATION = "bc0609de68727f892d9f4f6179edb0fa"
SAMPLE_TEST = "f7770e4a4bd07aa95cc63795f41cc826"


@pytest.fixture(autouse=True)
def nothing_given_up(monkeypatch):
    monkeypatch.setattr(mnist, "_given_up", set())


def no_network(*_, **__):
    raise OSError("Name or service not known")


# MNIST and the sample


def test_the_sample_is_balanced():
    train, validation, test = map(core.load_sample, data.SPLITS)
    assert test.labels.bincount().tolist() == [100] * 10
    assert torch.cat([train.labels, validation.labels]).bincount().tolist() == [400] * 10
    assert (len(train), len(validation)) == (3667, 333)
    assert train.pixels.shape == (3667, 1, 28, 28) and train.pixels.dtype == torch.uint8


def fingerprint(digits: core.Digits) -> str:
    return hashlib.md5(digits.pixels.numpy().tobytes() + bytes(digits.labels.tolist())).hexdigest()


def test_the_samples_splits_stay_as_they_are():
    """The same digits in the same order, which the shipped weights and the measured tables rest on."""
    assert list(map(fingerprint, map(core.load_sample, data.SPLITS))) == [SAMPLE_TRAIN, SAMPLE_VALIDATION, SAMPLE_TEST]


def test_the_whole_sets_splits_stay_as_they_are(whole_mnist):
    validation, test = core.load_mnist("validation"), core.load_mnist("test")
    assert (len(whole_mnist), len(validation), len(test)) == (54_000, 5_000, 10_000)
    assert list(map(fingerprint, (whole_mnist, validation, test))) == [MNIST_TRAIN, MNIST_VALIDATION, MNIST_TEST]
    assert whole_mnist.source == validation.source == test.source == "mnist"


def test_no_digit_is_in_two_splits(whole_mnist):
    """The sample's test digits are in neither part of the whole set; nor is a validation digit trained on."""
    splits = [whole_mnist, core.load_mnist("validation"), core.load_sample("test")]
    seen = [{pixels.numpy().tobytes() for pixels in digits.pixels} for digits in splits]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


@pytest.mark.parametrize("load", [core.load_mnist, core.load_sample])
def test_unknown_split(load):
    with pytest.raises(ValueError, match="split to be one of .*'train', 'validation', 'test'.*got 'val'"):
        load("val")


def test_no_network_gives_the_sample_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with caplog.at_level(logging.WARNING):
        assert core.load_mnist("test").source == "sample"
        assert fingerprint(core.load_mnist("train")) == SAMPLE_TRAIN
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert "embedded sample" in caplog.text


def test_a_hanging_download_is_given_up(tmp_path, monkeypatch):
    """As behind a silent firewall."""
    monkeypatch.setattr(mnist, "STALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(mnist, "MIRRORS", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(OSError, match="timed out"):
            mnist._download(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_home_the_sample_is_taken(monkeypatch, caplog):
    monkeypatch.delenv("DIFFAE_DATA_DIR")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as in a container, for a user without an entry
    assert core.load_mnist("test").source == "sample" and "Could not determine home directory" in caplog.text


needs_permissions = pytest.mark.skipif(sys.platform == "win32", reason="Windows closes no folder by its mode")


@pytest.fixture
def ordinary_user():
    """Nobody, where the tests are run by root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def closed_folder(tmp_path):
    tmp_path.chmod(0)
    yield tmp_path
    os.seteuid(os.getuid())
    tmp_path.chmod(0o700)


@needs_permissions
def test_another_users_folder_gives_the_sample(closed_folder, ordinary_user, monkeypatch, caplog):
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(closed_folder / "cache"))
    assert core.load_mnist("test").source == core.load_mnist("train").source == "sample"
    assert len(caplog.records) == 1 and "Permission denied" in caplog.text


# IDX files


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


def small_set(seed: int, train: int = 36, test: int = 6) -> dict[str, bytes]:
    """The content of the four files of a set of small size."""
    dice = np.random.default_rng(seed)
    shapes = {"train-images-idx3": (train, 28, 28), "t10k-images-idx3": (test, 28, 28)}
    shapes |= {"train-labels-idx1": (train,), "t10k-labels-idx1": (test,)}
    arrays = {name: dice.integers(0, 4 if len(shape) == 1 else 256, shape) for name, shape in shapes.items()}
    return {f"{name}-ubyte": idx(array) for name, array in arrays.items()}


@pytest.fixture
def small_mnist(monkeypatch):
    """A small set which is taken for MNIST, and has a training digit for each of the sample's test digits."""
    files = small_set(0)
    for name, content in files.items():
        monkeypatch.setitem(mnist.MD5, name, hashlib.md5(content).hexdigest())
    sample = core.load_sample("test")
    monkeypatch.setattr(data, "_sample", lambda is_test: (sample, torch.tensor([3, 5])))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    return files


def write(folder, files: dict[str, bytes], zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
def test_the_official_files_are_used_as_they_are(tmp_path, monkeypatch, small_mnist, place, zipped):
    write(tmp_path / place, small_mnist, zipped)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    train, validation, test = map(core.load_mnist, data.SPLITS)
    assert (len(train), len(validation), len(test)) == (31, 3, 6) and test.source == "mnist"
    assert test.pixels.numpy().tobytes() == small_mnist["t10k-images-idx3-ubyte"][16:]
    assert bytes(test.labels.tolist()) == small_mnist["t10k-labels-idx1-ubyte"][8:]
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_missing_is_downloaded(tmp_path, monkeypatch, small_mnist):
    """From the mirror that has it; a file that is there already stays, and one that comes damaged is not kept."""
    mirror, raw = tmp_path / "mirror", tmp_path / "data" / "MNIST" / "raw"
    write(mirror, small_mnist, zipped=True)
    write(raw, {"t10k-labels-idx1-ubyte": b"somebody's"})
    damaged = gzip.compress(small_mnist["t10k-images-idx3-ubyte"][:-1])
    (mirror / "t10k-images-idx3-ubyte.gz").write_bytes(damaged)
    monkeypatch.undo()  # the network is there again, and what follows is no longer MNIST
    for name, content in small_mnist.items():
        monkeypatch.setitem(mnist.MD5, name, hashlib.md5(content).hexdigest())
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: handler(*given, directory=mirror)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(mnist, "MIRRORS", [f"{address}none/", address])
        with pytest.raises(OSError, match="t10k-images-idx3-ubyte came damaged"):
            mnist._download(raw)
        write(mirror, small_mnist, zipped=True)
        mnist._download(raw)
        server.shutdown()
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == small_mnist | {
        "t10k-labels-idx1-ubyte": b"somebody's"
    }


def test_a_missing_folder_is_not_remembered(tmp_path, monkeypatch, small_mnist):
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path / "mistyped"))
    assert core.load_mnist("test").source == "sample"
    write(tmp_path / "data", small_mnist)
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path / "data"))
    assert core.load_mnist("test").source == "mnist"
    write(tmp_path / "mistyped", small_mnist)
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path / "mistyped"))
    assert core.load_mnist("test").source == "mnist"


@needs_permissions
def test_another_users_files_give_the_sample(monkeypatch, small_mnist, caplog):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        os.chmod(folder, 0o755)
        write(Path(folder), small_mnist)
        for path in Path(folder).iterdir():
            path.chmod(0)
        monkeypatch.setenv("DIFFAE_DATA_DIR", folder)
        os.seteuid(os.geteuid() or 65534)
        try:
            assert core.load_mnist("test").source == "sample" and "Permission denied" in caplog.text
        finally:
            os.seteuid(os.getuid())


DAMAGES = [
    lambda good: good[:100],
    lambda good: b"",
    lambda good: good[:-1] + b"\xff\xff",
    lambda good: good[:10] + b"\xff" * 10 + good[20:],
]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_a_hint(tmp_path, monkeypatch, small_mnist, damage, zipped):
    write(tmp_path, small_mnist, zipped)
    path = tmp_path / f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.* damaged.*(move it away|copy it again)") as error:
        core.load_mnist("test")
    assert "delete" not in str(error.value)
    assert len(core.load_mnist("train")) == 31


def test_a_flipped_bit_is_no_other_set(tmp_path, monkeypatch, small_mnist):
    name = "t10k-images-idx3-ubyte"
    write(tmp_path, small_mnist | {name: small_mnist[name][:-1] + bytes([small_mnist[name][-1] ^ 1])})
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=f"{name}.*truncated or damaged"):
        core.load_mnist("test")


def test_another_set_is_called_so(tmp_path, monkeypatch, small_mnist):
    write(tmp_path / "MNIST" / "raw", small_set(1))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="another set such as Fashion-MNIST; .*load_digits.*--data") as error:
        core.load_mnist("train")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw"])
def test_load_digits_takes_idx_files_of_another_set(tmp_path, place, zipped):
    files = small_set(1)
    write(tmp_path / place, files, zipped)
    train, validation, test = core.load_digits(tmp_path)
    assert (len(train), len(validation), len(test)) == (33, 3, 6)
    assert test.pixels.numpy().tobytes() == files["t10k-images-idx3-ubyte"][16:]
    together = torch.cat([train.pixels, validation.pixels]).flatten(1)
    own = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(36, 784)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, own))
    assert train.names == test.names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: (name.replace("-idx", ".idx"), content),  # Kaggle's spelling
        lambda name, content: (name, gzip.compress(content)),  # compressed, and not called so
        lambda name, content: (f"{name}.gz", content),  # called so, and not compressed
        lambda name, content: (f"emnist-letters-{name.replace('t10k', 'test')}", content),
    ],
)
def test_load_digits_takes_idx_files_by_their_content(tmp_path, change):
    write(tmp_path, dict(change(*file) for file in small_set(1).items()))
    assert [len(part) for part in core.load_digits(tmp_path)] == [33, 3, 6]


def test_load_digits_takes_one_set_of_idx_files(tmp_path):
    for number, prefix in enumerate(("emnist-digits-", "emnist-letters-")):
        write(tmp_path / "gzip", {f"{prefix}{name}": content for name, content in small_set(number).items()}, True)
    with pytest.raises(ValueError, match=r"of one set .*emnist-digits-\*, .*emnist-letters-\*: give each set a folder"):
        core.load_digits(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: None, "got 3: add train-labels-idx1-ubyte"),
        (lambda good: good[:-1], "train-labels-idx1-ubyte.*damaged"),
        (lambda good: gzip.compress(good)[:-9], "train-labels-idx1-ubyte.*damaged"),
        (lambda good: b"\0\0\x08\x01" + b"\xff" * 4, "train-labels-idx1-ubyte.*damaged"),
        (lambda good: idx(np.zeros(5)), "one label for each"),
    ],
)
def test_load_digits_names_a_wrong_idx_file(tmp_path, change, message):
    files, name = small_set(1), "train-labels-idx1-ubyte"
    files[name] = change(files[name])
    write(tmp_path, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(ValueError, match=message):
        core.load_digits(tmp_path)


# Digits


IMAGES = np.random.default_rng(0).integers(0, 256, (24, 28, 28), dtype=np.uint8)
LABELS = np.arange(24) % 3


def test_digits_are_a_torch_dataset():
    digits = core.load_sample("test")
    image, label = digits[3]
    assert torch.equal(image, digits.images[3]) and image.dtype == torch.float32 and 0.5 < image.max() <= 1
    assert image.shape == (1, 28, 28) and isinstance(label, int) and label == digits.labels[3]
    assert digits[torch.tensor(3)][1] == digits[np.int64(3)][1] == label
    for several in (slice(0, 5), [1, 2], torch.tensor([1, 2]), "3", 0.5):
        with pytest.raises(TypeError, match="index of one digit, got .*take subset\\(index\\)"):
            digits[several]


def test_subset_takes_indices_of_any_kind():
    digits = core.Digits.from_arrays(IMAGES, LABELS)
    mask = LABELS == 1
    for index in ((1, 4, -2), [1, 4, 22], range(1, 7, 3), np.array([1, 4])[::-1], {1: 0, 4: 0}, torch.tensor([1, 4])):
        assert digits.subset(index).labels.tolist() == [1] * len(index)
    for index in (mask, mask.tolist(), torch.from_numpy(mask)):
        assert digits.subset(index).labels.tolist() == [1] * 8
    assert len(digits.subset([])) == len(digits.subset(())) == len(digits.subset(~mask & mask)) == 0
    for wrong, error, message in (
        (3, TypeError, "got int: for one digit give a list, e.g. \\[3\\]"),
        ([0.5], TypeError, "float64.*whole numbers"),
        ([[1]], TypeError, "\\(1, 1\\)"),
        ([24], IndexError, "got 24: the last one is 23"),
        (mask[:5], IndexError, "a mask of 5"),
    ):
        with pytest.raises(error, match=f"indices of some of 24 digits.*{message}"):
            digits.subset(wrong)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((IMAGES, LABELS), TypeError, "ndarray and ndarray: use Digits.from_arrays"),
        ((torch.zeros(2, 1, 28, 28), torch.zeros(2).long()), ValueError, "float32.*from_arrays"),
        ((torch.zeros(1, 28, 28).byte(), torch.zeros(1).long()), ValueError, "keep one digit as"),
        ((torch.zeros(2, 1, 28, 28).byte(), torch.zeros(3).long()), ValueError, "one label for each"),
        ((torch.zeros(2, 1, 28, 28).byte(), torch.tensor([0, 10])), ValueError, "from 0 to 9.*got labels from 0 to 10"),
        ((torch.zeros(2, 1, 28, 28).byte(), torch.tensor([-1, 0]), ()), ValueError, "from -1 to -1"),
    ],
)
def test_digits_check_what_they_are_made_of(parts, error, message):
    with pytest.raises(error, match=message):
        core.Digits(*parts)


def test_spaced_takes_an_even_share():
    digits = core.Digits.from_arrays(IMAGES[:10], range(10))
    assert digits.spaced(10).labels.tolist() == list(range(10))
    assert digits.spaced(4).labels.tolist() == [0, 2, 5, 7]
    for wrong in (0, 11, 2.0):
        with pytest.raises(ValueError, match="count"):
            digits.spaced(wrong)


def test_split_holds_out_two_twelfths():
    digits = core.Digits.from_arrays(np.zeros((60, 28, 28), np.uint8), range(60))
    parts = digits.split()
    assert [len(part) for part in parts] == [50, 5, 5]
    assert sorted(torch.cat([part.labels for part in parts]).tolist()) == list(range(60))
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(parts, digits.split(0)))
    assert not torch.equal(parts[2].labels, digits.split(1)[2].labels)
    assert [len(part) for part in digits.subset(slice(12)).split()] == [10, 1, 1]
    with pytest.raises(ValueError, match="12 or more digits to split, got 11"):
        digits.subset(slice(11)).split()
    with pytest.raises(ValueError, match="expected seed to be a whole number"):
        digits.split(0.5)


SAME_IMAGES = [
    *(IMAGES, IMAGES[:, None], IMAGES[..., None], torch.from_numpy(IMAGES), IMAGES / 255, (IMAGES / 255).astype(">f4")),
    *(
        IMAGES.astype(int),
        IMAGES.astype("u8"),
        np.asfortranarray(IMAGES),
        np.frombuffer(IMAGES).view("u1").reshape(24, 28, 28),
    ),
    *(
        list(IMAGES),
        IMAGES.tolist(),
        tuple(torch.from_numpy(IMAGES)[:, None]),
        [Image.fromarray(grey) for grey in IMAGES],
    ),
    *(torch.from_numpy(IMAGES / 255).requires_grad_(), torch.from_numpy(IMAGES).float().div(255).to_sparse()),
]
SAME_LABELS = [LABELS, LABELS.tolist(), torch.from_numpy(LABELS), LABELS[:, None].astype("u1"), LABELS.astype("u8")]
SAME_LABELS += [LABELS.astype(float), LABELS.astype(str), list(map(str, LABELS)), list(torch.from_numpy(LABELS))]


@pytest.mark.parametrize(
    ("images", "labels"), [*((images, LABELS) for images in SAME_IMAGES), *((IMAGES, labels) for labels in SAME_LABELS)]
)
def test_from_arrays(images, labels):
    digits = core.Digits.from_arrays(images, labels)
    assert torch.equal(digits.pixels, torch.from_numpy(IMAGES)[:, None]) and digits.pixels.is_contiguous()
    assert digits.labels.tolist() == LABELS.tolist() and digits.labels.dtype == torch.int64
    assert digits.names == ("0", "1", "2") and digits.num_classes == 3 and digits.source == "arrays"


def test_from_arrays_with_names_and_without_labels():
    named = core.Digits.from_arrays(IMAGES, LABELS, ["circle", "cross", "square", "star"])
    assert named.names == ("circle", "cross", "square", "star") and named.subset([0]).names == named.names
    numbered = dict(enumerate(named.names))
    assert core.Digits.from_arrays(IMAGES, LABELS, numbered).names == named.names
    words = np.array(["ñandú", "cat"])[LABELS % 2]
    assert core.Digits.from_arrays(IMAGES, words).names == ("cat", "ñandú")
    assert core.Digits.from_arrays(IMAGES, words, ["ñandú", "cat"]).labels.tolist() == (LABELS % 2).tolist()
    from_one = core.Digits.from_arrays(IMAGES, LABELS + 1, {3: "three", 1: "one", 2: "two", 10: "ten"})
    assert from_one.names == ("one", "two", "three", "ten") and from_one.labels.tolist() == LABELS.tolist()
    assert core.Digits.from_arrays(IMAGES[:0], [], {1: "one"}).names == ("one",)
    coded = core.Digits.from_arrays(IMAGES, words, {"ñandú": "rhea", "cat": "felis"})
    assert [coded.names[label] for label in coded.labels[:2]] == ["rhea", "felis"]
    assert core.Digits.from_arrays(IMAGES, list(map(str, range(24)))).names == tuple(map(str, range(24)))
    assert core.Digits.from_arrays(IMAGES > 127).pixels.unique().tolist() == [0, 255]
    unlabelled = core.Digits.from_arrays(IMAGES)
    assert unlabelled.num_classes == 0 and unlabelled.labels.tolist() == [-1] * 24
    assert [part.num_classes for part in unlabelled.split()] == [0, 0, 0]


@pytest.mark.parametrize("axis", [1, 3])
def test_from_arrays_turns_colour_into_luminance(axis):
    colours = torch.eye(3)[:, :, None, None].expand(3, 3, 28, 28)  # red, green, blue
    for images in (colours, (colours * 255).byte()):
        digits = core.Digits.from_arrays(images.movedim(1, axis))
        assert digits.pixels[:, 0, 0, 0].tolist() == [76, 150, 29] and digits.pixels.shape == (3, 1, 28, 28)


@pytest.mark.parametrize(
    "case",
    [
        (IMAGES.reshape(24, 784), None, ValueError, "got \\(24, 784\\): .*reshape\\(-1, 28, 28\\)"),
        (IMAGES.astype(float), None, ValueError, "values from 0 to 255: divide them by 255"),
        (IMAGES / 127.5 - 1, None, ValueError, "values from -1 to 1: take \\(pictures - -1\\) / 2"),
        (np.full((2, 28, 28), np.nan), None, ValueError, "NaN"),
        (IMAGES.astype("u2") * 257, None, ValueError, "0 to 65535: .*by 65535"),
        (IMAGES.astype("i1"), None, ValueError, "-128 to 127"),
        (IMAGES.astype(int) % 2, None, ValueError, "0 to 1, which would be black: give a mask as bool"),
        (IMAGES % 2, None, ValueError, "0 to 1, which would be black: give a mask as bool"),
        (
            list(IMAGES % 17),
            None,
            ValueError,
            "0 to 16, which would be nearly black: divide them by 16, or by the larg",
        ),
        (IMAGES % 17 / 1, None, ValueError, "0 to 16: divide them by 16, or by the largest value"),
        (IMAGES.astype(complex), None, TypeError, "no numbers"),
        (np.zeros((2, 28, 28, 4)), None, ValueError, "\\[..., :3\\] without transparency"),
        (np.zeros((2, 0, 28)), None, ValueError, "got \\(2, 0, 28\\)"),
        (["a.png"], None, TypeError, "images as an array or a tensor, got list"),
        ([IMAGES[0], IMAGES[0, :9]], None, TypeError, "list that is no array"),
        *(
            (wrong, None, TypeError, "images as an array or a tensor, got")
            for wrong in (None, 3, "a.png", iter(IMAGES))
        ),
        (IMAGES, LABELS[:5], ValueError, "one label for each"),
        (IMAGES, np.eye(3)[LABELS], ValueError, "argmax"),
        (
            IMAGES,
            np.ones((24, 14), int),
            ValueError,
            "shape \\(24, 14\\): give one class for each picture, not several",
        ),
        (IMAGES, LABELS, ValueError, "labels from \\[1, 2\\], got \\['0'\\]: name all classes", {1: "a", 2: "b"}),
        (IMAGES, 3, TypeError, "got int"),
        *(
            (IMAGES, wrong, ValueError, "numpy.unique")
            for wrong in (LABELS / 2, LABELS - 1, LABELS > 0, LABELS * np.nan)
        ),
        *(
            (IMAGES, wrong, TypeError, "labels as .*got list")
            for wrong in ([None] * 24, [0, "a"] * 12, [[0], [1, 2]] * 12)
        ),
    ],
)
def test_from_arrays_says_what_is_wrong(case):
    images, labels, error, message, *names = case
    with pytest.raises(error, match=message) as raised:
        core.Digits.from_arrays(images, labels, *names)
    assert "argmax" in message or "argmax" not in str(raised.value)
    with pytest.raises(ValueError, match="got labels from 0 to 2, and 2 names"):
        core.Digits.from_arrays(IMAGES, LABELS, ["too", "few"])
    with pytest.raises(ValueError, match="labels from \\['cat'\\], got \\['dog'\\]"):
        core.Digits.from_arrays(IMAGES, ["cat", "dog"] * 12, ["cat"])


@pytest.mark.parametrize("images", [IMAGES % 64, IMAGES % 64 / 255, torch.from_numpy(IMAGES).long() % 50])
def test_dark_pictures_are_taken_with_a_warning(images, caplog):
    assert core.Digits.from_arrays(images).pixels.max() < 64 and "% of white" in caplog.text
    assert len(core.as_images(images)) == 24 and len(caplog.records) == 2


@pytest.fixture
def folder(tmp_path):
    """Two classes of 15 pictures: of class a with a bright left half, of b with a bright right one."""
    for name, box in (("b", (14, 0, 28, 28)), ("a", (0, 0, 14, 28))):
        (tmp_path / name).mkdir()
        for number in range(15):
            picture = Image.new("L", (28, 28))
            picture.paste(200 + number, box)
            picture.save(tmp_path / name / f"{number:02}.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / ".hidden.png").write_text("no picture")
    for hidden in (".cache", "@eaDir/notes.txt", "b/@eaDir", "__MACOSX"):
        (tmp_path / hidden).mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "00.png", tmp_path / "b" / "@eaDir" / "thumbnail.png")
    return tmp_path


def test_from_folder_takes_a_class_from_each_sub_folder(folder):
    digits = core.Digits.from_folder(folder)
    assert digits.names == ("a", "b") and digits.labels.tolist() == [0] * 15 + [1] * 15 and digits.source == "folder"
    assert digits.pixels[:, 0, 14, 0].tolist() == [*range(200, 215), *[0] * 15]
    assert digits.pixels[:, 0, 14, 27].tolist() == [*[0] * 15, *range(200, 215)]


def test_a_folder_of_pictures_alone_has_no_labels(folder):
    digits = core.Digits.from_folder(folder / "b")
    assert len(digits) == 15 and digits.names == () and digits.labels.unique().tolist() == [-1]


def test_classes_called_by_numbers_are_in_their_order(tmp_path):
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        for copy in range(2):
            Image.new("L", (28, 28), 100 + number).save(tmp_path / str(number) / f"{copy}.png")
    names = tuple(map(str, range(12)))
    digits = core.Digits.from_folder(tmp_path)
    assert digits.names == core.load_digits(tmp_path)[0].names == names
    assert (digits.pixels[:, 0, 0, 0] == 100 + digits.labels).all()


def test_links_to_folders_are_followed_and_files_left_out_are_named(folder, tmp_path_factory, caplog):
    other = tmp_path_factory.mktemp("elsewhere")
    (folder / "b").rename(other / "b")
    (folder / "b").symlink_to(other / "b")
    (folder / "a" / "back").symlink_to(folder / "a")  # no picture is taken twice
    (folder / "b" / "phone.HEIC").write_bytes(b"a picture that Pillow cannot read")
    (folder / "stray.png").write_bytes(b"a picture beside the classes")
    (folder / "c").symlink_to(folder / "nowhere")
    assert core.Digits.from_folder(folder).labels.bincount().tolist() == [15, 15]
    assert "Left out 4 file(s), such as " in caplog.text


@pytest.mark.parametrize(("value", "mode"), [(0, "L"), (1, "L"), (16, "L"), (255, "I;16")])
def test_a_folder_of_black_pictures_is_refused(tmp_path, value, mode):
    for number in range(3):
        Image.new(mode, (28, 28), value).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match="not black in .*none with a pixel above (0|1|16) of 255: for masks"):
        core.load_digits(tmp_path)


def test_from_folder_opens_folders_in_folders(folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("ein Ordner ○")
    shutil.copytree(folder, outer / "set" / "Sätze")
    (outer / "set" / "Sätze" / "b" / "more" / ".thumbnails").mkdir(parents=True)
    for place in ("more", "more/.thumbnails"):
        shutil.copy(folder / "b" / "00.png", outer / "set" / "Sätze" / "b" / place / "new.PNG")
    (outer / "__MACOSX").mkdir()
    digits = core.Digits.from_folder(outer)
    assert digits.names == ("a", "b") and digits.labels.bincount().tolist() == [15, 16]


def test_from_folder_scales_and_keeps_proportions(folder):
    wide = Image.new("RGB", (200, 100), "white")
    wide.paste("black", (50, 0, 150, 100))  # a square, as high as the picture
    (folder / "c").mkdir()
    wide.save(folder / "c" / "wide.jpg")
    image = core.Digits.from_folder(folder, image_size=40).images[-1, 0]
    rows, columns = (image < 0.5).nonzero().T
    assert image.shape == (40, 40) and rows.unique().tolist() == columns.unique().tolist() == list(range(10, 30))
    assert image[0].min() == 1  # added paper has the border's colour


def test_from_folder_says_what_is_wrong(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        core.Digits.from_folder(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="empty, got none: put the pictures into one sub-folder for each class"):
        core.Digits.from_folder(folder)
    (folder / "empty" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="broken.png"):
        core.Digits.from_folder(folder)
    shutil.rmtree(folder / "empty")
    monkeypatch.setenv("HOME", str(folder))
    assert len(core.Digits.from_folder("~")) == 30


class Pictures(Dataset):
    """A map-style data set that never raises an IndexError, with names, of colour PIL images."""

    classes = ["a", "b", "c"]

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return Image.fromarray(IMAGES[index % 24]).convert("RGB"), int(LABELS[index % 24])


def test_from_dataset():
    own = core.Digits.from_dataset(Pictures())
    assert torch.equal(own.pixels[:, 0], torch.from_numpy(IMAGES)) and own.labels.tolist() == LABELS.tolist()
    assert own.names == ("a", "b", "c") and own.source == "dataset"
    assert core.Digits.from_dataset(Subset(Subset(Pictures(), range(9)), [0, 1])).names == ("a", "b", "c")
    tensors = torch.from_numpy(IMAGES).float()[:, None] / 255
    unlabelled = core.Digits.from_dataset(TensorDataset(tensors))
    assert torch.equal(unlabelled.pixels, own.pixels) and unlabelled.num_classes == 0
    again = core.Digits.from_dataset(TensorDataset(tensors, torch.from_numpy(LABELS)))
    assert torch.equal(again.pixels, own.pixels) and again.names == ("0", "1", "2")
    assert torch.equal(core.Digits.from_dataset(list(tensors)).pixels, own.pixels)
    records = [{"image": Image.fromarray(image), "label": int(label)} for image, label in zip(IMAGES, LABELS)]
    from_records = core.Digits.from_dataset(records)
    assert torch.equal(from_records.pixels, again.pixels) and torch.equal(from_records.labels, again.labels)


def test_from_dataset_says_what_is_wrong():
    with pytest.raises(ValueError, match="one size, got \\[\\(28, 28\\), \\(30, 28\\)\\]: .*Resize"):
        core.Digits.from_dataset([np.zeros((28, 28)), np.zeros((30, 28))])
    with pytest.raises(ValueError, match="pairs, or images, got 0 items"):
        core.Digits.from_dataset([])
    for wrong in (None, DataLoader(Pictures()), [("a", "b")]):
        with pytest.raises(TypeError, match="^expected .*got (NoneType|DataLoader|str)"):
            core.Digits.from_dataset(wrong)


def test_as_batch_reads_data_sets_without_a_transform():
    """``[(PIL image, label), ...]`` is torchvision's ``MNIST(root)``."""
    wanted = torch.from_numpy(IMAGES).float()[:, None] / 255
    for items in (
        [Pictures()[index] for index in range(24)],
        [*zip(IMAGES, LABELS)],
        [*zip(wanted, torch.from_numpy(LABELS).int())],
        [{"image": image, "label": label} for image, label in zip(IMAGES[..., None], LABELS[:, None])],
    ):
        batch = next(iter(DataLoader(items, 24, collate_fn=as_batch)))
        torch.testing.assert_close(batch, (wanted, torch.from_numpy(LABELS)), rtol=0, atol=1e-6)
    for wrong in ("seven", 0.5, True, None):
        with pytest.raises(TypeError, match="expected pairs of an image and a whole number, its label, got"):
            as_batch([(IMAGES[0], wrong)] * 2)
    with pytest.raises(TypeError, match="expected pairs of an image and a whole number, its label, got ndarray"):
        as_batch([*IMAGES])


def test_check_digits():
    digits = core.Digits.from_arrays(IMAGES, LABELS)
    assert data.check_digits(digits, 28) is digits
    with pytest.raises(TypeError, match="expected Digits, got ndarray"):
        data.check_digits(IMAGES)
    with pytest.raises(ValueError, match="of 32 x 32 pixels, got 28 x 28: .*load_digits\\(path, 32\\)"):
        data.check_digits(digits, 32)


# load_digits


def test_load_digits_splits_a_folder(folder):
    parts = core.load_digits(folder, 32)
    assert [len(part) for part in parts] == [26, 2, 2] and parts[0].pixels.shape == (26, 1, 32, 32)
    assert all(part.names == ("a", "b") for part in parts)


def test_load_digits_keeps_a_folders_own_parts(folder, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(folder, whole / "train")
    shutil.copytree(folder, whole / "test")
    assert [len(part) for part in core.load_digits(whole)] == [28, 2, 30]
    shutil.copytree(folder, whole / "validation")
    parts = core.load_digits(whole)
    assert [len(part) for part in parts] == [30, 30, 30]
    assert parts[0].labels[:15].unique().tolist() == [0, 1]  # not class by class, as the folders are
    (whole / "test" / "a").rename(whole / "test" / "c")  # another class, and one fewer
    shutil.rmtree(whole / "test" / "b")
    (whole / "validation").rename(whole / "Val")
    parts = core.load_digits(whole)
    assert all(part.names == ("a", "b", "c") for part in parts) and parts[2].labels.unique().tolist() == [2]
    shutil.rmtree(whole / "Val")
    shutil.rmtree(whole / "test")
    assert [len(part) for part in core.load_digits(whole)] == [26, 2, 2]  # in a lone folder
    shutil.copytree(folder / "a", whole / "test")
    with pytest.raises(ValueError, match="labels for each part or for none"):
        core.load_digits(whole)


@pytest.mark.parametrize(
    ("train", "other"),
    [("train", "test"), ("train", "dev"), ("train_images", "test_images"), ("seg_train", "seg_test"),
     ("trainingSet", "Testing set"), ("TRAIN", "Valid")],
)  # fmt: skip
@pytest.mark.parametrize("inside", ["", "mydata", "set/mydata"])
def test_load_digits_takes_parts_by_what_they_are_called(folder, tmp_path_factory, caplog, train, other, inside):
    outer = tmp_path_factory.mktemp("zip")
    for part in (train, other, "more") if inside else (train, other):
        shutil.copytree(folder, outer / inside / part)
    parts = core.load_digits(outer)
    assert [len(part) for part in parts] == [28, 2, 30] if "est" in other else [28, 30, 2]
    assert all(part.names == ("a", "b") for part in parts) and ("Left out the folders more" in caplog.text) == bool(
        inside
    )
    with pytest.raises(ValueError, match=f"folders of classes in .*{train}.*: use load_digits"):
        core.Digits.from_folder(outer)


def test_load_digits_takes_one_folder_for_each_part(folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("zip")
    for part in ("train", "val", "dev"):
        shutil.copytree(folder, outer / part)
    with pytest.raises(ValueError, match="one folder of validation pictures in .*got dev and val: rename"):
        core.load_digits(outer)
    shutil.rmtree(outer / "dev")
    (outer / "val").rename(outer / "car")
    assert core.load_digits(outer)[0].names == ("car", "train")  # trains are a class too
    for part in ("train", "test"):
        shutil.copytree(folder, outer / "bus" / part)
    with pytest.raises(ValueError, match="one class in .*bus, got parts of a set: put .* as in train/bus"):
        core.load_digits(outer)


PARTS = {f"{part}_images": IMAGES for part in ("train", "val", "test")}
PARTS |= {f"{part}_labels": LABELS[:, None] for part in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("arrays", "lengths", "names"),
    [
        ({"images": IMAGES, "labels": LABELS}, [20, 2, 2], "012"),
        ({"images": IMAGES}, [20, 2, 2], ""),
        ({"X": IMAGES, "Y": LABELS * 2}, [20, 2, 2], "024"),  # classes are those that have an example
        ({"train_x": IMAGES.astype(int), "train_y": LABELS.astype(str), "info": np.array([{}])}, [20, 2, 2], "012"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:5], "y_test": LABELS[3:8] % 2}, [22, 2, 5], "012"),
        (PARTS, [24, 24, 24], "012"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_dev": IMAGES[:5], "y_dev": LABELS[:5]}, [22, 5, 2], "012"),
        (
            {"trainImages": IMAGES, "trainLabels": LABELS, "test-images": IMAGES, "test-labels": LABELS},
            [22, 2, 24],
            "012",
        ),
    ],
)
def test_load_digits_takes_npz_files(tmp_path, arrays, lengths, names):
    np.savez(tmp_path / "own.npz", **arrays)
    parts = core.load_digits(tmp_path / "own.npz", 32)
    assert [len(part) for part in parts] == lengths and all(part.names == tuple(names) for part in parts)
    assert parts[0].pixels.shape[2:] == (32, 32)


def test_load_digits_says_what_is_wrong(tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="no such path"):
        core.load_digits(tmp_path / "none")
    with pytest.raises(ValueError, match="got none: put the pictures"):
        core.load_digits(tmp_path)
    for wrong in ({"data": IMAGES}, {"x_test": IMAGES}, {"labels": LABELS}):
        np.savez(tmp_path / "other.npz", **wrong)
        with pytest.raises(ValueError, match="named images and labels.*got [\\w, ]+ in .*other.npz"):
            core.load_digits(tmp_path / "other.npz")
    np.savez(tmp_path / "twice.npz", images=IMAGES, x_train=IMAGES)
    with pytest.raises(ValueError, match="both images and x_train name the same array of the train part"):
        core.load_digits(tmp_path / "twice.npz")
    np.savez(tmp_path / "more.npz", images=IMAGES, x_extra=IMAGES)
    assert len(core.load_digits(tmp_path / "more.npz")[0]) == 20 and "Left out x_extra in " in caplog.text
    np.savez(tmp_path / "objects.npz", images=np.array([{}]))
    np.savez(tmp_path / "cut.npz", images=IMAGES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:9000])
    np.save(tmp_path / "one.npy", IMAGES)
    Image.fromarray(IMAGES[0]).save(tmp_path / "picture.png")
    for name in ("objects.npz", "cut.npz", "one.npy", "picture.png"):
        with pytest.raises(ValueError, match=f"an .npz file of arrays, got .*{name}: .*; write it with numpy.savez"):
            core.load_digits(tmp_path / name)


def test_rounding_is_no_other_range_and_torchs_own_types_are_numbers():
    images = torch.tensor([[[0.0, 1 + 1e-7]]])
    assert core.Digits.from_arrays(images).pixels.flatten().tolist() == [0, 255]
    wide = torch.tensor([[[0, 65], [255, 3]]])
    narrow = core.Digits.from_arrays(wide.to(torch.uint16), torch.tensor([0], dtype=torch.uint16), ["a"])
    assert torch.equal(narrow.pixels, core.Digits.from_arrays(wide).pixels)


def test_names_fit_into_pictures():
    names = ["two\nlines", "caf\udce9"]
    digits = core.Digits.from_arrays(np.zeros((2, 4, 4)), [0, 1], names)
    assert digits.names == ("two lines", "caf?")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_no_file_is_no_picture(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    assert len(core.Digits.from_folder(folder)) == 30


def test_digits_without_labels_are_told_so(folder):
    with pytest.raises(ValueError, match="they have no labels"):
        core.class_means(torch.randn(2, 3), torch.tensor([-1, -1]))


def test_an_npz_with_an_empty_part_or_damage_is_named(tmp_path):
    images = np.zeros((24, 28, 28), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=[0, 1] * 12, x_test=images[:0], y_test=np.zeros(0, int))
    with pytest.raises(ValueError, match="expected pictures in each part, got none in test"):
        core.load_digits(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", bytes(500))
    content = bytearray((tmp_path / "b.npz").read_bytes())
    content[45:60] = bytes(15)
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(ValueError, match="expected a folder or an .npz file of arrays"):
        core.load_digits(tmp_path / "b.npz")


def test_a_class_that_is_only_tested_is_named(folder, tmp_path_factory, caplog):
    both = tmp_path_factory.mktemp("both")
    shutil.copytree(folder, both / "train")
    shutil.copytree(folder / "a", both / "test" / "unknown")
    core.load_digits(both)
    assert "No training picture is of class unknown" in caplog.text
