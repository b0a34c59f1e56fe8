"""What all models have in common: devices, saving and loading, and which autoencoder they belong to."""

import math

import pytest
import torch
from conftest import SMALL, all_equal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import diffae_core as core
from diffae_core.base.devices import has_fast_bfloat16

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


def test_a_last_layer_is_saved_with_its_backbone(small_autoencoder, tmp_path):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
    torch.nn.init.normal_(head.mean)
    head.save_checkpoint(tmp_path / "head.pt")
    fresh = core.BayesianLastLayer(core.SimpleAutoencoder(16, device="cpu").encoder, 16)
    fresh.load_checkpoint(tmp_path / "head.pt")
    assert all_equal(fresh.state_dict(), head.state_dict())


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


def test_devices():
    assert core.choose_device("cpu") == torch.device("cpu")
    assert core.choose_device() == core.choose_device("auto")
    assert torch.equal(
        torch.rand(3, generator=core.seeded(4)), torch.rand(3, generator=torch.Generator().manual_seed(4))
    )


@pytest.mark.parametrize("built_in", [True, False])
def test_bfloat16_is_chosen_where_the_processor_has_it(monkeypatch, built_in):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": built_in}, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is built_in


class OnMPS(torch.Tensor):
    """A tensor that, like one on Apple's MPS, has to go to the CPU before it can be float64 or a decomposed matrix."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(function, types, args, kwargs or {})
        assert getattr(found, "dtype", None) not in (torch.float64, torch.complex64, torch.complex128), function
        return found


def test_metrics_leave_mps_before_they_use_float64():
    real, generated = torch.randn(2, 40, 6, generator=core.seeded(0))
    metrics = core.metrics.frechet_distance, core.metrics.precision_recall, core.metrics.nearest_distances
    for metric in metrics:
        found, wanted = metric(real.as_subclass(OnMPS), generated.as_subclass(OnMPS)), metric(real, generated)
        torch.testing.assert_close(found, wanted)
    with pytest.raises(AssertionError):
        real.as_subclass(OnMPS).double()


class NoFloat64(TorchDispatchMode):
    """Refuses every operation that gives float64: what would fail on MPS."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        assert all(t.dtype != torch.float64 for t in tree_leaves(found) if isinstance(t, torch.Tensor)), function
        return found


def test_models_and_trainings_need_no_float64(small_autoencoder, small_model, small_prior, sample):
    digits, config = sample.spaced(16), core.TrainingConfig(epochs=1, batch_size=16)
    with NoFloat64():
        for run in (
            core.train_autoencoder(small_autoencoder, digits, config),
            core.train_diffusion(small_model, digits, small_autoencoder, config),
            core.train_jointly(small_model, digits, small_autoencoder, config),
            core.train_latent_prior(small_prior, digits, small_autoencoder, config),
        ):
            assert len(list(run)) == 1
        latents = small_autoencoder.encode_dataset(digits).tensors[0]
        noisy, _ = small_model.add_noise(digits.images, 0.5)
        small_model.denoise_with_latent(noisy, latents, 0.5, 2, eta=1.0, latent_noise=1.0)
        small_model.invert(digits.images, latents, 2, corrections=1, spacing="quadratic")
        small_model.generate(small_prior.refine(small_prior.sample_latents(2, guidance=2.0, num_steps=2)), 2)
        head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
        core.clue(latents[:2], head, steps=2, decoder=small_autoencoder.decode)
        with pytest.raises(AssertionError):
            latents.double()


@pytest.mark.parametrize("convert", [lambda m: m.double(), lambda m: m.bfloat16(), lambda m: m.to(torch.float16)])
def test_another_type_of_numbers_is_refused_with_a_hint(convert, small_model):
    with pytest.raises(TypeError, match="autocast"):
        convert(small_model)
    assert all(parameter.dtype == torch.float32 for parameter in small_model.parameters())
