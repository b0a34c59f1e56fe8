"""Heads on the autoencoder's latents: do they know what they do not know, and what CLUE changes.

pip install -e '.[lab,uncertainty]'
python benchmarks/uncertainty.py        ten minutes on 2 cores; writes docs/results/uncertainty.json

Heads are trained on the training digits, ten seeds each, and measured on all 10,000 test digits; nothing is chosen on
these. Fashion-MNIST is looked for beside MNIST, in DIFFAE_DATA_DIR/FashionMNIST/raw; without it, it is left out.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import measure
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

UNCERTAIN, SAMPLES = 50, 100  # test digits that CLUE explains; samples of the weights
CLUE = {"distance_weight": 0.005, "steps": 200, "learning_rate": 0.05}
Predict = Callable[[Tensor], Tensor]  # latents (N, 256) -> probabilities (S, N, 10), S samples; one of a plain layer


def fit(layer: nn.Module, loss: Callable, z: Tensor, labels: Tensor, learning_rate: float) -> nn.Module:
    """Fifteen passes of AdamW in batches of 256."""
    optimizer = torch.optim.AdamW(layer.parameters(), learning_rate)
    for _ in range(15):
        for index in torch.randperm(len(labels)).split(256):
            optimizer.zero_grad()
            loss(layer(z[index]), labels[index]).backward()
            optimizer.step()
    return layer.eval()


def train_heads(autoencoder, features, seed: int) -> tuple[dict[str, Predict], core.BayesianLastLayer]:
    z, labels = features.tensors
    torch.manual_seed(seed)
    linear = fit(nn.Linear(z.shape[1], 10), F.cross_entropy, z, labels, 1e-3)
    theirs = vbll.DiscClassification(z.shape[1], 10, regularization_weight=1 / len(z), parameterization="diagonal")
    fit(theirs, lambda out, wanted: out.train_loss_fn(wanted), z, labels, 3e-3)
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    config = core.TrainingConfig(epochs=15, batch_size=256, learning_rate=1e-2, weight_decay=0, seed=seed)
    for _ in core.train_last_layer(head, features, config):
        pass
    heads = {
        "linear softmax": lambda codes: linear(codes).softmax(-1)[None],
        "mean-field last layer, KL/N": lambda codes: head.sample_predict_z(codes, SAMPLES, core.seeded(0)),
        "vbll diagonal, 15 epochs, lr 3e-3": lambda codes: (
            theirs.logit_predictive(codes).rsample((SAMPLES,)).softmax(-1)
        ),
    }
    return heads, head


def auroc(known: Tensor, unknown: Tensor) -> float:
    """How well a score tells other images from digits: 0.5 is a coin, 1 is perfect."""
    where = torch.cat([torch.zeros(len(known)), torch.ones(len(unknown))])
    return float(roc_auc_score(where, torch.cat([known, unknown])))


@torch.no_grad()
def measured(predict: Predict, z: Tensor, labels: Tensor, others: dict[str, Tensor]) -> dict[str, float]:
    found = predict(z)
    known, mean = core.decompose_entropy(found), found.mean(0)
    correct = mean.argmax(-1) == labels
    values = {
        "accuracy": correct.float().mean().item(),
        "ECE": multiclass_calibration_error(mean, labels, num_classes=10, n_bins=15).item(),
        "entropy where correct": known.total[correct].mean().item(),
        "entropy where wrong": known.total[~correct].mean().item(),
    }
    for name, codes in others.items():
        unknown = core.decompose_entropy(predict(codes))
        values[f"AUROC, {name}"] = auroc(known.total, unknown.total)
        if len(found) > 1:
            values[f"epistemic, {name}"] = auroc(known.epistemic, unknown.epistemic)
    return values


def explain(head, autoencoder, model, z: Tensor) -> dict[str, list[float]]:
    """CLUE on the most uncertain digits; and what is left of it once the latent is decoded and encoded again."""
    decoders = {
        "latent": None,
        "through its decoder": autoencoder.decode,
        "through DDIM": core.LatentDecoder(model, 20),
    }
    decoder = autoencoder.decoder
    kinds = {
        "latent, L2": {"predict": head},
        "latent, pixels": {"predict": head, "decoder": decoder},
        "image, pixels": {"predict": lambda codes: head(head.backbone(decoder(codes))), "decoder": decoder},
    }

    @torch.no_grad()
    def look(codes: Tensor, decode) -> tuple[float, Tensor]:
        seen = head(codes if decode is None else autoencoder.encode(decode(codes)))
        return core.decompose_entropy(seen).total.mean().item(), seen.mean(0).argmax(-1)

    with torch.no_grad():
        before = z[core.decompose_entropy(head(z)).total.topk(UNCERTAIN).indices]
    label, found = look(before, None)[1], {}
    for kind, settings in kinds.items():
        after, _ = core.clue(before, **settings, **CLUE)
        for place, decode in decoders.items():
            (was, _), (now, new_label) = look(before, decode), look(after, decode)
            found[f"{kind}|{place}"] = [was, now, (label == new_label).float().mean().item()]
    return found


def mean_std(values: list[float]) -> list[float]:
    found = torch.tensor(values, dtype=torch.float64)
    return [found.mean().item(), found.std().item()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    autoencoder, model = (kind.from_pretrained(device="cpu") for kind in (core.SimpleAutoencoder, core.DiffusionModel))
    train, test = core.load_mnist("train"), core.load_mnist("test")
    features, (z, labels) = autoencoder.encode_dataset(train), autoencoder.encode_dataset(test).tensors
    others = {"noise": torch.rand(test.images.shape, generator=core.seeded(0))}
    others["rotated by 90 degrees"] = transforms.rotate(test.images, 90)
    try:
        folder = os.environ.get("DIFFAE_DATA_DIR") or Path.home() / ".cache" / "diffae_core"
        others["Fashion-MNIST"] = core.as_images(FashionMNIST(folder, train=False).data)
    except RuntimeError:
        print("Fashion-MNIST is not there: its column is left out")
    codes = {name: core.in_batches(autoencoder.encode, images) for name, images in others.items()}

    heads_found, explained = {}, []
    for seed in tqdm(range(seeds)):
        heads, head = train_heads(autoencoder, features, seed)
        for name, predict in heads.items():
            heads_found.setdefault(name, []).append(measured(predict, z, labels, codes))
        explained.append(explain(head, autoencoder, model, z))

    def heads_table(columns: list[str]) -> dict:
        rows = [
            [name, *(mean_std([run[c] for run in runs]) if c in runs[0] else None for c in columns)]
            for name, runs in heads_found.items()
        ]
        return measure.table(["head", *columns], rows, ["", *["{:.3f} ± {:.3f}"] * len(columns)], **facts)

    facts = {"training digits": len(train), "test digits": len(test), "seeds": seeds}
    honesty = ["accuracy", "ECE", "entropy where correct", "entropy where wrong"]
    rows = [
        [*key.split("|"), *(mean_std([found[key][column] for found in explained]) for column in range(3))]
        for key in explained[0]
    ]
    columns = ["entropy of, distance", "measured on", "entropy before", "entropy after", "same class"]
    tables = {
        "heads": heads_table(honesty),
        "out of distribution": heads_table([f"{kind}, {name}" for name in others for kind in ("AUROC", "epistemic")]),
        "CLUE": measure.table(
            columns, rows, ["", "", *["{:.2f} ± {:.2f}"] * 3], **facts, **{"most uncertain": UNCERTAIN}
        ),
    }
    measure.write("uncertainty", f"python benchmarks/uncertainty.py --seeds {seeds}", tables, ("vbll",))


if __name__ == "__main__":
    main()
