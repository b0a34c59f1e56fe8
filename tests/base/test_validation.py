"""Entry points with every kind of wrong tensor: a right answer, or an error that says what was wanted.

And never a change of what is the caller's: the tensors, the random state, the default dtype, the thread count.
"""

import pytest
import torch
from conftest import SMALL, all_random

import diffae_core as core

GENERATOR = core.seeded(0)
IMAGES, NOISY = torch.rand(12, 1, 28, 28, generator=GENERATOR), torch.randn(12, 1, 28, 28, generator=GENERATOR)
LATENTS, TIMES, LABELS = torch.randn(12, 16, generator=GENERATOR), torch.linspace(0.1, 0.9, 12), torch.arange(12) % 10
PROBABILITIES = torch.randn(4, 12, 10, generator=GENERATOR).softmax(-1)
AUTOENCODER, MODEL = core.SimpleAutoencoder(16, device="cpu").eval(), all_random(core.DiffusionModel(**SMALL))
PRIOR = all_random(core.LatentPrior(16, 8, 1, 4, device="cpu"))
CLASSIFIER, HEAD = core.DigitClassifier(device="cpu").eval(), core.BayesianLastLayer(AUTOENCODER.encoder, 16)

# name -> (what is called, tensors that it takes)
ENTRIES = {
    "encode": (AUTOENCODER.encode, (IMAGES,)),
    "decode": (AUTOENCODER.decode, (LATENTS,)),
    "add_noise": (lambda x, t: MODEL.add_noise(x, t, core.seeded(0)), (IMAGES, TIMES)),
    "denoise_with_latent": (lambda x, z, t: MODEL.denoise_with_latent(x, z, t, 2), (NOISY, LATENTS, TIMES)),
    "denoise_once": (lambda x, t, z, s: MODEL.denoise_once(x, t, z, s), (NOISY, TIMES, LATENTS, TIMES)),
    "generate": (lambda z, x, s: MODEL.generate(z, 2, x_T=x, latent_noise=s), (LATENTS, NOISY, TIMES)),
    "invert": (lambda x, z: MODEL.invert(x, z, 2), (IMAGES, LATENTS)),
    "prior generate": (lambda z, y: PRIOR.generate(z, y, num_steps=2), (LATENTS, LABELS)),
    "prior invert": (lambda z, y: PRIOR.invert(z, y, num_steps=2), (LATENTS, LABELS)),
    "refine": (lambda z, y: PRIOR.refine(z, labels=y, num_steps=2, generator=core.seeded(0)), (LATENTS, LABELS)),
    "sample_latents": (lambda y: PRIOR.sample_latents(12, y, num_steps=2, generator=core.seeded(0)), (LABELS,)),
    "classify": (CLASSIFIER.classify, (IMAGES,)),
    "accuracy": (lambda x, y: torch.tensor(CLASSIFIER.accuracy(x, y)), (IMAGES, LABELS)),
    "sample_predict_z": (lambda z: HEAD.sample_predict_z(z, 3, core.seeded(0)), (LATENTS,)),
    "decompose_entropy": (core.decompose_entropy, (PROBABILITIES,)),
    "clue": (lambda z: core.clue(z, HEAD, num_steps=2)[0], (LATENTS,)),
    "class_directions": (core.class_directions, (LATENTS, LABELS)),
    "principal_directions": (lambda z: core.principal_directions(z, 3), (LATENTS,)),
    "loss_by_time": (
        lambda x, z: core.evaluation.loss_by_time(MODEL, x, z, TIMES[:2], core.seeded(0)),
        (IMAGES, LATENTS),
    ),
    "tile": (lambda x: torch.from_numpy(core.plotting.tile(x)), (IMAGES,)),
}
every_entry = pytest.mark.parametrize("name", ENTRIES)
pytestmark = pytest.mark.filterwarnings("ignore:images have values")


def with_one(value):
    def change(x):
        x = x.clone() if x.is_floating_point() else x.float()
        x.flatten()[0] = value
        return x

    return change


SAME = {  # another form of the same numbers: the answer must be the same
    "non-contiguous": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
    "requires_grad": lambda x: x.clone().requires_grad_(x.is_floating_point()),
}
WRONG = {  # an answer without NaN, or an error
    "float64": lambda x: x.double(),
    "half": lambda x: x.half(),
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


def tensors_of(answer):
    answer = answer if isinstance(answer, tuple | list) else (answer,)
    return [part.detach() for part in answer]


def changed_at_each_place(arguments, change):
    for place in range(len(arguments)):
        yield [change(x) if place == number else x for number, x in enumerate(arguments)]


@every_entry
def test_other_forms_of_the_same_numbers_give_the_same(name):
    function, arguments = ENTRIES[name]
    expected = tensors_of(function(*arguments))
    for form, change in SAME.items():
        for changed in changed_at_each_place(arguments, change):
            for found, wanted in zip(tensors_of(function(*changed)), expected, strict=True):
                torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4, msg=lambda text: f"{form}: {text}")  # noqa: B023


@every_entry
def test_a_right_answer_or_an_error_that_says_what_was_wanted(name):
    function, arguments = ENTRIES[name]
    for kind, change in WRONG.items():
        for place, changed in enumerate(changed_at_each_place(arguments, change)):
            try:
                found = tensors_of(function(*changed))
            except (TypeError, ValueError) as error:
                assert str(error).startswith("expected ") and len(str(error)) < 400 and "\n" not in str(error), kind
            else:
                assert kind != "complex", "complex numbers were taken for real ones"
                assert all(part.isfinite().all() for part in found), f"{kind}: NaN or infinity, at {place}"


def settings():
    return torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist()


@every_entry
def test_nothing_of_the_callers_is_changed(name):
    function, arguments = ENTRIES[name]
    copies, before = [x.clone() for x in arguments], settings()
    function(*arguments)
    assert settings() == before
    assert all(torch.equal(x, copy) for x, copy in zip(arguments, copies))


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: core.train_autoencoder(AUTOENCODER, wrong),
        lambda wrong: core.train_diffusion(MODEL, wrong, AUTOENCODER),
        lambda wrong: core.train_jointly(MODEL, wrong, AUTOENCODER),
        lambda wrong: core.train_latent_prior(PRIOR, wrong, AUTOENCODER),
        lambda wrong: core.train_classifier(CLASSIFIER, wrong),
    ],
)
def test_only_digits_are_taken_for_digits(call):
    for wrong in (IMAGES, AUTOENCODER, None, "train"):
        with pytest.raises(TypeError, match="^expected "):
            call(wrong)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield "^expected torch's default dtype to be float32, got float64: call torch.set_default_dtype"
    torch.set_default_dtype(torch.float32)


@every_entry
def test_another_default_dtype_is_named_where_weights_are_used(name, float64):
    function, arguments = ENTRIES[name]
    if name in ("decompose_entropy", "tile"):
        function(*arguments)
    else:
        with pytest.raises(TypeError, match=float64):
            function(*arguments)


def test_no_model_is_made_in_another_default_dtype(float64):
    for make in (core.SimpleAutoencoder, core.DiffusionModel.from_pretrained, core.LatentPrior):
        with pytest.raises(TypeError, match=float64):
            make(device="cpu")
    assert core.as_images(IMAGES).dtype == core.load_sample("test").images.dtype == torch.float32
