"""How well are photographed digits read? Test digits drawn on paper in several lights and pens, 100 of each kind.

python benchmarks/photos.py
"""

import io

import measure
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import diffae_core as core

COUNT = 100
KINDS = {  # paper and ink from 0 (black) to 1 (white); how much darker the shadow is; its edge in pixels; pen width
    "even light": {},
    "a shadow that grows across": {"shadow": 0.45, "edge": 100},
    "a shadow with a soft edge": {"shadow": 0.45, "edge": 20},
    "a shadow with a sharp edge": {"shadow": 0.45, "edge": 2},
    "grey paper": {"paper": 0.45, "ink": 0.1},
    "a pencil": {"ink": 0.6},
    "a thin pen": {"pen": 3},
    "a white pen on coloured paper": {"paper": 0.55, "ink": 1.0},
    "chalk on a board, in a shadow": {"paper": 0.12, "ink": 0.9, "shadow": 0.45, "edge": 20},
}


def photo(pixels: torch.Tensor, dice, paper=0.85, ink=0.15, shadow=0.0, edge=20.0, pen=None) -> bytes:
    """A JPEG of 400 x 300 pixels with a digit about 150 high on grainy paper; the shadow's edge runs through it."""
    digit = Image.fromarray(pixels[0].numpy()).resize((210, 210), Image.Resampling.BICUBIC)
    stroke = ndimage.gaussian_filter(np.asarray(digit, np.float32), 3) > 110
    if pen:  # the middle line of the stroke, as wide as the pen
        depth = ndimage.distance_transform_edt(stroke)
        middle = (depth >= 0.8 * ndimage.maximum_filter(depth, 9)) & stroke
        stroke = ndimage.distance_transform_edt(~middle) <= pen / 2
    mask = np.zeros((300, 400), np.float32)
    top, left = dice.integers(0, 90), dice.integers(0, 190)
    mask[top : top + 210, left : left + 210] = stroke
    across, down = np.cos(turn := dice.uniform(0, 2 * np.pi)), np.sin(turn)
    distance = (np.arange(400) - left - 105) * across + (np.arange(300)[:, None] - top - 105) * down
    light = 1 - shadow / (1 + np.exp(np.clip(distance / edge, -50, 50)))
    levels = (paper + (ink - paper) * ndimage.gaussian_filter(mask, 0.7)) * light + dice.normal(0, 0.015, mask.shape)
    file = io.BytesIO()
    Image.fromarray((levels.clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def main() -> None:
    digits, classifier = core.load_mnist("test").spaced(COUNT), core.DigitClassifier.from_pretrained()
    rows = [["the digits themselves, no photograph", classifier.accuracy(digits.images, digits.labels)]]
    for name, conditions in KINDS.items():
        dice = np.random.default_rng(0)
        read = torch.cat([core.read_digit(photo(pixels, dice, **conditions)) for pixels in digits.pixels])
        rows.append([name, classifier.accuracy(read, digits.labels)])
    table = measure.table(["photograph", "classified correctly, %"], rows, ["{}", "{:.0f}"], photographs=COUNT)
    measure.write("photos", "python benchmarks/photos.py", {"photos": table})


if __name__ == "__main__":
    main()
