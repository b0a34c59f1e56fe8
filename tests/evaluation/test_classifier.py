from dataclasses import replace

import pytest
import torch
from conftest import all_equal

import diffae_core as core


def test_classify_is_forwards_largest_logit_in_batches(classifier, held_out):
    images = held_out.images[:23]
    features, labels = classifier.classify(images, batch_size=5)
    with torch.no_grad():
        logits = classifier(images)
    assert features.shape == (23, classifier.feature_dim) and torch.equal(labels, logits.argmax(dim=1))
    with torch.no_grad():
        torch.testing.assert_close(classifier.classifier(features), logits, atol=1e-4, rtol=1e-4)


def test_accuracy_is_a_share_in_percent(classifier, held_out):
    digits = held_out.spaced(50)
    _, predicted = classifier.classify(digits.images)
    wrong = predicted.clone()
    wrong[:10] = (wrong[:10] + 1) % 10
    assert classifier.accuracy(digits.images, predicted) == 100
    assert classifier.accuracy(digits.images, wrong) == 80


def test_measuring_is_in_eval_mode_and_changes_nothing(classifier, held_out):
    digits = held_out.subset(held_out.labels == 1)
    accuracy = classifier.accuracy(digits.images, digits.labels)
    training = core.DigitClassifier(device="cpu")
    training.load_state_dict(classifier.state_dict())
    training.features[1].eval()
    modes = [part.training for part in training.modules()]
    before = {name: value.clone() for name, value in training.state_dict().items()}
    assert training.accuracy(digits.images, digits.labels) == accuracy >= 95
    assert training.accuracy(digits.images[:1], digits.labels[:1]) == 100
    assert all_equal(training.state_dict(), before) and [part.training for part in training.modules()] == modes


def test_a_small_classifier_learns(sample, held_out):
    torch.manual_seed(0)
    model = core.DigitClassifier(device="cpu")
    for _ in core.train_classifier(model, sample.spaced(500), replace(core.CLASSIFIER, batch_size=50, ema_decay=0.9)):
        pass
    digits = held_out.spaced(200)
    assert model.accuracy(digits.images, digits.labels) > 50


def test_wrong_input(classifier, sample):
    with pytest.raises(ValueError, match=r"expected images \(N, 1, 28, 28\)"):
        classifier.classify(torch.rand(28, 28))
    with pytest.raises(ValueError, match=r"expected labels \(2,\)"):
        classifier.accuracy(torch.rand(2, 1, 28, 28), torch.arange(3))
    with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
        core.train_classifier(core.DigitClassifier(num_classes=5, device="cpu"), sample)
    with pytest.raises(ValueError, match="num_classes to be a whole number of 2 or more"):
        core.DigitClassifier(num_classes=1)
