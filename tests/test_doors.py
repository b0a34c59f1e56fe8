"""Every public function with every kind of wrong tensor: a right answer, or an error that says what was wanted.

And never a change of what is the caller's: the tensors, the random state, the default dtype, the thread count.
"""

import warnings

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
}


def non_contiguous(x):
    return torch.stack([x, x], dim=-1)[..., 0]


def with_one(value):
    def change(x):
        x = x.clone()
        x.flatten()[0] = value
        return x

    return change


SAME = {  # another form of the same numbers: the answer must be the same
    "non-contiguous": non_contiguous,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else non_contiguous(x),
    "requires_grad": lambda x: x.clone().requires_grad_(),
}
WRONG = {  # an answer without NaN, or an error
    "float64": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "int64": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "NaN": with_one(float("nan")),
    "infinity": with_one(float("inf")),
    "one dimension less": lambda x: x[0],
    "one dimension more": lambda x: x[None],
    "none of it": lambda x: x[:0],
    "one": lambda x: x[:1],
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
