"""Digits and where they come from: MNIST's files, arrays, folders of pictures, and photographs of a digit."""

from diffae_core.data.digits import Digits, load_mnist, load_sample
from diffae_core.data.files import load_digits
from diffae_core.data.photos import read_digit
from diffae_core.data.pictures import as_images

__all__ = ["Digits", "as_images", "load_digits", "load_mnist", "load_sample", "read_digit"]
