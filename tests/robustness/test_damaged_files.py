"""Files that are damaged, hostile, or neither checkpoint nor picture: refused by name, and at no cost in memory."""

import builtins
import io
import itertools
import os
import pickle
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from common import report, resident_mb
from conftest import SMALL, all_equal, all_random
from PIL import Image

import diffae_core as core

long = pytest.mark.long


class RunsCode:
    def __reduce__(self):
        return exec, ("import builtins; builtins.it_ran = True",)


def saved(contents: dict) -> bytes:
    torch.save(contents, buffer := io.BytesIO())
    return buffer.getvalue()


def some_weight(contents: dict, dice: random.Random) -> tuple[str, torch.Tensor]:
    return dice.choice([item for item in contents["weights"].items() if item[1].is_floating_point()])


# Each gives the damaged file, of the bytes and the contents of a whole one.
def truncated(whole, contents, dice):
    return whole[: dice.randrange(len(whole))]


def bit_flipped(whole, contents, dice):
    place = dice.randrange(len(whole))
    return whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]


def of_another_model(whole, contents, dice):
    return saved(contents | {"kind": "SimpleAutoencoder"})


def other_sizes(whole, contents, dice):
    name, weight = some_weight(contents, dice)
    contents["weights"][name] = weight.new_zeros(*weight.shape, dice.randrange(1, 4))
    return saved(contents)


def not_finite(whole, contents, dice):
    _, weight = some_weight(contents, dice)
    weight[tuple(dice.randrange(size) for size in weight.shape)] = dice.choice([float("nan"), float("inf")])
    return saved(contents)


def runs_code(whole, contents, dice):
    return dice.choice([saved, pickle.dumps])(contents | {"config": RunsCode()})


def huge_sizes(whole, contents, dice):
    if dice.random() < 0.5:
        contents["config"] |= {"widths": (10 ** dice.randrange(5, 12), 16)}
    else:
        contents["config"] |= {"time_embedding_dim": 10**9, "block_depth": 10**6}
        contents["weights"][some_weight(contents, dice)[0]] = torch.zeros(1).expand(10**9)
    return saved(contents)


def zip_bomb(whole, contents, dice):
    source = zipfile.ZipFile(io.BytesIO(whole))
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in source.namelist():
            bomb.writestr(name, bytes(2**28) if name.endswith("data/0") else source.read(name))
    return buffer.getvalue()


COUNTS = {truncated: 70, bit_flipped: 100, of_another_model: 1, other_sizes: 40, not_finite: 40, runs_code: 20,
          huge_sizes: 40, zip_bomb: 1}  # fmt: skip


@pytest.mark.parametrize("share", [0.05, pytest.param(1, marks=long)])
@pytest.mark.parametrize("damage", COUNTS, ids=lambda damage: damage.__name__)
def test_checkpoints(damage, share, tmp_path):
    dice, found, path = random.Random(0), Counter(), tmp_path / "damaged.pt"
    model = all_random(core.DiffusionModel(**SMALL))
    model.save_checkpoint(tmp_path / "whole.pt")
    whole, before = (tmp_path / "whole.pt").read_bytes(), resident_mb()
    for _ in range(max(1, round(share * COUNTS[damage]))):
        path.write_bytes(damage(whole, torch.load(io.BytesIO(whole)), dice))
        try:
            loaded = core.DiffusionModel.from_pretrained(path, device="cpu")
        except ValueError as error:
            assert path.name in str(error)
            found["refused"] += 1
        else:
            assert damage is bit_flipped, "only a bit where nothing is stored (padding, time stamps) may pass"
            assert all_equal(loaded.state_dict(), model.state_dict())
            found["loaded, all weights equal"] += 1
    assert not hasattr(builtins, "it_ran") and resident_mb() - before < 200
    outcome = ", ".join(f"{count} {what}" for what, count in found.items())
    report("damaged files", f"checkpoint, {damage.__name__.replace('_', ' ')}", found.total(), outcome)


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=long)])
def test_files_of_mnist(count, whole_mnist, tmp_path, monkeypatch):
    dice, raw = random.Random(0), tmp_path / "MNIST" / "raw"
    good = Path(os.environ["DIFFAE_DATA_DIR"]) / "MNIST" / "raw"
    shutil.copytree(good, raw, ignore=shutil.ignore_patterns("*.gz"))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    for _, path in zip(range(count), itertools.cycle(sorted(raw.iterdir()))):
        whole = path.read_bytes()
        path.write_bytes(dice.choice([truncated, bit_flipped])(whole, None, dice))
        with pytest.raises(ValueError, match=path.name):
            core.load_mnist("train" if path.name.startswith("train") else "test")
        path.write_bytes(whole)
    report("damaged files", "MNIST's own files, truncated or bit flipped", count, f"{count} refused")


def encoded(picture: Image.Image) -> bytes:
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


WITHOUT_A_DIGIT = {
    "one pixel": encoded(Image.new("L", (1, 1))),
    "empty paper": encoded(Image.new("L", (120, 160), 255)),
    "a PNG cut short": encoded(Image.linear_gradient("L"))[:120],
    "text": b"not a picture at all",
    "nothing": b"",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0 L9 9'/></svg>",
    "a checkpoint": pickle.dumps({"kind": "DigitClassifier"}),
    "85 megapixels": encoded(Image.new("1", (10_000, 8_500), 1)),
}


def test_pictures_without_a_digit():
    before = resident_mb()
    for content in WITHOUT_A_DIGIT.values():
        with pytest.raises(ValueError, match="^expected a"):
            core.read_digit(content)
    assert resident_mb() - before < 100
    count = len(WITHOUT_A_DIGIT)
    report("damaged files", f"picture for read_digit: {', '.join(WITHOUT_A_DIGIT)}", count, f"{count} refused")
