"""Every public function with every kind of wrong tensor: a right answer, or an error that says what was wanted.

And never a change of what is the caller's: the tensors, the random state, the default dtype, the thread count.
"""

import copy
import re
import warnings
from pathlib import Path

import pytest
import torch
from conftest import SMALL

import diffae_core as core


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


torch.manual_seed(0)
IMAGES = torch.rand(12, 1, 28, 28, generator=seeded())
NOISY = torch.randn(12, 1, 28, 28, generator=seeded(1))
LATENTS = torch.randn(12, 16, generator=seeded(2))
LABELS = torch.arange(12) % 10
FEATURES = torch.randn(40, 5, generator=seeded(3))
PROBABILITIES = torch.randn(4, 12, 10, generator=seeded(4)).softmax(-1)
AUTOENCODER = core.SimpleAutoencoder(16, "cpu").eval()
MODEL = core.DiffusionModel(**SMALL).eval()
for parameter in MODEL.parameters():  # a new one's last layers are zero, so that its latents would not matter
    torch.nn.init.normal_(parameter, std=0.1)
JUDGE = core.Judge("cpu").eval()
HEAD = core.BayesianLastLayer(AUTOENCODER.encoder, 16)
PRIOR = core.LatentPrior(16, 8, 1, 4, device="cpu")
DIGITS = core.load_sample("test").subset(core.spread(1000, 12))
TIMES = torch.linspace(0.1, 0.9, 12)
CODE = (LATENTS, NOISY)
FEW_STEPS = core.TrainingConfig(epochs=1, batch_size=4)


def halve(x_t, times, latents):
    return x_t / 2 + latents.mean(), x_t / 2


def train(make):
    """A training run's losses; what it has learnt is taken back."""
    models = (MODEL, HEAD, PRIOR)
    states = [{name: weight.clone() for name, weight in model.state_dict().items()} for model in models]
    try:
        return torch.tensor([record.loss for record in make()])
    finally:
        for model, state in zip(models, states):
            model.load_state_dict(state)
            model.eval()


def features_of(z, labels):
    """A TensorDataset of anything: torch's own would refuse some of it."""
    features = torch.utils.data.TensorDataset(LATENTS)
    features.tensors = (z, labels)
    return features


def normalised(model, mean, std):
    model = copy.deepcopy(model)
    model.normalise_latents(mean, std)
    return torch.cat([weight.flatten() for weight in model.state_dict().values()])


def drawn(figure):
    figure.canvas.draw()
    return torch.from_numpy(figure.axes[0].images[0].get_array().filled())


def bytes_of(content):
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


# name -> (function, tensors that it takes)
DOORS = {
    "encode": (AUTOENCODER.encode, (IMAGES,)),
    "decode": (AUTOENCODER.decode, (LATENTS,)),
    "autoencoder": (AUTOENCODER, (IMAGES,)),
    "add_noise": (lambda x: MODEL.add_noise(x, 0.5, seeded()), (IMAGES,)),
    "denoise_with_latent": (lambda x, z: MODEL.denoise_with_latent(x, z, 0.5, 2), (NOISY, LATENTS)),
    "generate": (lambda z: MODEL.generate(z, 2, generator=seeded()), (LATENTS,)),
    "generate from x_T": (lambda z, x: MODEL.generate(z, 2, x_T=x), (LATENTS, NOISY)),
    "invert": (lambda x, z: MODEL.invert(x, z, 2), (IMAGES, LATENTS)),
    "denoise_once": (lambda x, z: MODEL.denoise_once(x, 0.5, z), (NOISY, LATENTS)),
    "LatentDecoder": (core.LatentDecoder(MODEL, 2), (LATENTS,)),
    "judge": (JUDGE, (IMAGES,)),
    "judge.read": (JUDGE.read, (IMAGES,)),
    "sample_predict": (lambda x: HEAD.sample_predict(x, 3, seeded()), (IMAGES,)),
    "sample_predict_z": (lambda z: HEAD.sample_predict_z(z, 3, seeded()), (LATENTS,)),
    "decompose_entropy": (core.decompose_entropy, (PROBABILITIES,)),
    "clue": (lambda z: core.clue(z, HEAD, steps=2, num_samples=3)[0], (LATENTS,)),
    "edit": (lambda z: core.edit(z, torch.ones(16), 0.5), (LATENTS,)),
    "class_means": (lambda z: core.class_means(z, LABELS), (LATENTS,)),
    "class_directions": (lambda z: core.class_directions(z, LABELS), (LATENTS,)),
    "principal_directions": (lambda z: core.principal_directions(z, 3), (LATENTS,)),
    "frechet_distance": (core.frechet_distance, (FEATURES, FEATURES.flip(0) + 1)),
    "precision_recall": (core.precision_recall, (FEATURES, FEATURES.flip(0) + 1)),
    "nearest_distances": (core.nearest_distances, (FEATURES, FEATURES.flip(0) + 1)),
    "ssim": (core.ssim, (IMAGES, IMAGES.flip(0))),
    "loss_by_time": (lambda x, z: core.loss_by_time(MODEL, x, z, torch.tensor([0.3]), seeded()), (IMAGES, LATENTS)),
    "tile": (lambda x: torch.from_numpy(core.tile(x)), (IMAGES,)),
    "labelled_png": (lambda x: bytes_of(core.labelled_png({"row": x})), (IMAGES,)),
    "rows_figure": (lambda x: drawn(core.rows_figure({"row": x})), (IMAGES,)),
    "as_images": (core.as_images, (IMAGES,)),
    "Digits": (
        lambda *parts: core.Digits(parts[0], parts[1], "mine", parts[2]).images,
        (DIGITS.pixels, LABELS, LABELS),
    ),
    "add_noise at times": (lambda t: MODEL.add_noise(IMAGES, t, seeded()), (TIMES,)),
    "denoise_with_latent from times": (lambda t: MODEL.denoise_with_latent(NOISY, LATENTS, t, 2), (TIMES,)),
    "denoise_once at times": (lambda t: MODEL.denoise_once(NOISY, t, LATENTS), (TIMES,)),
    "loss_by_time at times": (lambda t: core.loss_by_time(MODEL, IMAGES, LATENTS, t, seeded()), (TIMES,)),
    "rates": (core.CosineSchedule().rates, (TIMES,)),
    "ddim_sample": (lambda x, t: core.ddim_sample(halve, x, LATENTS, t, 2), (NOISY, TIMES)),
    "ddim_invert": (lambda x: core.ddim_invert(halve, x, LATENTS, 2), (NOISY,)),
    "LatentDecoder from x_T": (lambda x: core.LatentDecoder(MODEL, 2, x)(LATENTS), (NOISY,)),
    "lerp": (lambda a, b: core.lerp(a, b, 0.3), (LATENTS, LATENTS.flip(0))),
    "slerp": (lambda a, b: core.slerp(a, b, 0.3), (NOISY, NOISY.flip(0))),
    "blend": (lambda z, x: core.blend(CODE, (z, x), 0.3), CODE),
    "blend from": (lambda z, x: core.blend((z, x), CODE, 0.3), CODE),
    "interpolate": (lambda z, x: core.interpolate((LATENTS[:1], NOISY[:1]), (z, x), 3), (LATENTS[1:2], NOISY[1:2])),
    "edit along": (lambda v: core.edit(LATENTS, v, 0.5), (LATENTS.flip(0),)),
    "class_means by labels": (lambda y: core.class_means(LATENTS, y), (LABELS,)),
    "class_directions by labels": (lambda y: core.class_directions(LATENTS, y), (LABELS,)),
    "percent_equal": (core.percent_equal, (LABELS, LABELS.flip(0))),
    "in_batches": (lambda x: core.in_batches(AUTOENCODER.encode, x), (IMAGES,)),
    "MixturePrior": (lambda z: core.MixturePrior(z).sample_latents(3, seeded()), (LATENTS,)),
    "normalise_latents": (
        lambda m, s: normalised(AUTOENCODER, m, s),
        (LATENTS[0], IMAGES[0, 0, 0, :16] + 1),
    ),
    "normalise_latents of the DDIM": (
        lambda m, s: normalised(MODEL, m, s),
        (LATENTS[0], IMAGES[0, 0, 0, :16] + 1),
    ),
    "train_diffusion": (lambda z: train(lambda: core.train_diffusion(MODEL, DIGITS, z, FEW_STEPS)), (LATENTS,)),
    "train_latent_prior": (lambda z: train(lambda: core.train_latent_prior(PRIOR, z, FEW_STEPS)), (LATENTS,)),
    "train_last_layer": (
        lambda z, y: train(lambda: core.train_last_layer(HEAD, features_of(z, y), FEW_STEPS)),
        (LATENTS, LABELS),
    ),
}


# What the table above leaves out, and why.
ELSEWHERE = {
    "formulas, which check nothing": {"noisy_image", "velocity", "from_velocity", "from_noise", "from_clean"},
    "inner networks, behind a model's doors": {"ConditionalUNet", "ResidualBlock", "TimeEmbedding"},
    "models, whose methods are above": {
        "SimpleAutoencoder",
        "DiffusionModel",
        "Judge",
        "LatentPrior",
        "BayesianLastLayer",
    },
    "made for others to read": {"Entropies", "Record", "Training"},
    "draws with tile, above": {"save_png"},
    "no tensors: tested with their modules": {
        *("TrainingConfig", "choose_device", "has_fast_bfloat16", "load_mnist", "load_sample", "read_digit"),
        *("join_processes", "is_first_process", "any_process", "write_whole", "step_times", "spread"),
        *("random_normal", "png_bytes", "save_figure", "quality_table"),
    },
    "takes a dataset: test_only_digits_are_taken_for_digits": {
        *("encode_all", "normalise_latents", "split_training", "train_autoencoder", "train_judge", "quality"),
    },
}


def test_every_public_name_is_tried_or_named_with_a_reason():
    table = Path(__file__).read_text().split("DOORS = {")[1].split("ELSEWHERE = {")[0]
    elsewhere = set().union(*ELSEWHERE.values())
    assert elsewhere == {name for name in core.__all__ if not re.search(rf"core\.{name}\b", table)}


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: core.encode_all(AUTOENCODER, wrong),
        lambda wrong: core.normalise_latents(AUTOENCODER, wrong),
        lambda wrong: core.split_training(wrong),
        lambda wrong: core.train_autoencoder(AUTOENCODER, wrong),
        lambda wrong: core.train_diffusion(MODEL, wrong, LATENTS),
        lambda wrong: core.train_judge(JUDGE, wrong),
        lambda wrong: core.quality(AUTOENCODER, MODEL, JUDGE, wrong, DIGITS),
        lambda wrong: core.quality(AUTOENCODER, MODEL, JUDGE, DIGITS, wrong),
    ],
)
@pytest.mark.parametrize("wrong", [IMAGES, AUTOENCODER, None, "train"], ids=["images", "a model", "None", "a name"])
def test_only_digits_are_taken_for_digits(call, wrong):
    with pytest.raises(TypeError, match="expected Digits, got "):
        call(wrong)


def non_contiguous(x):
    return torch.stack([x, x], dim=-1)[..., 0]


def with_one(value):
    def change(x):
        x = x.clone() if x.is_floating_point() else x.float()
        x.flatten()[0] = value
        return x

    return change


SAME = {  # another form of the same numbers: the answer must be the same
    "non-contiguous": non_contiguous,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else non_contiguous(x),
    "requires_grad": lambda x: x.clone().requires_grad_(x.is_floating_point()),
}
WRONG = {  # an answer without NaN, or an error
    "float64": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "int64": lambda x: x.long(),
    "int32": lambda x: x.int(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "NaN": with_one(float("nan")),
    "infinity": with_one(float("inf")),
    "one dimension less": lambda x: x[0],
    "one dimension more": lambda x: x[None],
    "none of it": lambda x: x[:0],
    "one": lambda x: x[:1],
    "one too many": lambda x: torch.cat([x, x[:1]]),
    "negative": lambda x: -x,
    "narrower": lambda x: x[..., :-1],
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "None": lambda x: None,
}


def settings():
    return torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist()


def tensors_of(answer):
    answer = answer if isinstance(answer, tuple | list) else (answer,)
    return [torch.as_tensor(part).detach() for part in answer]


@pytest.mark.filterwarnings("ignore:images have values")
@pytest.mark.parametrize("name", DOORS)
def test_other_forms_of_the_same_numbers_give_the_same(name):
    function, arguments = DOORS[name]
    expected = tensors_of(function(*arguments))
    for form, change in SAME.items():
        for place in range(len(arguments)):
            changed = [change(x) if place == number else x for number, x in enumerate(arguments)]
            for found, wanted in zip(tensors_of(function(*changed)), expected, strict=True):
                torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4, msg=lambda text: f"{form}: {text}")  # noqa: B023


@pytest.mark.filterwarnings("ignore:images have values")
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", DOORS)
def test_a_right_answer_or_an_error_that_says_what_was_wanted(name, kind):
    function, arguments = DOORS[name]
    for place in range(len(arguments)):
        changed = [WRONG[kind](x) if place == number else x for number, x in enumerate(arguments)]
        try:
            found = tensors_of(function(*changed))
        except (TypeError, ValueError) as error:
            assert str(error).startswith("expected "), error
            assert len(str(error)) < 400 and "\n" not in str(error)
        else:
            assert kind != "complex", "complex numbers were taken for real ones"
            assert all(part.isfinite().all() for part in found), f"NaN or infinity, without a word, at {place}"


PAIRS = ("generate from x_T", "invert", "denoise_with_latent", "denoise_once", "ssim", "loss_by_time")
PAIRS += ("lerp", "slerp", "blend", "blend from", "percent_equal", "Digits", "train_diffusion", "train_last_layer")


@pytest.mark.parametrize("kind", ["none of it", "one", "one too many"])
@pytest.mark.parametrize("name", PAIRS)
def test_counts_that_do_not_match_are_refused(name, kind):
    """They would be stretched to fit each other, without a word."""
    function, arguments = DOORS[name]
    for place in range(len(arguments)):
        with pytest.raises(ValueError, match="^expected "):
            function(*(WRONG[kind](x) if place == number else x for number, x in enumerate(arguments)))


@pytest.mark.parametrize(
    "call",
    [
        lambda number: core.lerp(LATENTS, LATENTS, number),
        lambda number: core.slerp(NOISY, NOISY, number),
        lambda number: core.blend(CODE, CODE, number),
        lambda number: core.interpolate((LATENTS[:1], NOISY[:1]), (LATENTS[:1], NOISY[:1]), number),
        lambda number: core.edit(LATENTS, LATENTS, number),
        lambda number: core.tile(IMAGES, gap=number),
        lambda number: core.labelled_png({"row": IMAGES}, zoom=number),
        lambda number: core.ddim_sample(halve, NOISY, LATENTS, 1.0, number),
        lambda number: core.ddim_sample(halve, NOISY, LATENTS, 1.0, 2, number),
        lambda number: core.ddim_sample(halve, NOISY, LATENTS, number, 2),
        lambda number: core.ddim_invert(halve, NOISY, LATENTS, number),
        lambda number: core.ddim_invert(halve, NOISY, LATENTS, 1, number),
        lambda number: core.step_times(number),
        lambda number: core.spread(number, 3),
        lambda number: core.encode_all(AUTOENCODER, DIGITS, number),
        lambda number: core.in_batches(AUTOENCODER.encode, IMAGES, number),
        lambda number: AUTOENCODER.encode_dataset(DIGITS, number),
        lambda number: JUDGE.read(IMAGES, number),
        lambda number: HEAD.sample_predict_z(LATENTS, number),
        lambda number: PRIOR.sample_latents(number),
        lambda number: PRIOR.sample_latents(2, num_steps=number),
        lambda number: core.principal_directions(LATENTS, number),
        lambda number: core.precision_recall(FEATURES, FEATURES, number),
        lambda number: core.MixturePrior(LATENTS, number),
        lambda number: core.clue(LATENTS, HEAD, steps=number),
        lambda number: core.clue(LATENTS, HEAD, distance_weight=number),
    ],
)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), "three", None, True, LATENTS, [2]], ids=repr)
def test_numbers_that_are_none_are_refused(call, number):
    with pytest.raises(ValueError, match="^expected ") as error:
        call(number)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_walk_keeps_its_precision(dtype):
    x, seen = NOISY.to(dtype), set()

    def denoiser(x_t, times, classes):
        seen.update((x_t.dtype, times.dtype, classes.dtype))
        return x_t / 2, x_t / 2

    assert core.ddim_sample(denoiser, x, LABELS, 1.0, 3, 0.5).dtype == dtype
    assert core.ddim_invert(denoiser, x, LABELS, 3, 1).dtype == dtype
    assert seen == {dtype, torch.int64}, "what the denoiser is given, class numbers for latents among it"


@pytest.mark.parametrize(
    "move",
    [
        lambda share: core.lerp(LATENTS, LATENTS + 1, share),
        lambda share: core.slerp(NOISY, NOISY.flip(0), share),
        lambda share: core.edit(LATENTS, torch.ones(16), share),
    ],
)
def test_a_share_keeps_its_gradient(move):
    share = torch.tensor(0.3, requires_grad=True)
    move(share).sum().backward()
    assert share.grad.isfinite() and share.grad != 0


@pytest.mark.filterwarnings("ignore:images have values")
@pytest.mark.parametrize("name", DOORS)
def test_nothing_of_the_callers_is_changed(name):
    function, arguments = DOORS[name]
    copies, before = [x.clone() for x in arguments], settings()
    function(*arguments)
    assert settings() == before
    assert all(torch.equal(x, copy) for x, copy in zip(arguments, copies))


def test_a_thousand_at_once_are_as_one_by_one():
    images, latents = torch.rand(1000, 1, 28, 28), torch.randn(1000, 16)
    torch.testing.assert_close(AUTOENCODER.encode(images)[[7]], AUTOENCODER.encode(images[[7]]), atol=1e-4, rtol=1e-4)
    x_T = torch.randn(1000, 1, 28, 28)
    drawn, alone = MODEL.generate(latents, 2, x_T=x_T), MODEL.generate(latents[[7]], 2, x_T=x_T[[7]])
    torch.testing.assert_close(drawn[[7]], alone, atol=1e-4, rtol=1e-4)


def test_matplotlib_is_left_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        core.rows_figure({"digits": IMAGES}, "title")
    assert dict(matplotlib.rcParams) == before
