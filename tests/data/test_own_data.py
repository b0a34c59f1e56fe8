"""Pictures of one's own, from a folder to the playground: three shapes, 32 x 32, with the script and the panels."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import diffae_core as core
import train_ddim_mnist
from diffae_core.panels import Playground

SHAPES = ("Kreis ○", "cross", "square")


def draw_shape(name: str, generator: torch.Generator) -> Image.Image:
    """A white shape on black, at a random place and of a random size."""
    picture = Image.new("L", (32, 32))
    pen = ImageDraw.Draw(picture)
    size, left, top = (
        int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((10, 20), (2, 11), (2, 11))
    )
    right, bottom = left + size, top + size
    if name == "cross":
        pen.line((left, top, right, bottom), 255, 3)
        pen.line((left, bottom, right, top), 255, 3)
    else:
        {"Kreis ○": pen.ellipse, "square": pen.rectangle}[name]((left, top, right, bottom), outline=255, width=3)
    return picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("meine Bilder ○"), core.seeded(0)
    for name in SHAPES:
        (folder / name).mkdir()
        for number in range(80):
            draw_shape(name, generator).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def output(folder, tmp_path_factory):
    """The script's output for these pictures, trained for some seconds."""
    output = tmp_path_factory.mktemp("output")
    options = ["--image-size", "32", "--latent-dim", "16", "--widths", "16", "32", "--block-depth", "1"]
    options += ["--autoencoder-epochs", "40", "--epochs", "6", "--batch-size", "16", "--prior-epochs", "20"]
    train_ddim_mnist.main(["--data", str(folder), "--output-dir", str(output), "--device", "cpu", *options])
    return output


def test_the_script_trains_on_a_folder(output):
    names = {"autoencoder_weights.pt", "diffusion_model.pt", "latent_prior.pt", "digit_classifier.pt", "quality.md"}
    pictures = {"conditioned_samples.png", "diffusion_autoencoder_demo.png", "from_scratch.png", "animation.gif"}
    assert names | pictures <= {path.name for path in output.iterdir()}
    model = core.DiffusionModel.from_pretrained(output / "diffusion_model.pt", device="cpu")
    assert (model.image_size, model.latent_dim) == (32, 16)
    assert core.LatentPrior.from_pretrained(output / "latent_prior.pt", device="cpu").num_classes == 3


def test_the_autoencoder_has_learnt_the_shapes(folder, output):
    train, _, test = core.load_digits(folder, 32)
    assert train.names == tuple(sorted(SHAPES))
    autoencoder = core.SimpleAutoencoder.from_pretrained(output / "autoencoder_weights.pt", device="cpu")
    latents, labels = autoencoder.encode_dataset(train).tensors
    assert latents.mean(0).abs().max() < 1e-4 and (latents.std(0) - 1).abs().max() < 1e-3
    copies, mean = core.in_batches(autoencoder, test.images), train.images.mean(0)
    assert (copies - test.images).square().mean() < 0.6 * (mean - test.images).square().mean()
    assert core.class_directions(latents, labels).shape == (3, 16)


def test_the_playground_follows_the_classes(folder, output):
    kinds = (core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior)
    models = [kind.from_pretrained(output / kind.pretrained_file, device="cpu") for kind in kinds]
    train, _, test = core.load_digits(folder, 32)
    panel = Playground(*models[:2], test, train, prior=models[2], folder=output)
    assert panel.error is None and panel.render(preview=True, **panel.state).startswith(b"\x89PNG")


def test_unlabelled_pictures_train_without_class_tools(folder, tmp_path):
    images = core.load_digits(folder, 32)[0].images[:60]
    digits = core.Digits.from_arrays(images)
    assert digits.num_classes == 0
    autoencoder = core.SimpleAutoencoder(8, 32, device="cpu")
    for _ in core.train_autoencoder(autoencoder, digits, core.TrainingConfig(epochs=1, batch_size=20)):
        pass
    prior = core.LatentPrior(8, width=16, depth=1, num_classes=0, device="cpu")
    for record in core.train_latent_prior(prior, digits, autoencoder, core.TrainingConfig(epochs=1, batch_size=20)):
        assert record.loss > 0
    assert prior.sample_latents(3, generator=core.seeded(0), num_steps=2).shape == (3, 8)
    with pytest.raises(ValueError, match="labels"):
        prior.sample_latents(3, labels=1)


@pytest.mark.parametrize(
    ("size", "labels"),
    [(8, np.arange(60) % 3 * 5), (8, np.array(["ä", "○", "猫"])[np.arange(60) % 3]), (64, np.zeros(60))],
)
def test_the_script_takes_a_small_odd_set(tmp_path, size, labels):
    """Gaps in the labels, names in any script, one class, the smallest and a large size, two numbers in a latent."""
    np.savez(tmp_path / "own.npz", images=np.random.default_rng(0).random((60, size, size)), labels=labels)
    options = (
        f"--image-size {size} --latent-dim 2 --widths 8 16 --block-depth 1 --num-steps 2 --batch-size 16 --epochs 1"
    )
    options += " --autoencoder-epochs 1 --prior-epochs 1 --device cpu"
    output = tmp_path / "output"
    train_ddim_mnist.main(["--data", str(tmp_path / "own.npz"), "--output-dir", str(output), *options.split()])
    prior = core.LatentPrior.from_pretrained(output / "latent_prior.pt", device="cpu")
    assert prior.num_classes == len(np.unique(labels)) and (output / "conditioned_samples.png").exists()
    assert not (output / "quality.md").exists()  # five test pictures are too few to measure on
