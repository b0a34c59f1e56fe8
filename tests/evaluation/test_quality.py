import pytest
import torch
from conftest import SMALL

import diffae_core as core


class Copies(core.DiffusionModel):
    """It decodes as the autoencoder does."""

    def __init__(self, autoencoder):
        super().__init__(**SMALL)
        self.generate = lambda latents, generator: autoencoder.decode(latents)


def test_quality_of_a_decoder_that_is_known(autoencoder, classifier, sample, held_out):
    test, train, wrapped = held_out.spaced(100), sample.spaced(120), []
    found = core.quality(
        autoencoder, Copies(autoencoder), classifier, train, test, progress=lambda rows: wrapped.append(rows) or rows
    )
    assert len(wrapped) == 1 and len(wrapped[0]) == 4
    for metric in ("accuracy, %", "mean squared error"):
        assert found[f"latent as it is: {metric}"] == pytest.approx(found[f"autoencoder's own decoder: {metric}"])
    with torch.no_grad():
        decoded = autoencoder(test.images)
    real, other = (classifier.classify(digits.images)[0] for digits in (test, train.subset(slice(0, 100))))
    reference, features = core.metrics.frechet_distance(other, real), classifier.classify(decoded)[0]
    assert found["latent as it is: mean squared error"] == pytest.approx((decoded - test.images).square().mean().item())
    assert found["latent as it is: accuracy, %"] == pytest.approx(classifier.accuracy(decoded, test.labels))
    assert found["real training digits: Frechet distance (the reference)"] == pytest.approx(reference)
    assert found["latent as it is: FD ratio"] == pytest.approx(
        core.metrics.frechet_distance(features, real) / reference, rel=1e-3
    )
    assert found["latent as it is: precision"] == pytest.approx(core.metrics.precision_recall(real, features)[0])
    assert found["real test digits: accuracy of the classifier, %"] >= 98
    distances = [found[f"latent {name}: FD ratio"] for name in ("as it is", "+ 0.5 std", "+ 1 std", "+ 2 std")]
    assert distances[0] < distances[2] < distances[3]


def test_the_reference_needs_as_many_training_digits(autoencoder, model, classifier, held_out):
    with pytest.raises(ValueError, match="expected 20 or more training digits for the reference, got 10"):
        core.quality(autoencoder, model, classifier, held_out.spaced(10), held_out.spaced(20))
    with pytest.raises(ValueError, match="the number of test digits to be a whole number of 6 or more, got 5"):
        core.quality(autoencoder, model, classifier, held_out.spaced(10), held_out.spaced(5))
    for wrong in (held_out.images, None, [*held_out.spaced(20)]):
        for parts in ((held_out, wrong), (wrong, held_out)):
            with pytest.raises(TypeError, match="expected Digits"):
                core.quality(autoencoder, model, classifier, *parts)


def test_a_pair_that_does_not_fit_is_not_measured(model, classifier, sample, held_out):
    with pytest.raises(ValueError, match="expected the autoencoder that this DiffusionModel was trained with"):
        core.quality(core.SimpleAutoencoder(device="cpu"), model, classifier, sample, held_out.spaced(20))


def test_the_test_digits_are_no_reference_for_themselves(autoencoder, model, classifier, held_out):
    with pytest.raises(ValueError, match="expected training digits other than the test digits"):
        core.quality(autoencoder, model, classifier, held_out.spaced(20), held_out.spaced(20))


def test_the_model_uses_its_latents_at_every_time(autoencoder, model, held_out):
    digits, times = held_out.spaced(60), torch.tensor([0.2, 0.5, 0.9])
    latents = autoencoder.encode_dataset(digits).tensors[0]

    def losses(codes):
        return core.evaluation.loss_by_time(model, digits.images, codes, times, core.seeded(0))

    own = losses(latents)
    assert own.shape == (3,) and not own.requires_grad and torch.equal(own, losses(latents))
    assert (losses(latents.roll(1, dims=0)) > 2 * own).all() and (losses(torch.zeros_like(latents)) > 1.5 * own).all()
    with pytest.raises(ValueError, match="diffusion_time in"):
        core.evaluation.loss_by_time(model, digits.images, latents, torch.tensor([1.5]))
    with pytest.raises(TypeError, match=r"torch\.Generator"):
        core.evaluation.loss_by_time(model, digits.images, latents, times, 0)


def test_in_batches_is_the_function_on_all_rows():
    rows, sizes = torch.randn(23, 3), []
    found = core.in_batches(lambda part: sizes.append(len(part)) or 2 * part, rows, batch_size=10)
    assert torch.equal(found, 2 * rows) and sizes == [10, 10, 3]
    with pytest.raises(ValueError, match="batch_size"):
        core.in_batches(torch.sin, rows, 0)
