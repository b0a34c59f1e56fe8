"""The README's pictures, from small untrained models."""

import pytest
import torch
from conftest import SMALL
from PIL import Image

import diffae_core as core


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "device": "cpu"}
    return [
        core.SimpleAutoencoder(16, device="cpu").eval(),
        core.DiffusionModel(**SMALL).eval(),
        core.LatentPrior(16, **sizes).eval(),
    ]


@pytest.fixture(scope="module")
def test_digits():
    return core.load_sample("test").spaced(100)


def test_the_pictures_do_not_depend_on_the_order_in_which_they_are_made(models, test_digits, tmp_path):
    demo = core.Demo(*models, test_digits, 2)
    first = demo.perturbed()
    paths = demo.save(str(tmp_path))
    assert [path.name for path in paths if path.is_file()] == [
        "conditioned_samples.png",
        "diffusion_autoencoder_demo.png",
        "one_as_all.png",
        "from_scratch.png",
        "animation.gif",
    ]
    assert Image.open(tmp_path / "diffusion_autoencoder_demo.png").tobytes() == first.tobytes()
    assert Image.open(tmp_path / "animation.gif").n_frames > 30  # equal ones are merged


def test_the_seed_decides_the_animations_noise(models, test_digits):
    frames = [core.Demo(*models, test_digits, seed=seed).animation()[10] for seed in (0, 1)]
    assert frames[0].tobytes() != frames[1].tobytes()


def test_a_class_that_no_test_digit_has_is_still_written(models, test_digits):
    demo = core.Demo(*models, test_digits.subset(test_digits.labels != 3), 2)
    assert len(demo.digits) == 9
    assert demo.one_as_all().width == core.Demo(*models, test_digits, 2).one_as_all().width


def test_without_a_prior_of_these_classes_what_needs_one_is_left_out(models, test_digits, tmp_path):
    other = core.LatentPrior(16, 16, 1, num_classes=3, device="cpu")
    for prior in (None, other):
        demo = core.Demo(*models[:2], prior, test_digits, 2)
        assert [path.stem for path in demo.save(tmp_path)] == ["conditioned_samples", "diffusion_autoencoder_demo"]
        for picture in (demo.one_as_all, demo.from_scratch, demo.animation):
            with pytest.raises(ValueError, match="expected a prior of the digits' 10 classes, got"):
                picture()


def test_an_autoencoder_that_the_models_do_not_know_is_refused(models, test_digits):
    model = core.DiffusionModel(**SMALL)
    model.latents_from = "another one"
    with pytest.raises(ValueError, match="expected the autoencoder that this DiffusionModel was trained with"):
        core.Demo(models[0], model, models[2], test_digits)
