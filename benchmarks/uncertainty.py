"""Three heads on the same frozen features, how they know what they do not know, and what CLUE changes.

pip install -e '.[lab,uncertainty]'
python benchmarks/uncertainty.py        six minutes on 2 cores; writes benchmarks/UNCERTAINTY.md

Heads are trained on the training digits, ten seeds each, and measured on all 10,000 test digits; nothing is chosen on
these. Fashion-MNIST is looked for beside MNIST, in DIFFAE_DATA_DIR/FashionMNIST/raw; without it, its column is empty.
"""

import os
from collections.abc import Callable
from pathlib import Path

import report
import torch
import torch.nn.functional as F
import vbll
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error
from torchvision.datasets import FashionMNIST
from torchvision.transforms import functional as transforms
from tqdm import tqdm

import diffae_core as core

SEEDS = tuple(range(10))
UNCERTAIN = 50  # test digits that CLUE explains
CLUE = {"distance": "l2", "distance_weight": 0.005, "steps": 200, "learning_rate": 0.05}
SAMPLES = 100  # draws of the weights
BEFORE = {  # measured before on a similar autoencoder of 3 epochs, one seed: accuracy, and AUROCs of the entropy
    "linear softmax": (".926", ".81", ".75", ".57"),
    "mean-field last layer, KL/N": (".918", ".99", ".82", ".89"),
    "vbll diagonal, 15 epochs, lr 3e-3": (".929", ".64", ".74", ".52"),
}
KINDS = ("latent, L2", "latent, pixels", "picture, pixels")  # what the entropy is asked of, and the distance
Predict = Callable[[Tensor], Tensor]  # latents (N, 256) -> probabilities (S, N, 10), S draws; one of a plain layer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(layer: nn.Module, loss: Callable, features: Tensor, labels: Tensor, learning_rate: float) -> nn.Module:
    """Fifteen passes of AdamW in batches of 256."""
    optimizer = torch.optim.AdamW(layer.parameters(), learning_rate)
    for _ in range(15):
        for index in torch.randperm(len(labels)).split(256):
            optimizer.zero_grad()
            loss(layer(features[index]), labels[index]).backward()
            optimizer.step()
    return layer.eval()


def draws_of_vbll(layer: vbll.DiscClassification, codes: Tensor) -> Tensor:
    return layer.logit_predictive(codes).rsample((SAMPLES,)).softmax(-1)


def train_heads(autoencoder: core.SimpleAutoencoder, features, seed: int) -> tuple[dict[str, Predict], nn.Module]:
    z, labels = features.tensors
    torch.manual_seed(seed)
    linear = fit(nn.Linear(z.shape[1], 10), F.cross_entropy, z, labels, 1e-3)
    theirs = vbll.DiscClassification(z.shape[1], 10, regularization_weight=1 / len(z), parameterization="diagonal")
    fit(theirs, lambda out, wanted: out.train_loss_fn(wanted), z, labels, 3e-3)
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    default = core.TrainingConfig(epochs=15, batch_size=256, learning_rate=1e-2, weight_decay=0, seed=seed)
    for _ in core.train_last_layer(head, features, default):
        pass
    heads = {
        "linear softmax": lambda codes: linear(codes).softmax(-1)[None],
        "mean-field last layer, KL/N": lambda codes: head.sample_predict_z(codes, SAMPLES, seeded()),
        "vbll diagonal, 15 epochs, lr 3e-3": lambda codes: draws_of_vbll(theirs, codes),
    }
    return heads, head


def auroc(known: Tensor, strange: Tensor) -> float:
    """How well entropy tells strange pictures from digits: 0.5 is a coin, 1 is perfect."""
    where = torch.cat([torch.zeros(len(known)), torch.ones(len(strange))])
    return float(roc_auc_score(where, torch.cat([known, strange])))


@torch.no_grad()
def measure(predict: Predict, z: Tensor, labels: Tensor, strange: dict[str, Tensor]) -> dict[str, float]:
    found = predict(z)
    known, mean = core.decompose_entropy(found), found.mean(0)
    right = mean.argmax(-1) == labels
    figures = {
        "accuracy": right.float().mean().item(),
        "ECE": multiclass_calibration_error(mean, labels, num_classes=10, n_bins=15).item(),
        "entropy where right": known.total[right].mean().item(),
        "entropy where wrong": known.total[~right].mean().item(),
    }
    for name, codes in strange.items():
        unknown = core.decompose_entropy(predict(codes))
        figures[f"AUROC, {name}"] = auroc(known.total, unknown.total)
        if len(found) > 1:
            figures[f"epistemic, {name}"] = auroc(known.epistemic, unknown.epistemic)
    return figures


def explain(head, autoencoder, model, z: Tensor) -> dict[str, float]:
    """CLUE on the most uncertain digits, and what is left of it once the latent is drawn and encoded again."""
    decoders = {"its decoder": autoencoder.decode, "DDIM": core.LatentDecoder(model, 20)}

    def look(codes: Tensor) -> tuple[float, Tensor]:
        with torch.no_grad():
            probabilities = head.sample_predict_z(codes, SAMPLES, seeded())
        return core.decompose_entropy(probabilities).total.mean().item(), probabilities.mean(0).argmax(-1)

    with torch.no_grad():
        known = core.decompose_entropy(head.sample_predict_z(z, SAMPLES, seeded())).total
    before = z[known.topk(UNCERTAIN).indices]
    figures = {}
    by_pixels = {"decoder": autoencoder.decoder}
    for kind, settings in zip(KINDS, ({}, by_pixels, by_pixels | {"of_picture": True})):
        after, _ = core.clue(before, head, **CLUE | settings)
        was, label = look(before)
        now, new_label = look(after)
        figures[f"{kind}: latent, before"], figures[f"{kind}: latent, after"] = was, now
        figures[f"{kind}: latent, same class"] = (label == new_label).float().mean().item()
        for name, draw in decoders.items():
            with torch.no_grad():
                again = [autoencoder.encode(draw(codes)) for codes in (before, after)]
            (was, old), (now, new) = map(look, again)
            figures[f"{kind}: through {name}, before"], figures[f"{kind}: through {name}, after"] = was, now
            figures[f"{kind}: through {name}, same class"] = (label == new).float().mean().item()
    return figures


def spread_of(values: list[float], digits: int) -> str:
    """Mean and standard deviation over the seeds."""
    found = torch.tensor(values, dtype=torch.float64)
    return f"{found.mean():.{digits}f} ± {found.std():.{digits}f}"


def main() -> None:
    autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
    model = core.DiffusionModel.from_pretrained(device="cpu")
    training, _ = core.split_training(core.load_mnist("train"))
    test = core.load_mnist("test")
    features = autoencoder.encode_dataset(training)
    z, labels = autoencoder.encode_dataset(test).tensors
    strange = {
        "noise": torch.rand(test.images.shape, generator=seeded()),
        "rotated by 90 degrees": transforms.rotate(test.images, 90),
    }
    try:
        folder = os.environ.get("DIFFAE_DATA_DIR") or Path.home() / ".cache" / "diffae_core"
        strange["Fashion-MNIST"] = core.as_images(FashionMNIST(folder, train=False).data)
    except RuntimeError:
        print("Fashion-MNIST is not there: its column is left out")
    codes = {name: core.in_batches(autoencoder.encode, images) for name, images in strange.items()}

    measured, explained = {}, []
    for seed in tqdm(SEEDS):
        heads, head = train_heads(autoencoder, features, seed)
        for name, predict in heads.items():
            measured.setdefault(name, []).append(measure(predict, z, labels, codes))
        explained.append(explain(head, autoencoder, model, z))

    def rows(columns: list[str]) -> list[list[str]]:
        return [
            [
                name,
                *(spread_of([found[column] for found in runs], 3) if column in runs[0] else "" for column in columns),
            ]
            for name, runs in measured.items()
        ]

    honesty = ["accuracy", "ECE", "entropy where right", "entropy where wrong"]
    doubts = [f"{kind}, {name}" for name in strange for kind in ("AUROC", "epistemic")]
    entropies = ["accuracy", *(f"AUROC, {name}" for name in strange)]
    beside = [
        [name, *(f"{ours} ({before})" for ours, before in zip(figures, BEFORE[name]))]
        for name, *figures in rows(entropies)
    ]
    kinds = []
    for kind in KINDS:
        for place in ("latent", "through its decoder", "through DDIM"):
            row = [
                spread_of([found[f"{kind}: {place}, {when}"] for found in explained], 2)
                for when in ("before", "after", "same class")
            ]
            kinds.append([kind, place, *row])
    text = f"""# Uncertainty: three heads, and CLUE

`python benchmarks/uncertainty.py` on {report.machine("vbll")}.

Frozen features of the shipped autoencoder; heads trained on {len(training):,} training digits; measured on
{len(test):,} test digits and as many strange pictures. Entropies in nats; AUROC is how well the entropy of the mean
prediction tells strange pictures from test digits. Mean and standard deviation over seeds
{", ".join(map(str, SEEDS))}; the autoencoder is the same for all.

The heads beside what was measured before on a similar autoencoder of 3 epochs (full MNIST, one seed), in brackets:

{report.table(["head", *entropies], beside)}
How honest they are:

{report.table(["head", *honesty], rows(honesty))}
And with the epistemic part of the entropy as the score (a plain layer has none):

{report.table(["head", *doubts], rows(doubts))}
## CLUE

The {UNCERTAIN} most uncertain test digits of each seed's mean-field head; {CLUE["steps"]} steps of Adam,
learning rate {CLUE["learning_rate"]}, distance weight {CLUE["distance_weight"]}. CLUE lowers the entropy of
the latent, or, as in the paper, that of the picture drawn from it by the autoencoder's decoder and encoded
again; the distance is between latents (L2) or in pixels of the decoded picture (L1). Entropy of the latent
itself; and of the latent that the encoder gives of the picture drawn from it, by the autoencoder's own
decoder, or by DDIM in 20 steps from one noise. "Same class" is the share whose class is still the one that
the untouched latent was read as.

{report.table(["entropy of, distance", "read from", "entropy before", "entropy after", "same class"], kinds)}"""
    path = Path(__file__).parent / "UNCERTAINTY.md"
    with core.write_whole(path) as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
