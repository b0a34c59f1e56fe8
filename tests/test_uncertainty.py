"""The Bayesian last layer, the entropies and CLUE: their mathematics on small models, their use on shipped weights."""

import math

import pytest
import torch
import vbll
from conftest import SMALL
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal, kl_divergence
from torch.utils.data import TensorDataset
from torchvision.transforms import functional as transforms

import diffae_core as core


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def small_head(small_autoencoder):
    head = core.BayesianLastLayer(small_autoencoder.encoder, latent_dim=16)
    torch.nn.init.normal_(head.mean, std=0.5, generator=seeded(1))
    return head


@pytest.fixture(scope="module")
def autoencoder():
    return core.SimpleAutoencoder.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def features(autoencoder):
    return autoencoder.encode_dataset(core.load_sample("train"))


@pytest.fixture(scope="module")
def head(autoencoder, features):
    """A head on the 4,000 digits of the sample: with fewer steps than on the whole set."""
    torch.manual_seed(0)
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, features):
        pass
    return head


@pytest.fixture(scope="module")
def held_out(autoencoder):
    return autoencoder.encode_dataset(core.load_sample("test")).tensors


def test_encode_dataset_keeps_order_types_and_training_mode(autoencoder, small_autoencoder):
    digits = core.load_sample("test").subset(slice(0, 23))
    random_state = torch.get_rng_state()
    found = autoencoder.encode_dataset(digits, batch_size=5)
    assert torch.equal(torch.get_rng_state(), random_state), "the caller's random numbers were used"
    assert isinstance(found, TensorDataset) and [tensor.dtype for tensor in found.tensors] == [
        torch.float32,
        torch.int64,
    ]
    with torch.no_grad():
        assert torch.allclose(found.tensors[0], autoencoder.encode(digits.images), atol=1e-5)
    assert torch.equal(found.tensors[1], digits.labels)
    arrays = autoencoder.encode_dataset(digits, device="cpu", as_numpy=True)
    for array, tensor in zip(arrays, found.tensors):
        torch.testing.assert_close(torch.from_numpy(array), tensor, atol=1e-5, rtol=1e-5)
    assert not found.tensors[0].requires_grad and not autoencoder.training
    small_autoencoder.train()
    empty = small_autoencoder.encode_dataset(digits.subset(slice(0, 0)))
    assert empty.tensors[0].shape == (0, 16) and small_autoencoder.training


def test_gradients_reach_z_through_encode_decode_and_the_latent_decoder(small_autoencoder, small_model):
    images = core.load_sample("test").images[:3].requires_grad_()
    small_autoencoder.encode(images).sum().backward()
    assert images.grad.abs().sum() > 0
    decoders = [small_autoencoder.decode, core.LatentDecoder(small_model, 3, differentiable=True)]
    for decoder in decoders:
        z = torch.randn(3, 16, generator=seeded(), requires_grad=True)
        decoder(z).sum().backward()
        assert z.grad.shape == z.shape and z.grad.isfinite().all() and z.grad.abs().sum() > 0
    assert not core.LatentDecoder(small_model, 3)(z).requires_grad
    with torch.no_grad():
        assert not decoders[1](z).requires_grad


@pytest.mark.parametrize("label", ["seven", 0.5, torch.tensor([1, 0]) > 0, None])
def test_a_dataset_without_whole_number_labels_is_refused(small_autoencoder, label):
    image = torch.rand(1, 28, 28)
    dataset = [image] * 3 if label is None else [(image, label)] * 3
    with pytest.raises(TypeError, match="expected pairs of an image and a whole number"):
        small_autoencoder.encode_dataset(dataset, batch_size=2)
    assert not small_autoencoder.training


def test_the_latent_decoder_is_generate_with_the_noise_held(small_model):
    z, x_T = torch.randn(4, 16, generator=seeded()), torch.randn(1, 1, 28, 28, generator=seeded(5))
    decoder = core.LatentDecoder(small_model, 4, x_T, "quadratic")
    expected = small_model.generate(z, 4, x_T=x_T.expand(4, -1, -1, -1), spacing="quadratic")
    assert torch.equal(decoder(z), expected) and torch.equal(decoder(z), decoder(z))
    assert torch.allclose(decoder(z[2:3]), decoder(z)[2:3], atol=1e-5), "the noise is the same for all"
    assert decoder.eval() is decoder and isinstance(decoder, torch.nn.Module)
    own = core.LatentDecoder(small_model, 4, torch.randn(4, 1, 28, 28, generator=seeded()))
    assert own(z).shape == (4, 1, 28, 28)
    with pytest.raises(ValueError, match="expected latents"):
        own(z[:3])
    with pytest.raises(ValueError, match="expected noisy images"):
        core.LatentDecoder(small_model, 4, torch.randn(28, 28))


def test_predictions_are_probabilities_and_the_seed_decides(small_head):
    images = core.load_sample("test").images[:5]
    found = small_head.sample_predict(images, 7, seeded())
    assert found.shape == (7, 5, 10) and found.dtype == torch.float32
    assert torch.allclose(found.sum(-1), torch.ones(7, 5), atol=1e-5)
    assert torch.equal(found, small_head.sample_predict(images, 7, seeded()))
    assert not torch.equal(found, small_head.sample_predict(images, 7, seeded(1)))
    z = torch.randn(5, 16, generator=seeded(), requires_grad=True)
    core.decompose_entropy(small_head.sample_predict_z(z, 3, seeded())).total.sum().backward()
    assert z.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="expected latents"):
        small_head.sample_predict_z(torch.randn(5, 17))
    with pytest.raises(ValueError, match="prior_sigma"):
        core.BayesianLastLayer(torch.nn.Identity(), 16, prior_sigma=0)


def test_the_kl_is_that_of_torch_distributions(small_head):
    std = torch.nn.functional.softplus(small_head.raw_std)
    expected = kl_divergence(Normal(small_head.mean, std), Normal(torch.tensor(0.0), torch.tensor(0.1))).sum()
    assert torch.allclose(small_head.kl(), expected, rtol=1e-5)


def test_without_data_the_posterior_becomes_the_prior(small_autoencoder):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16, prior_sigma=0.3)
    optimizer = torch.optim.Adam([head.mean, head.raw_std], 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        head.kl().backward()
        optimizer.step()
    std = torch.nn.functional.softplus(head.raw_std)
    assert head.kl() < 0.1 and torch.allclose(std, torch.full_like(std, 0.3), atol=0.01)


def test_training_leaves_the_backbone_alone(small_autoencoder):
    digits = core.load_sample("train").subset(slice(0, 400))
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
    before = {name: weight.clone() for name, weight in small_autoencoder.state_dict().items()}
    config = core.TrainingConfig(epochs=5, batch_size=50, learning_rate=1e-2, weight_decay=0)
    losses = [record.loss for record in core.train_last_layer(head, small_autoencoder.encode_dataset(digits), config)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(torch.equal(weight, before[name]) for name, weight in small_autoencoder.state_dict().items())


def test_total_entropy_is_aleatoric_plus_epistemic():
    probabilities = torch.randn(20, 6, 10, generator=seeded()).mul(3).softmax(-1)
    total, aleatoric, epistemic = core.decompose_entropy(probabilities)
    assert torch.allclose(total, aleatoric + epistemic, atol=1e-6) and (epistemic >= -1e-6).all()
    assert torch.allclose(total, torch.special.entr(probabilities.mean(0)).sum(-1), atol=1e-5)
    certain = torch.eye(10).expand(3, 10, 10)
    assert all(entropy.abs().max() < 1e-6 for entropy in core.decompose_entropy(certain))
    torn = torch.stack([torch.eye(2), torch.eye(2).flip(0)])  # each draw is sure, and they disagree
    assert torch.allclose(core.decompose_entropy(torn).epistemic, torch.full((2,), math.log(2)), atol=1e-6)
    for wrong in (torch.rand(10, 10), torch.rand(2, 3, 10) + 1, torch.tensor([[[1.5, -0.5]]])):
        with pytest.raises(ValueError, match="expected probabilities"):
            core.decompose_entropy(wrong)


def test_clue_makes_uncertain_digits_certain(head, held_out):
    z, _ = held_out
    uncertain = core.decompose_entropy(head.sample_predict_z(z, 100, seeded())).total.topk(40).indices
    before = z[uncertain].clone()
    with torch.no_grad():  # a caller's mode must not matter
        found, history = core.clue(z[uncertain], head, steps=100)
    assert torch.equal(z[uncertain], before) and not found.requires_grad
    assert history["entropy"].shape == history["distance"].shape == (101, 40)
    assert torch.equal(history["latents"][0], before) and torch.equal(history["latents"][-1], found)
    assert (history["entropy"][-1] < history["entropy"][0] - 0.1).float().mean() >= 0.95
    assert torch.equal(found, core.clue(z[uncertain], head, steps=100)[0])


@pytest.mark.parametrize("through_pixels", [False, True])
def test_clue_goes_less_far_as_distance_weighs_more(head, held_out, autoencoder, through_pixels):
    z, _ = held_out
    uncertain = core.decompose_entropy(head.sample_predict_z(z, 100, seeded())).total.topk(20).indices
    weights = (0.001, 0.01, 0.1) if through_pixels else (0.01, 0.1, 1.0)
    decoder = autoencoder.decoder if through_pixels else None
    away = [
        core.clue(z[uncertain], head, distance_weight=weight, decoder=decoder, steps=60)[1]["distance"][-1].mean()
        for weight in weights
    ]
    assert away[0] > away[1] > away[2]


def test_clue_asked_of_pictures_makes_the_pictures_certain(head, held_out, autoencoder):
    z, _ = held_out
    uncertain = core.decompose_entropy(head.sample_predict_z(z, 100, seeded())).total.topk(20).indices
    settings = {"decoder": autoencoder.decoder, "steps": 60}
    left = {}
    for of_picture in (False, True):
        found, history = core.clue(z[uncertain], head, of_picture=of_picture, **settings)
        with torch.no_grad():
            pictures = autoencoder.decode(found)
            left[of_picture] = core.decompose_entropy(head.sample_predict(pictures, 100, seeded())).total
    torch.testing.assert_close(left[True], history["entropy"][-1], atol=1e-3, rtol=1e-3)
    assert left[True].mean() < left[False].mean() / 2
    with pytest.raises(ValueError, match="expected a decoder that gradients go through"):
        core.clue(z[:2], head, decoder=core.LatentDecoder(core.DiffusionModel.from_pretrained(device="cpu"), 2))
    with pytest.raises(ValueError, match="expected a decoder with of_picture"):
        core.clue(z[:2], head, of_picture=True)


def test_clue_works_on_each_latent_by_itself(head, held_out):
    z = held_out[0][:6]
    together, alone = core.clue(z, head, steps=20)[0], core.clue(z[2:3], head, steps=20)[0]
    assert torch.allclose(together[2:3], alone, atol=1e-3)


def test_clue_refuses_what_it_cannot_do(head, held_out):
    z = held_out[0][:2]
    for wrong in ({"distance": "cosine"}, {"distance_weight": -1}, {"steps": 0}, {"learning_rate": 0}):
        with pytest.raises(ValueError, match="expected"):
            core.clue(z, head, **wrong)
    with pytest.raises(ValueError, match="expected latents"):
        core.clue(z[:, :5], head)


def test_shipped_features_make_a_good_and_honest_head(head, held_out, autoencoder):
    z, labels = held_out
    probabilities = head.sample_predict_z(z, 100, seeded()).detach()
    entropy = core.decompose_entropy(probabilities).total
    right = probabilities.mean(0).argmax(-1) == labels
    assert right.float().mean() >= 0.90
    assert entropy[~right].mean() > entropy[right].mean() + 0.3
    noise = torch.rand(len(z), 1, 28, 28, generator=seeded())
    strange = core.decompose_entropy(head.sample_predict(noise, 100, seeded())).total
    assert auroc(entropy, strange) >= 0.95
    rotated = transforms.rotate(core.load_sample("test").images, 90)
    assert auroc(entropy, core.decompose_entropy(head.sample_predict(rotated, 100, seeded())).total) > 0.7


def auroc(known, strange):
    where = torch.cat([torch.zeros(len(known)), torch.ones(len(strange))])
    return roc_auc_score(where, torch.cat([known, strange]).detach())


def test_someone_elses_head_trains_on_the_features_as_they_are(features, held_out):
    torch.manual_seed(0)
    layer = vbll.DiscClassification(256, 10, 1 / len(features), parameterization="diagonal")
    optimizer = torch.optim.AdamW(layer.parameters(), 3e-3)
    z, labels = features.tensors
    for _ in range(10):
        for index in torch.randperm(len(labels)).split(200):
            optimizer.zero_grad()
            layer(z[index]).train_loss_fn(labels[index]).backward()
            optimizer.step()
    layer.eval()
    guessed = layer(held_out[0]).predictive.probs.argmax(-1)
    assert core.percent_equal(guessed, held_out[1]) >= 85


def test_the_lines_that_others_have_written_still_run(autoencoder):
    images = core.load_sample("test").images[:4]
    with torch.no_grad():
        features = autoencoder.encode(images)
    assert features.shape == (4, autoencoder.latent_dim) and isinstance(autoencoder.encoder, torch.nn.Module)
    third_party = torch.nn.Sequential(autoencoder.encoder, torch.nn.Linear(autoencoder.latent_dim, 10))
    assert third_party(images).shape == (4, 10)


def test_sizes_must_match(small_model):
    assert core.LatentDecoder(small_model, 2)(torch.randn(2, SMALL["latent_dim"])).shape == (2, 1, 28, 28)
    with pytest.raises(ValueError, match="expected latents"):
        core.LatentDecoder(small_model, 2)(torch.randn(2, SMALL["latent_dim"] + 1))
