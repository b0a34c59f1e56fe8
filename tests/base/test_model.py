"""What all models have in common: devices, saving and loading, and which autoencoder they belong to."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import SMALL, all_equal

import diffae_core as core
from diffae_core.base import validation
from diffae_core.base.model import fingerprint

KINDS = [core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior, core.DigitClassifier]


@pytest.fixture
def small(small_autoencoder, small_model, small_prior):
    models = small_autoencoder, small_model, small_prior, core.DigitClassifier(device="cpu").eval()
    return {type(model): model for model in models}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind, small, tmp_path):
    model, path = small[kind], tmp_path / "model.pt"
    model.latents_from = "0123456789abcdef"
    model.save_checkpoint(path)
    fresh = kind(**model.config, device="cpu")
    fresh.load_checkpoint(path)
    for loaded in (kind.from_pretrained(path, device="cpu"), fresh):
        assert all_equal(loaded.state_dict(), model.state_dict()) and loaded.config == model.config
        assert loaded.latents_from == "0123456789abcdef" and loaded.device == torch.device("cpu")
    assert not kind.from_pretrained(path, device="cpu").training


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_one_is_found_and_finite(kind):
    model = kind.from_pretrained(device="cpu")
    assert not model.training and all(weight.isfinite().all() for weight in model.state_dict().values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_nan_is_not_saved(kind, small, tmp_path, value):
    with torch.no_grad():
        list(small[kind].parameters())[-1].flatten()[0] = value
    with pytest.raises(ValueError, match=rf"finite weights of a {kind.__name__} .*model\.pt.*NaN or infinity"):
        small[kind].save_checkpoint(tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_a_last_layer_is_loaded_on_its_own_backbone_alone(small_autoencoder, tmp_path):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
    torch.nn.init.normal_(head.mean)
    head.save_checkpoint(tmp_path / "head.pt")
    fresh = core.BayesianLastLayer(copy.deepcopy(small_autoencoder.encoder), 16)
    fresh.load_checkpoint(tmp_path / "head.pt")
    assert all_equal(fresh.state_dict(), head.state_dict())
    other = core.SimpleAutoencoder(16, device="cpu")
    others_head = core.BayesianLastLayer(other.encoder, 16).train()
    before = copy.deepcopy(others_head.state_dict())
    with pytest.raises(ValueError, match="expected a head of this backbone .*, got one of another"):
        others_head.load_checkpoint(tmp_path / "head.pt")
    assert all_equal(others_head.state_dict(), before) and others_head.training


def test_a_class_of_yours_loads_what_the_packages_class_saved():
    class Mine(core.SimpleAutoencoder):
        pass

    mine = Mine.from_pretrained(device="cpu")
    assert isinstance(mine, Mine) and all_equal(
        mine.state_dict(), core.SimpleAutoencoder.from_pretrained().state_dict()
    )


def test_a_model_that_was_loaded_in_inference_mode_can_be_trained(sample):
    with torch.inference_mode():
        model = core.SimpleAutoencoder.from_pretrained(device="cpu")
    (record,) = core.train_autoencoder(model, sample.spaced(16), core.TrainingConfig(epochs=1, batch_size=16))
    assert math.isfinite(record.loss)


def test_a_large_picture_does_not_need_large_weights(tmp_path):
    core.DigitClassifier(2, 160, device="cpu").save_checkpoint(tmp_path / "large.pt")
    assert core.DigitClassifier.from_pretrained(tmp_path / "large.pt", device="cpu").image_size == 160


def test_during_a_training_a_models_latents_have_no_name(small_model, small_prior, small_autoencoder, sample):
    digits, config = sample.spaced(32), core.TrainingConfig(epochs=1, batch_size=16)
    for model, train in ((small_model, core.train_diffusion), (small_prior, core.train_latent_prior)):
        model.latents_from = "another"
        run = train(model, digits, small_autoencoder, config)
        next(iter(run))
        assert model.latents_from == run.ema_model.latents_from == ""
        model.latents_from = "another"
        with pytest.raises(ValueError, match="the number of training examples"):
            train(model, digits.subset([]), small_autoencoder, config)
        assert model.latents_from == "another", "a training that is refused changes nothing"
    before = {name: values.clone() for name, values in small_prior.state_dict().items()}
    with pytest.raises(ValueError, match="the number of training examples"):
        core.train_latent_prior(small_prior, digits.subset([]), small_autoencoder, config)
    assert all_equal(small_prior.state_dict(), before)


def test_a_network_without_weights_and_a_fingerprint_of_few_bits(small_autoencoder):
    class NoNoise(torch.nn.Module):
        def forward(self, x, noise_rate, latents, latent_noise):
            return torch.zeros_like(x)

    model = core.DiffusionModel(latent_dim=16, network=NoNoise(), device="cpu")
    assert model.generate(torch.randn(2, 16)).shape == (2, 1, 28, 28)
    weights = torch.tensor([1.0, 2.0])
    names = {fingerprint(weights), fingerprint(weights.bfloat16()), fingerprint(weights.bfloat16() + 1)}
    assert len(names) == 3 and fingerprint(torch.tensor(1.0)) == fingerprint(torch.tensor([1.0]))


def test_the_shipped_models_belong_together(autoencoder, model):
    for conditioned in (model, core.LatentPrior.from_pretrained(device="cpu")):
        assert conditioned.latents_from
        conditioned.check_latents_from(autoencoder)


def test_a_pair_that_does_not_fit_is_refused(small_model, small_prior, small_autoencoder, sample, tmp_path):
    digits, config = sample.spaced(16), core.TrainingConfig(epochs=1, batch_size=16)
    torch.manual_seed(5)
    other = core.SimpleAutoencoder(16, device="cpu")
    for model, train in ((small_model, core.train_diffusion), (small_prior, core.train_latent_prior)):
        model.check_latents_from(other)  # no one knows what it was trained on: it has not been trained
        for _ in train(model, digits, small_autoencoder, config):
            pass
        model.save_checkpoint(tmp_path / "model.pt")
        model = type(model).from_pretrained(tmp_path / "model.pt", device="cpu")
        model.check_latents_from(small_autoencoder)
        with pytest.raises(
            ValueError, match="expected the autoencoder .*got another .*load the pair from one folder, or train"
        ):
            model.check_latents_from(other)
    small_autoencoder.decoder[0].bias.data.add_(1)  # the decoder has no say in the latents
    model.check_latents_from(small_autoencoder)
    small_autoencoder.encoder[0].bias.data[0].add_(1)
    with pytest.raises(ValueError, match="got another"):
        model.check_latents_from(small_autoencoder)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", 3.5])
def test_unknown_device(name):
    with pytest.raises(ValueError, match="expected a device from"):
        core.DiffusionModel(**{**SMALL, "device": name})


def test_seeds():
    assert torch.equal(
        torch.rand(3, generator=core.seeded(4)), torch.rand(3, generator=torch.Generator().manual_seed(4))
    )
    core.seeded(np.int64(2**63 - 1))
    for wrong in ("a", -1, 0.5, None, True, 2**64):
        with pytest.raises(ValueError, match="expected seed to be a whole number of 0 to"):
            core.seeded(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_from_numpy_are_saved_as_pythons_own(kind, small, tmp_path):
    sizes = {
        name: np.array(size) if isinstance(size, tuple) else np.int64(size) for name, size in small[kind].config.items()
    }
    model = kind(**sizes, device="cpu")
    model.save_checkpoint(tmp_path / "model.pt")
    loaded = kind.from_pretrained(tmp_path / "model.pt", device="cpu")
    assert loaded.config == model.config and all_equal(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_loading_leaves_eval_mode_and_the_callers_random_numbers(kind, small, tmp_path):
    small[kind].save_checkpoint(tmp_path / "model.pt")
    fresh = kind(**small[kind].config, device="cpu").train()
    before = torch.get_rng_state()
    fresh.load_checkpoint(tmp_path / "model.pt")
    kind.from_pretrained(tmp_path / "model.pt", device="cpu")
    assert not any(part.training for part in fresh.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiled_network_is_saved_under_its_own_names(small_model, tmp_path):
    before = {name: weight.clone() for name, weight in small_model.state_dict().items()}
    small_model.network = torch.compile(small_model.network)
    small_model.save_checkpoint(tmp_path / "model.pt")
    assert all_equal(core.DiffusionModel.from_pretrained(tmp_path / "model.pt", device="cpu").state_dict(), before)
    torch.nn.init.zeros_(small_model.network.stem.bias)
    small_model.load_checkpoint(tmp_path / "model.pt")
    assert torch.equal(small_model.network.stem.bias, before["network.stem.bias"])


def test_the_warning_of_a_range_points_to_the_callers_line(small_autoencoder, small_model, monkeypatch):
    images = torch.full((2, 1, 28, 28), 2.0)
    calls = (
        lambda: small_autoencoder.encode(images),
        lambda: small_autoencoder(images),
        lambda: small_model.add_noise(images),
        lambda: core.DigitClassifier(device="cpu").classify(images),
    )
    for call in calls:
        monkeypatch.setattr(validation, "_warned_about_range", False)
        with pytest.warns(UserWarning, match="outside") as caught:
            call()
        assert caught[0].filename == __file__


@pytest.mark.parametrize("convert", [lambda m: m.double(), lambda m: m.bfloat16(), lambda m: m.to(torch.float16)])
def test_another_type_of_numbers_is_refused_with_a_hint(convert, small_model):
    with pytest.raises(TypeError, match="autocast"):
        convert(small_model)
    assert all(parameter.dtype == torch.float32 for parameter in small_model.parameters())
