"""A classifier that the other models are not trained with: it labels digits, and its features compare sets of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae_core.base.devices import choose_device
from diffae_core.base.model import Model, fingerprint, in_eval_mode
from diffae_core.base.training import Training, TrainingConfig
from diffae_core.base.validation import check_count, check_images, check_labels
from diffae_core.data.digits import Digits, check_digits
from diffae_core.data.pictures import to_unit

# The recipe of the shipped classifier.
CLASSIFIER = TrainingConfig(epochs=6, batch_size=128, learning_rate=4e-3, warmup=0.2, weight_decay=0.02)
MOST_SHIFT = 3  # pixels by which training images are moved


class DigitClassifier(Model):
    """A small convolutional classifier of images, whose penultimate features serve Frechet distances.

    Args:
        num_classes: classes to tell apart.
        image_size: height and width of the images.
        device: where to live; None chooses CUDA, MPS or the CPU.
    """

    pretrained_file = "digit_classifier.pt"
    feature_dim = 128

    def __init__(self, num_classes: int = 10, image_size: int = 28, device: str | torch.device | None = None):
        super().__init__()
        self.config = {
            "num_classes": check_count(num_classes, "num_classes", at_least=2),
            "image_size": check_count(image_size, "image_size", at_least=8),
        }
        self.num_classes = self.config["num_classes"]
        self.image_size = self.config["image_size"]
        self.features = nn.Sequential(  # (N, 1, 28, 28)
            *self._layer(1, 32, stride=1),
            *self._layer(32, 32, stride=2),  # (N, 32, 14, 14)
            *self._layer(32, 64, stride=1),
            *self._layer(64, 64, stride=2),  # (N, 64, 7, 7)
            *self._layer(64, self.feature_dim, stride=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (N, 128): the penultimate features
        )
        self.classifier = nn.Linear(self.feature_dim, self.num_classes)
        self.to(choose_device(device))

    @staticmethod
    def _layer(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, 28, 28)`` in [0, 1] -> logits ``(N, num_classes)``."""
        return self.classifier(self.features(check_images(images, self.image_size).to(self.device))).float()

    @torch.no_grad()
    def classify(self, images: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Penultimate features ``(N, 128)`` and predicted labels ``(N,)`` of images in [0, 1], on the CPU.

        It runs in eval mode, whatever the model's own mode is.
        """
        parts = check_images(images, self.image_size).split(check_count(batch_size, "batch_size"))
        with in_eval_mode(self):
            features = torch.cat([self.features(part.to(self.device)).float() for part in parts])
            return features.cpu(), self.classifier(features).argmax(dim=1).cpu()

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images ``(N, 1, 28, 28)``, N of 1 or more, classified as their labels ``(N,)``, in percent."""
        _, predicted = self.classify(images)
        check_count(len(predicted), "the number of images")
        labels = check_labels(labels, len(predicted), self.num_classes).cpu()
        return float((predicted == labels).float().mean() * 100)


def train_classifier(
    model: DigitClassifier,
    digits: Digits,
    config: TrainingConfig = CLASSIFIER,
) -> Training:
    """A run that trains the classifier, with each batch moved by up to 3 pixels and labels smoothed by 0.05.

    Raises:
        TypeError, ValueError: no digits of the model's size, or labels outside its classes.
    """
    check_labels(check_digits(digits, model.image_size).labels, len(digits), model.num_classes)
    pixels = digits.pixels.to(model.device)
    all_labels = digits.labels.to(model.device)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        index = index.to(pixels.device)
        shifts = torch.randint(0, 2 * MOST_SHIFT + 1, (2,), generator=generator, device=generator.device)
        right, down = shifts.tolist()
        padded = F.pad(to_unit(pixels[index]), (MOST_SHIFT,) * 4)
        images = padded[:, :, down : down + model.image_size, right : right + model.image_size]
        logits = model.classifier(model.features(images))  # unchecked: a check would wait for a GPU at every step
        return F.cross_entropy(logits.float(), all_labels[index], label_smoothing=0.05)

    return Training(model, batch_loss, len(digits), config, fingerprint(digits.pixels, digits.labels))
