"""Heads on the autoencoder's latents: do they know what they do not know, and what CLUE changes.

pip install -e '.[lab,uncertainty]'
python benchmarks/uncertainty.py        ten minutes on one thread; writes docs/results/uncertainty.json

Heads are trained on the training digits and measured on all test digits; nothing is chosen on these. Fashion-MNIST is
measured where it is on this machine.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import measure
import torch
import torch.nn.functional as F
import vbll
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error
from torchvision.transforms import functional as transforms
from tqdm import tqdm

import diffae_core as core

SEEDS, OTHERS, UNCERTAIN = 5, 2000, 50  # images of each kind that are no digits; test digits that CLUE explains
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
PLAIN = "linear softmax"
Scores = dict[tuple[str, str], float]  # (row, column) of a table -> value


def fit(layer: nn.Module, loss: Callable, z: Tensor, labels: Tensor, learning_rate: float) -> nn.Module:
    """Fifteen passes of AdamW in batches of 256."""
    optimizer = torch.optim.AdamW(layer.parameters(), learning_rate)
    for _ in range(15):
        for index in torch.randperm(len(labels)).split(256):
            optimizer.zero_grad()
            loss(layer(z[index]), labels[index]).backward()
            optimizer.step()
    return layer.eval()


def train_heads(encoder: nn.Module, features, seed: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Three heads by name: latents ``(N, D)`` -> probabilities ``(S, N, 10)``, of 100 samples or of one plain layer."""
    z, labels = features.tensors
    torch.manual_seed(seed)
    linear = fit(nn.Linear(z.shape[1], 10), F.cross_entropy, z, labels, 1e-3)
    theirs = vbll.DiscClassification(z.shape[1], 10, regularization_weight=1 / len(z), parameterization="diagonal")
    fit(theirs, lambda out, wanted: out.train_loss_fn(wanted), z, labels, 3e-3)
    head = core.BayesianLastLayer(encoder, z.shape[1])
    for _ in core.train_last_layer(head, features, replace(core.HEAD, seed=seed)):
        pass
    return {
        PLAIN: lambda z: linear(z).softmax(-1)[None],
        "mean-field last layer": head,
        "vbll, diagonal": lambda z: theirs.logit_predictive(z).rsample((100,)).softmax(-1),
    }


def auroc(known: Tensor, unknown: Tensor) -> float:
    """How well a score tells other images from digits: 0.5 is chance, 1 is perfect."""
    return float(roc_auc_score([0] * len(known) + [1] * len(unknown), torch.cat([known, unknown])))


@torch.no_grad()
def honesty(heads: dict, z: Tensor, labels: Tensor) -> Scores:
    scores = {}
    for name, head in heads.items():
        mean = head(z).mean(0)
        entropy, correct = core.decompose_entropy(mean[None]).total, mean.argmax(-1) == labels
        scores[name, "accuracy"] = correct.float().mean()
        scores[name, "ECE"] = multiclass_calibration_error(mean, labels, num_classes=10, n_bins=15)
        scores[name, "entropy where correct"] = entropy[correct].mean()
        scores[name, "entropy where wrong"] = entropy[~correct].mean()
    return {key: float(value) for key, value in scores.items()}


@torch.no_grad()
def out_of_distribution(heads: dict, codes: dict[str, Tensor], errors: dict[str, Tensor]) -> Scores:
    """How well a score tells each set of images from the first, the test digits; two scores need no head."""
    found: dict[str, list[Tensor]] = {}
    for name, z in codes.items():
        scores = {"length of the latent": z.norm(dim=1), "reconstruction error": errors[name]}
        for head, predict in heads.items():
            total, _, epistemic = core.decompose_entropy(predict(z))
            scores |= {f"{head}, total": total} | ({f"{head}, epistemic": epistemic} if head != PLAIN else {})
        for score, values in scores.items():
            found.setdefault(score, []).append(values)
    others = [*codes][1:]
    return {(score, name): auroc(values[0], other) for score, values in found.items()
            for name, other in zip(others, values[1:])}  # fmt: skip


def explain(autoencoder, model, head, z: Tensor) -> Scores:
    """CLUE on the most uncertain digits; and what is left of it once the latent is decoded and encoded again."""
    decoder, scores = autoencoder.decode, {}
    kinds = {
        "latent, L2": {"predict": head},
        "latent, pixels": {"predict": head, "decoder": decoder},
        "image, pixels": {"predict": lambda z: head(autoencoder.encode(decoder(z))), "decoder": decoder},
    }
    x_T = torch.randn(1, 1, model.image_size, model.image_size, generator=core.seeded(0))
    places = {"latent": None, "own decoder": decoder, "DDIM": partial(model.generate, x_T=x_T)}

    @torch.no_grad()
    def classify(z: Tensor, decode: Callable | None) -> tuple[float, Tensor]:
        samples = head(z if decode is None else autoencoder.encode(decode(z)))
        return core.decompose_entropy(samples).total.mean().item(), samples.mean(0).argmax(-1)

    with torch.no_grad():
        before = z[core.decompose_entropy(head(z)).total.topk(UNCERTAIN).indices]
    started = {place: classify(before, decode) for place, decode in places.items()}
    for kind, settings in kinds.items():
        after, _ = core.clue(before, **settings, distance_weight=0.005, num_steps=200, learning_rate=0.05)
        for place, decode in places.items():
            entropy, label = classify(after, decode)
            row = f"{kind}; {place}"
            scores[row, "entropy before"], scores[row, "entropy after"] = started[place][0], entropy
            scores[row, "same class"] = (label == started[place][1]).float().mean().item()
    return scores


def summary(head: str, runs: list[Scores], form: str, **facts) -> dict:
    """A table of mean and standard deviation over the runs."""
    rows, columns = (list(dict.fromkeys(key[place] for key in runs[0])) for place in (0, 1))
    cells = {key: [of([run[key] for run in runs]) for of in (statistics.mean, statistics.stdev)] for key in runs[0]}
    table = [[row, *(cells[row, column] for column in columns)] for row in rows]
    return measure.table([head, *columns], table, ["", *[f"{form} ± {form}"] * len(columns)], **facts)


def main() -> None:
    autoencoder, model = (kind.from_pretrained(device="cpu") for kind in (core.SimpleAutoencoder, core.DiffusionModel))
    train, test = core.load_mnist("train"), core.load_mnist("test")
    features, z = autoencoder.encode_dataset(train), core.in_batches(autoencoder.encode, test.images)
    digits = test.images[:OTHERS]
    sets = {"test digits": digits, "noise": torch.rand(digits.shape, generator=core.seeded(0))}
    sets["rotated by 90 degrees"] = transforms.rotate(digits, 90)
    if FASHION.exists():
        sets["Fashion-MNIST"] = core.load_digits(FASHION)[2].images[:OTHERS]
    codes = {name: core.in_batches(autoencoder.encode, images) for name, images in sets.items()}
    errors = {name: (core.in_batches(autoencoder.decode, codes[name]) - images).square().mean(dim=(1, 2, 3))
              for name, images in sets.items()}  # fmt: skip
    honest, outside, explained = [], [], []
    for seed in tqdm(range(SEEDS)):
        heads = train_heads(autoencoder.encoder, features, seed)
        honest.append(honesty(heads, z, test.labels))
        outside.append(out_of_distribution(heads, codes, errors))
        explained.append(explain(autoencoder, model, heads["mean-field last layer"], z))
    facts = {"training digits": len(train), "seeds": SEEDS}
    tables = {
        "heads": summary("head", honest, "{:.3f}", **facts | {"test digits": len(test)}),
        "out of distribution": summary("AUROC of", outside, "{:.3f}", **facts | {"images of each kind": OTHERS}),
        "CLUE": summary("classified, distance; measured on", explained, "{:.2f}", **facts | {"digits": UNCERTAIN}),
    }
    measure.write("uncertainty", "python benchmarks/uncertainty.py", tables, ("vbll",))


if __name__ == "__main__":
    main()
