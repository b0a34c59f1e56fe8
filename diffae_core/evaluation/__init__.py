"""How good are the digits? A classifier, metrics of sample sets, and the script's table."""

from diffae_core.evaluation.classifier import CLASSIFIER, DigitClassifier, train_classifier
from diffae_core.evaluation.quality import in_batches, loss_by_time, quality

__all__ = ["CLASSIFIER", "DigitClassifier", "in_batches", "loss_by_time", "quality", "train_classifier"]
