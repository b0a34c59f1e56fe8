"""The Bayesian last layer, the entropies and CLUE: their mathematics on small models, their use on shipped weights."""

import dataclasses
import functools
import inspect
import math

import pytest
import torch
import vbll
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal, kl_divergence
from torchvision.transforms import functional as transforms

import diffae_core as core


@pytest.fixture
def small_head(small_autoencoder):
    head = core.BayesianLastLayer(small_autoencoder.encoder, latent_dim=16)
    torch.nn.init.normal_(head.mean, std=0.5, generator=core.seeded(1))
    return head


@pytest.fixture(scope="module")
def features(autoencoder, sample):
    return autoencoder.encode_dataset(sample)


@pytest.fixture(scope="module")
def head(autoencoder, features):
    """A head on the 4,000 digits of the sample: with fewer steps than on the whole set."""
    torch.manual_seed(0)
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, features):
        pass
    return head


@pytest.fixture(scope="module")
def latents(autoencoder, held_out):
    return autoencoder.encode_dataset(held_out).tensors[0]


@pytest.fixture(scope="module")
def uncertain(head, latents):
    """The 20 latents of which the head is least certain."""
    return latents[core.decompose_entropy(head(latents)).total.topk(20).indices]


def test_predictions_are_probabilities_and_the_seed_decides(small_head, held_out):
    images = held_out.images[:5]
    found = small_head.sample_predict(images, 7, core.seeded(0))
    assert found.shape == (7, 5, 10) and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(-1), torch.ones(7, 5))
    assert torch.equal(found, small_head.sample_predict(images, 7, core.seeded(0)))
    assert not torch.equal(found, small_head.sample_predict(images, 7, core.seeded(1)))
    z = torch.randn(5, 16, requires_grad=True)
    core.decompose_entropy(small_head(z)).total.sum().backward()
    assert z.grad.abs().sum() > 0 and torch.equal(small_head(z), small_head(z))
    with pytest.raises(ValueError, match="expected latents"):
        small_head.sample_predict_z(torch.randn(5, 17))
    with pytest.raises(ValueError, match="num_samples to be a whole number"):
        small_head.sample_predict_z(torch.randn(5, 16), 0)
    for generator in (0, [1]):
        with pytest.raises(TypeError, match=r"torch\.Generator"):
            small_head.sample_predict(images, 2, generator)
    for shape in ((5, 1, 20, 20), (5, 3, 28, 28), (28, 28)):
        with pytest.raises(ValueError, match=rf"images that the backbone takes, got \({shape[0]}, {shape[1]}"):
            small_head.sample_predict(torch.rand(shape))
    with pytest.raises(ValueError, match="prior_sigma"):
        core.BayesianLastLayer(torch.nn.Identity(), 16, prior_sigma=0)
    with pytest.raises(TypeError, match="made on its backbone"):
        core.BayesianLastLayer.from_pretrained()


def test_a_full_memory_is_not_taken_for_wrong_images(small_head):
    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    small_head.backbone.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        small_head.sample_predict(torch.rand(2, 1, 28, 28))


def test_the_kl_is_that_of_torch_distributions(small_head):
    std = torch.nn.functional.softplus(small_head.raw_std)
    expected = kl_divergence(Normal(small_head.mean, std), Normal(torch.tensor(0.0), torch.tensor(0.1))).sum()
    torch.testing.assert_close(small_head.kl(), expected, rtol=1e-5, atol=0)


def test_without_data_the_posterior_becomes_the_prior(small_autoencoder):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16, prior_sigma=0.3)
    optimizer = torch.optim.Adam([head.mean, head.raw_std], 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        head.kl().backward()
        optimizer.step()
    std = torch.nn.functional.softplus(head.raw_std)
    assert head.kl() < 0.1 and torch.allclose(std, torch.full_like(std, 0.3), atol=0.01)


def test_a_heads_mode_is_not_its_backbones(small_autoencoder):
    small_autoencoder.eval()
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16).train()
    assert head.training and not small_autoencoder.encoder.training


def test_training_leaves_the_backbone_alone(small_autoencoder, sample):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
    before = {name: weight.clone() for name, weight in small_autoencoder.state_dict().items()}
    config = core.TrainingConfig(epochs=5, batch_size=50, learning_rate=1e-2, weight_decay=0)
    features = small_autoencoder.encode_dataset(sample.spaced(400))
    losses = [record.loss for record in core.train_last_layer(head, features, config)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(torch.equal(weight, before[name]) for name, weight in small_autoencoder.state_dict().items())
    for wrong in (features.tensors, None, torch.utils.data.TensorDataset(features.tensors[0])):
        with pytest.raises(TypeError, match="expected a TensorDataset of latents and labels"):
            core.train_last_layer(head, wrong)


def test_total_entropy_is_aleatoric_plus_epistemic():
    probabilities = torch.randn(20, 6, 10, generator=core.seeded(0)).mul(3).softmax(-1)
    total, aleatoric, epistemic = core.decompose_entropy(probabilities)
    torch.testing.assert_close(total, aleatoric + epistemic)
    torch.testing.assert_close(total, torch.special.entr(probabilities.mean(0)).sum(-1))
    assert (epistemic >= -1e-6).all()
    certain = torch.eye(10).expand(3, 10, 10)
    assert all(entropy.abs().max() < 1e-6 for entropy in core.decompose_entropy(certain))
    torn = torch.stack([torch.eye(2), torch.eye(2).flip(0)])  # each sample is sure, and they disagree
    torch.testing.assert_close(core.decompose_entropy(torn).epistemic, torch.full((2,), math.log(2)))
    noise = torch.randn(100, 50, 10, generator=core.seeded(0)) / 50
    near = (torch.randn(50, 10, generator=core.seeded(1)) + noise).softmax(dim=-1)
    for half in (near.half(), near.bfloat16()):  # the probabilities have few digits; the entropies must not lose more
        exact = half.double()
        disagreement = torch.special.entr(exact.mean(dim=0)) - torch.special.entr(exact).mean(dim=0)
        found = core.decompose_entropy(half).epistemic.double()
        torch.testing.assert_close(found, disagreement.sum(dim=-1), atol=2e-6, rtol=0)
    for wrong in (torch.rand(10, 10), torch.rand(2, 3, 10) + 1, torch.tensor([[[1.5, -0.5]]]), 1.005 * near):
        with pytest.raises(ValueError, match="expected probabilities"):
            core.decompose_entropy(wrong)


def test_clue_takes_logits_for_logits_even_where_they_look_like_probabilities():
    """What z0 gives decides once: these logits sum to 1 on the way, and go on as logits."""

    def logits(z):
        return torch.cat([4 * z[:, :1] - 1, 1 - z[:, :1]], dim=1)

    z0 = torch.tensor([[0.55]])
    _, history = core.clue(z0, logits, distance_weight=0, num_steps=60, learning_rate=0.01)
    entropy = core.decompose_entropy(logits(history["latents"].flatten(0, 1)).softmax(-1)[None]).total
    torch.testing.assert_close(history["entropy"][:, 0], entropy)
    sums = logits(history["latents"].flatten(0, 1)).sum(-1)
    assert sums[0] != 1 and (sums[:-1] - 1).sign().unique().numel() <= 2
    assert (history["entropy"].diff(dim=0) <= 1e-6).all()


def test_clue_keeps_the_path_only_where_it_is_wanted(small_head):
    z = torch.randn(2, 16)
    with_path, without = (core.clue(z, small_head, num_steps=3, keep_path=keep) for keep in (True, False))
    assert torch.equal(with_path[0], without[0]) and with_path[1].keys() - without[1].keys() == {"latents"}


def test_a_recipe_that_is_changed_keeps_the_rest(small_head, features):
    config = dataclasses.replace(core.HEAD, epochs=2)
    assert (config.epochs, config.weight_decay, config.batch_size) == (2, 0, 256)
    defaults = {
        core.train_autoencoder: core.AUTOENCODER,
        core.train_diffusion: core.DIFFUSION,
        core.train_latent_prior: core.PRIOR,
        core.train_last_layer: core.HEAD,
        core.train_classifier: core.CLASSIFIER,
    }
    for train, recipe in defaults.items():
        assert inspect.signature(train).parameters["config"].default is recipe


def test_a_backbone_is_not_changed_by_predicting():
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 16), torch.nn.BatchNorm1d(16)).train()
    head = core.BayesianLastLayer(backbone, 16)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images = torch.rand(3, 1, 28, 28)
    together = head.sample_predict(images, 2, core.seeded(0))
    alone = head.sample_predict(images[:1], 2, core.seeded(0))
    torch.testing.assert_close(together[:, :1], alone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items()) and backbone.training


def test_clue_makes_uncertain_latents_certain(head, uncertain):
    before = uncertain.clone()
    found, history = core.clue(uncertain, head, num_steps=80)
    assert torch.equal(uncertain, before) and not found.requires_grad
    assert history["entropy"].shape == history["distance"].shape == (81, 20)
    assert torch.equal(history["latents"][0], before) and torch.equal(history["latents"][-1], found)
    torch.testing.assert_close(history["distance"][-1], (found - before).norm(dim=1))
    torch.testing.assert_close(history["entropy"][-1], core.decompose_entropy(head(found)).total.detach())
    assert (history["entropy"][-1] < history["entropy"][0] - 0.1).float().mean() >= 0.95
    alone, _ = core.clue(uncertain[2:3], head, num_steps=80)
    torch.testing.assert_close(found[2:3], alone, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter_to_clue(small_head, mode):
    z = torch.randn(3, 16)
    expected = core.clue(z, small_head, num_steps=3)[0]
    with mode():
        assert torch.equal(core.clue(z, small_head, num_steps=3)[0], expected)
        assert torch.equal(core.clue(z.clone(), small_head, num_steps=3)[0], expected)
    assert small_head.mean.grad is None, "the classifier keeps no gradients"


def test_clue_takes_any_classifier_and_logits_or_probabilities(small_head):
    """(N, C) or (S, N, C), before the softmax or after it: the same latents come out."""
    torch.manual_seed(0)
    plain, z = torch.nn.Linear(16, 10), torch.randn(3, 16)
    forms = [plain, lambda z: plain(z).softmax(-1), lambda z: plain(z)[None], lambda z: plain(z).softmax(-1)[None]]
    expected, history = core.clue(z, plain, num_steps=20)
    assert (history["entropy"][-1] < history["entropy"][0]).all()
    for form in forms:
        torch.testing.assert_close(core.clue(z, form, num_steps=20)[0], expected, atol=1e-4, rtol=1e-4)
    sampled = lambda z: small_head.sample_logits(z, 100, core.seeded(0))  # noqa: E731
    expected = core.clue(z, small_head, num_steps=20)[0]
    torch.testing.assert_close(core.clue(z, sampled, num_steps=20)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("through_pixels", [False, True])
def test_clue_goes_less_far_as_distance_weighs_more(head, uncertain, autoencoder, through_pixels):
    """With one weight for each latent, as in as many calls."""
    z, weights = uncertain[:10], (0.001, 0.01, 0.1) if through_pixels else (0.01, 0.1, 1.0)
    settings = {"decoder": autoencoder.decoder if through_pixels else None, "num_steps": 40}
    each = torch.tensor(weights).repeat_interleave(10)
    found, history = core.clue(z.repeat(3, 1), head, distance_weight=each, **settings)
    away = history["distance"][-1].view(3, 10).mean(dim=1)
    assert away[0] > away[1] > away[2]
    alone, _ = core.clue(z, head, distance_weight=weights[1], **settings)
    torch.testing.assert_close(found[10:20], alone, atol=1e-2, rtol=1e-2)


def test_clue_of_the_decoded_picture_makes_the_picture_certain(head, uncertain, autoencoder):
    """The paper's own objective: what the classifier says of the picture that the decoder makes of z."""
    of_picture, left = (lambda z: head(autoencoder.encoder(autoencoder.decoder(z)))), {}
    for name, predict in (("latent", head), ("picture", of_picture)):
        found, history = core.clue(uncertain, predict, decoder=autoencoder.decoder, num_steps=60)
        with torch.no_grad():
            left[name] = core.decompose_entropy(of_picture(found)).total
    torch.testing.assert_close(left["picture"], history["entropy"][-1], atol=1e-3, rtol=1e-3)
    assert left["picture"].mean() < 0.7 * left["latent"].mean()


def test_clue_through_the_diffusion_model(small_head, small_model):
    z, x_T = torch.randn(2, 16), torch.randn(1, 1, 28, 28)
    decoder = functools.partial(small_model.generate, num_steps=2, x_T=x_T)
    _, history = core.clue(z, small_head, decoder=decoder, num_steps=3)
    with torch.no_grad():
        away = (decoder(history["latents"][-1]) - decoder(z)).abs().sum(dim=(1, 2, 3))
    torch.testing.assert_close(history["distance"][-1], away, atol=1e-3, rtol=1e-3)


def test_clue_of_no_latents(small_head, small_model):
    decoder = functools.partial(small_model.generate, num_steps=2, x_T=torch.randn(1, 1, 28, 28))
    z, history = core.clue(torch.empty(0, 16), small_head, decoder=decoder, num_steps=2)
    assert z.shape == (0, 16) and history["entropy"].shape == (3, 0)


def test_clue_refuses_what_it_cannot_do(small_head):
    z = torch.randn(2, 16)
    for name, wrong in (("distance", "cosine"), ("distance_weight", -1), ("num_steps", 0), ("learning_rate", 0)):
        with pytest.raises(ValueError, match=f"expected {name}"):
            core.clue(z, small_head, **{name: wrong})
    with pytest.raises(ValueError, match=r"expected distance_weight.* shape \(3,\) for 2"):
        core.clue(z, small_head, distance_weight=torch.ones(3))
    with pytest.raises(ValueError, match="expected latents"):
        core.clue(z[:, :5], small_head)
    with pytest.raises(ValueError, match="expected a classifier through which gradients reach the latents"):
        core.clue(z, torch.no_grad()(small_head.forward))
    with pytest.raises(ValueError, match="expected a classifier through which gradients reach"):
        core.clue(z, lambda z: small_head(z.detach()) * torch.ones(1, requires_grad=True))
    with pytest.raises(ValueError, match="expected a decoder through which gradients reach"):
        core.clue(z, small_head, decoder=lambda z: torch.zeros(2, 1, 28, 28))
    with pytest.raises(TypeError, match="expected predictions"):
        core.clue(z, lambda z: z.tolist())
    with pytest.raises(ValueError, match="got \\(2, 1\\): instead of one probability p, give both"):
        core.clue(z, lambda z: z[:, :1].sigmoid())


def auroc(known, unknown):
    where = torch.cat([torch.zeros(len(known)), torch.ones(len(unknown))])
    return roc_auc_score(where, torch.cat([known, unknown]).detach())


def test_shipped_features_make_a_good_and_honest_head(head, latents, held_out):
    probabilities = head(latents).detach()
    entropy, correct = core.decompose_entropy(probabilities).total, probabilities.mean(0).argmax(-1) == held_out.labels
    assert correct.float().mean() >= 0.90
    assert entropy[~correct].mean() > entropy[correct].mean() + 0.3
    for images, at_least in ((torch.rand(500, 1, 28, 28), 0.9), (transforms.rotate(held_out.images, 90), 0.7)):
        outside = core.decompose_entropy(head.sample_predict(images, 100, core.seeded(0))).total
        assert auroc(entropy, outside) >= at_least


def test_someone_elses_head_trains_on_the_features_as_they_are(features, latents, held_out):
    torch.manual_seed(0)
    layer = vbll.DiscClassification(256, 10, 1 / len(features), parameterization="diagonal")
    optimizer, (z, labels) = torch.optim.AdamW(layer.parameters(), 3e-3), features.tensors
    for _ in range(5):
        for index in torch.randperm(len(labels)).split(200):
            optimizer.zero_grad()
            layer(z[index]).train_loss_fn(labels[index]).backward()
            optimizer.step()
    layer.eval()
    predicted = layer(latents).predictive.probs.argmax(-1)
    assert (predicted == held_out.labels).float().mean() >= 0.85
