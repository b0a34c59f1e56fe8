"""Every public entry point on a CUDA and on an MPS device: what it computes there is what it computes on the CPU.

No real device is needed: tests/fake_device.py simulates both. tests/gpu.sh names a real device in DIFFAE_TEST_DEVICE;
its rounding differs from the CPU's. Not run on any device: export_onnx, which exports copies on the CPU.
"""

import functools
import importlib
import io
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, all_random
from fake_device import FakeDevice
from PIL import Image, ImageChops

import diffae_core as core

DIGITS = core.load_sample("test").spaced(20)
MIRRORED = replace(DIGITS, pixels=DIGITS.pixels.flip(-1))
LABELS = torch.arange(4)
LATENTS = torch.randn(4, 16, generator=core.seeded(0))
NOISES = torch.randn(4, 1, 28, 28, generator=core.seeded(1))
ONE_EPOCH = core.TrainingConfig(epochs=1, batch_size=10, bfloat16=False)


REAL = [os.environ["DIFFAE_TEST_DEVICE"]] if "DIFFAE_TEST_DEVICE" in os.environ else []
ROUNDING = {"rtol": 1e-3, "atol": 1e-2} if REAL else {}


@pytest.fixture(params=["cuda", "mps", *REAL])
def device(request, monkeypatch):
    if request.param in REAL:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield torch.device(request.param)
        return
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: True)  # torch 2.6 asks a real Mac
    with FakeDevice(request.param) as fake:
        yield fake.device


def small_models(device="cpu") -> SimpleNamespace:
    """The same models on any device."""
    torch.manual_seed(0)
    autoencoder = core.SimpleAutoencoder(16, device="cpu").eval()
    models = {
        "autoencoder": autoencoder,
        "model": all_random(core.DiffusionModel(**SMALL)),
        "prior": all_random(core.LatentPrior(16, 16, 2, 8, device="cpu")),
        "classifier": core.DigitClassifier(device="cpu").eval(),
        "head": core.BayesianLastLayer(autoencoder.encoder, 16),
    }
    torch.nn.init.normal_(models["head"].mean, generator=core.seeded(2))
    return SimpleNamespace(**{name: model.to(device) for name, model in models.items()})


def denoiser(m):
    return lambda x, times, latents: m.model.denoise_once(x, times, latents)


# name -> what is called, with models, images, latents, noises x_T and labels
ON_THE_MODELS_DEVICE = {
    "encode": lambda m, x, z, x_T, y: m.autoencoder.encode(x),
    "decode": lambda m, x, z, x_T, y: m.autoencoder.decode(z),
    "autoencoder": lambda m, x, z, x_T, y: m.autoencoder(x),
    "add_noise": lambda m, x, z, x_T, y: m.model.add_noise(x, 0.7, core.seeded(0)),
    "add_noise, a time for each": lambda m, x, z, x_T, y: m.model.add_noise(x, z[:, 0].sigmoid(), core.seeded(0)),
    "denoise_with_latent": lambda m, x, z, x_T, y: m.model.denoise_with_latent(x_T, z, 0.7, 3),
    "denoise_once": lambda m, x, z, x_T, y: m.model.denoise_once(x_T, 0.5, z, latent_noise=z[:, 0].abs()),
    "generate": lambda m, x, z, x_T, y: m.model.generate(z, 3, eta=1.0, generator=core.seeded(0), latent_noise=1.0),
    "generate from x_T": lambda m, x, z, x_T, y: m.model.generate(z, 3, x_T=x_T, spacing="quadratic"),
    "invert": lambda m, x, z, x_T, y: m.model.invert(x, z, 3, corrections=1),
    "generate from one x_T": lambda m, x, z, x_T, y: m.model.generate(z, 3, x_T=x_T[:1]),
    "prior.generate": lambda m, x, z, x_T, y: m.prior.generate(z, y, guidance=1.5, num_steps=3),
    "prior.invert": lambda m, x, z, x_T, y: m.prior.invert(z, y, num_steps=3),
    "sample_latents": lambda m, x, z, x_T, y: m.prior.sample_latents(
        4, y, guidance=2.0, num_steps=3, generator=core.seeded(0)
    ),
    "sample_latents of any class": lambda m, x, z, x_T, y: m.prior.sample_latents(
        4, num_steps=3, generator=core.seeded(0)
    ),
    "refine": lambda m, x, z, x_T, y: m.prior.refine(z, 0.5, labels=y, num_steps=3, generator=core.seeded(0)),
    "refine without labels": lambda m, x, z, x_T, y: m.prior.refine(z, num_steps=3, generator=core.seeded(0)),
    "classifier": lambda m, x, z, x_T, y: m.classifier(x),
    "sample_predict": lambda m, x, z, x_T, y: m.head.sample_predict(x, 3, core.seeded(0)),
    "sample_predict_z": lambda m, x, z, x_T, y: m.head.sample_predict_z(z, 3, core.seeded(0)),
    "head": lambda m, x, z, x_T, y: m.head(z),
    "ddim_invert": lambda m, x, z, x_T, y: core.ddim_invert(
        denoiser(m), (2 * x - 1).to(m.model.device), core.step_times(3), z
    ),
    "ddim_sample": lambda m, x, z, x_T, y: core.ddim_sample(
        denoiser(m), x_T.to(m.model.device), core.step_times(3), z, eta=1.0, generator=core.seeded(0)
    ),
}
ON_THE_INPUTS_DEVICE = {
    "stroke_statistics": lambda m, x, z, x_T, y: core.metrics.stroke_statistics(x),
    "class_means": lambda m, x, z, x_T, y: core.class_means(z, y),
    "principal_directions": lambda m, x, z, x_T, y: core.principal_directions(z, 2).abs(),
    "edit": lambda m, x, z, x_T, y: core.edit(z, core.class_directions(z, y)[2], 1.5),
    "turn": lambda m, x, z, x_T, y: core.turn(z, 0.8, core.seeded(5)),
    "lerp": lambda m, x, z, x_T, y: core.lerp(z, z.flip(0), 0.3),
    "slerp": lambda m, x, z, x_T, y: core.slerp(x_T, x_T.flip(0), 0.3),
    "clue": lambda m, x, z, x_T, y: core.clue(z, m.head, num_steps=3),
    "clue of the picture": lambda m, x, z, x_T, y: core.clue(z, m.head, num_steps=2, decoder=m.autoencoder.decode),
    "decompose_entropy": lambda m, x, z, x_T, y: core.decompose_entropy(z.softmax(-1)[None]),
}
ON_THE_CPU = {
    "encode_dataset": lambda m, x, z, x_T, y: m.autoencoder.encode_dataset(DIGITS).tensors,
    "encode_dataset of pairs": lambda m, x, z, x_T, y: m.autoencoder.encode_dataset([*zip(x, y)]).tensors,
    "class_directions": lambda m, x, z, x_T, y: core.class_directions(z, y),
    "classify": lambda m, x, z, x_T, y: m.classifier.classify(x),
    "accuracy": lambda m, x, z, x_T, y: torch.tensor(m.classifier.accuracy(x, y)),
    "in_batches": lambda m, x, z, x_T, y: core.in_batches(m.autoencoder.decode, z, 3),
    "loss_by_time": lambda m, x, z, x_T, y: core.evaluation.loss_by_time(
        m.model, x, z, z[0].sigmoid()[:3], core.seeded(0)
    ),
    "frechet_distance": lambda m, x, z, x_T, y: torch.tensor(core.metrics.frechet_distance(z, 2 * z)),
    "precision_recall": lambda m, x, z, x_T, y: torch.tensor(core.metrics.precision_recall(z, 2 * z, neighbours=2)),
    "nearest_distances": lambda m, x, z, x_T, y: core.metrics.nearest_distances(z, 2 * z),
    "quality": lambda m, x, z, x_T, y: torch.tensor(
        [*core.quality(m.autoencoder, m.model, m.classifier, MIRRORED, DIGITS).values()]
    ),
    "faint_share": lambda m, x, z, x_T, y: torch.tensor(core.metrics.faint_share(x)),
    "grey_per_ink": lambda m, x, z, x_T, y: torch.tensor(core.metrics.grey_per_ink(x)),
    "tile": lambda m, x, z, x_T, y: torch.from_numpy(core.plotting.tile(x)),
    "labelled_png": lambda m, x, z, x_T, y: torch.frombuffer(bytearray(core.labelled_png({"": x})), dtype=torch.uint8),
    "as_images": lambda m, x, z, x_T, y: core.as_images((255 * x).byte()).cpu(),
    "Digits.from_arrays": lambda m, x, z, x_T, y: core.Digits.from_arrays(x, y).pixels,
}
ENTRIES = ON_THE_MODELS_DEVICE | ON_THE_INPUTS_DEVICE | ON_THE_CPU


def tensors_of(answer):
    parts = answer if isinstance(answer, tuple) else (answer,)
    parts = [part for part in parts for part in (part.values() if isinstance(part, dict) else [part])]
    return [part.detach() for part in parts]


@functools.cache
def models_on_the_cpu() -> SimpleNamespace:
    return small_models()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_point_gives_what_it_gives_on_the_cpu(name, device):
    inputs = DIGITS.images[:4], LATENTS, NOISES, LABELS
    wanted = tensors_of(ENTRIES[name](models_on_the_cpu(), *inputs))
    models = small_models(device)
    for place in (device, torch.device("cpu")):  # where the inputs are
        answers = tensors_of(ENTRIES[name](models, *(values.to(place) for values in inputs)))
        expected_device = torch.device("cpu") if name in ON_THE_CPU else device
        expected_device = place if name in ON_THE_INPUTS_DEVICE else expected_device
        for answer, same in zip(answers, wanted, strict=True):
            assert answer.device == expected_device
            torch.testing.assert_close(answer.cpu(), same, **ROUNDING)


TRAININGS = {
    "train_autoencoder": lambda m: core.train_autoencoder(m.autoencoder, DIGITS, ONE_EPOCH),
    "train_diffusion": lambda m: core.train_diffusion(m.model, DIGITS, m.autoencoder, ONE_EPOCH),
    "train_jointly": lambda m: core.train_jointly(m.model, DIGITS, m.autoencoder, ONE_EPOCH),
    "train_latent_prior": lambda m: core.train_latent_prior(m.prior, DIGITS, m.autoencoder, ONE_EPOCH),
    "train_classifier": lambda m: core.train_classifier(m.classifier, DIGITS, ONE_EPOCH),
    "train_last_layer": lambda m: core.train_last_layer(m.head, m.autoencoder.encode_dataset(DIGITS), ONE_EPOCH),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_on_the_device_goes_on_from_its_file_on_the_cpu(name, device, tmp_path):
    wanted = TRAININGS[name](small_models())
    losses = [record.loss for record in wanted]
    run = TRAININGS[name](small_models(device))
    steps = iter(run)
    assert next(steps).loss_tensor.device == device
    run.save(tmp_path / "run.pt")
    next(steps)
    assert next(steps, None) is None and run.model.device == device
    resumed = TRAININGS[name](small_models())
    resumed.resume(tmp_path / "run.pt")
    assert [record.loss for record in resumed] == pytest.approx(losses[1:], rel=ROUNDING.get("rtol"))
    for trained in (run, resumed):
        for weight, same in zip(trained.model.state_dict().values(), wanted.model.state_dict().values()):
            torch.testing.assert_close(weight.cpu(), same, **ROUNDING)


def test_another_machines_latents_differ_by_rounding_and_its_run_is_resumed(tmp_path, monkeypatch):
    runs = {name: TRAININGS[name](small_models()) for name in ("train_diffusion", "train_latent_prior")}
    exact = core.SimpleAutoencoder.encode
    monkeypatch.setattr(core.SimpleAutoencoder, "encode", lambda self, images: exact(self, images) * (1 + 1e-6))
    for name, run in runs.items():
        run.save(tmp_path / "run.pt")
        TRAININGS[name](small_models()).resume(tmp_path / "run.pt")


def test_a_saved_model_of_the_device_is_loaded_on_the_cpu(device, tmp_path):
    on_device = small_models(device)
    for name in ("autoencoder", "model", "prior", "classifier"):
        model = getattr(on_device, name)
        model.save_checkpoint(tmp_path / "model.pt")
        loaded = type(model).from_pretrained(tmp_path / "model.pt", device="cpu")
        for weight, same in zip(model.state_dict().values(), loaded.state_dict().values()):
            assert weight.device == device and torch.equal(weight.cpu(), same)


def test_the_demo_on_the_device(device, tmp_path):
    m = small_models(device)
    for path in core.Demo(m.autoencoder, m.model, m.prior, DIGITS, num_steps=2).save(tmp_path):
        assert path.stat().st_size > 1000


PANELS = {
    "BlendPanel": lambda kind, m: kind(m.autoencoder, DIGITS),
    "NoisePanel": lambda kind, m: kind(DIGITS),
    "DenoiserPanel": lambda kind, m: kind(m.autoencoder, m.model, DIGITS),
    "FilmstripPanel": lambda kind, m: kind(m.autoencoder, m.model, DIGITS),
    "InterpolationPanel": lambda kind, m: kind(m.autoencoder, m.model, DIGITS, m.prior),
    "CluePanel": lambda kind, m: kind(m.autoencoder, m.model, m.head, DIGITS),
    "Playground": lambda kind, m: kind(m.autoencoder, m.model, DIGITS, DIGITS, m.prior),
}


@pytest.mark.parametrize("name", PANELS)
def test_a_panels_picture_on_the_device(name, device):
    panels = importlib.import_module("diffae_core.panels")  # they need more packages than the rest
    kind = getattr(panels, name)
    panel, same = (PANELS[name](kind, small_models(place)) for place in (device, "cpu"))
    assert panel.error is None
    pictures = [Image.open(io.BytesIO(one.draw(preview=True, **one.state))).convert("RGB") for one in (panel, same)]
    difference = np.asarray(ImageChops.difference(*pictures))
    assert difference.mean() < 1 if REAL else not difference.any()


def test_the_fake_device_refuses_what_a_real_one_refuses(device):
    one = torch.zeros(3, device=device)
    calls = [
        lambda: one + torch.ones(3),
        lambda: one * torch.ones(1),
        lambda: one.numpy(),
        lambda: torch.ones(3)[one.long()],
        lambda: torch.randn(3, device=device, generator=core.seeded(0)),
        lambda: torch.nn.functional.linear(one, torch.ones(3, 3)),
    ]
    for call in calls + [lambda: one.double()] * (device.type == "mps"):
        with pytest.raises((RuntimeError, TypeError)):
            call()
    assert (one * torch.tensor(2.0)).device == device and one[torch.tensor([0])].device == device


@pytest.mark.parametrize("name", TRAININGS)
def test_another_default_device_changes_nothing(name):
    wanted = [record.loss for record in TRAININGS[name](small_models())]
    models = small_models()
    with torch.device("meta"):
        assert [record.loss for record in TRAININGS[name](models)] == wanted


def test_data_stays_on_the_cpu_whatever_the_default_device(tmp_path):
    digits = core.load_sample("test").spaced(20)
    names = [f"class {label}" for label in digits.labels.tolist()]
    np.savez(tmp_path / "own.npz", images=digits.pixels[:, 0].numpy(), labels=names)
    Image.fromarray(255 - digits.pixels[3, 0].numpy()).resize((90, 90)).save(tmp_path / "digit.png")

    def results():
        own = core.load_digits(tmp_path / "own.npz")[0]
        chosen = [digits.subset(index).labels for index in ([0, 1], np.arange(3), [True] * 20, [])]
        read = [core.read_digit(tmp_path / "digit.png", like) for like in (digits, None)]
        return [own.labels, own.pixels, *chosen, *read]

    wanted = results()
    with torch.device("meta"):
        for result, expected in zip(results(), wanted):
            assert result.device.type == "cpu" and torch.equal(result, expected)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_cuda_comes_before_mps_and_the_cpu_last(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert core.choose_device() == core.choose_device("auto") == torch.device(best)
    assert core.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="expected a device from cuda:0 to cuda:0" if cuda else "expected a device"):
        core.choose_device("cuda:1")
