"""The tables of docs/results.md: what the shipped weights can do, in the forms of the papers' own tables.

python benchmarks/tables.py --only K     the goals, about 15 minutes on one core
python benchmarks/tables.py              all tables, about three hours on 2 cores
python benchmarks/tables.py --quick      on few digits and small grids, in a few minutes; prints them and writes nothing

Each cell is kept in output/tables, in a folder named by the weights and the sizes: after a kill, the same command goes
on from there. Delete that folder to measure anew. docs/results/<letter>.json is written as soon as a table is complete.
"""

import argparse
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial

import measure
import recipe
import render
import torch
import torch.nn.functional as F
from measure import generate, table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

import diffae_core as core


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    digits: int = 10_000  # test digits for table A and K's first rows, samples for K's last
    sampled: int = 5_000  # unconditional samples (table F)
    some: int = 1_000  # test digits for all else
    pairs: int = 500  # test digits for table C
    edited: int = 200  # test digits for K's edits, each into nine classes
    few: int = 50  # test digits for table B, which evaluates the network thousands of times
    steps: tuple[int, ...] = (10, 20, 50, 100)  # table A
    etas: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    inversion_steps: tuple[int, ...] = (10, 20, 50, 100, 200, 500, 1000)  # table B
    epochs: float = 2.0  # of each training in table E
    probe: int = 54_000  # training digits for linear classifiers
    seconds: float = 45.0  # of each training in table G
    spaced: tuple[int, ...] = (3, 5, 10, 20)  # steps in table G
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # table H


QUICK = Sizes(200, 200, 200, 20, 20, 16, (10, 20), (0.0, 1.0), (10, 20), 0.02, 2_000, 2.0, (5, 10), (0.5, 1.0))


class Bench:
    """The digits, the shipped models, and what has been measured with them."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.seconds = sizes, 0.0
        self.train, self.validation, self.test = map(core.load_mnist, ("train", "validation", "test"))
        self.autoencoder, self.model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
        self.prior, self.classifier = core.LatentPrior.from_pretrained(), core.DigitClassifier.from_pretrained()
        name = hashlib.sha256(f"{asdict(sizes)} {self.train.source}".encode()).hexdigest()[:8]
        self.folder = measure.ROOT / "output" / "tables" / f"{measure.weights()}-{name}"

    def cell(self, name: str, compute: Callable[[], dict]) -> dict:
        """What ``compute`` gives, computed once and kept in a file; its seconds are added up."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            found = compute()
            found["seconds"] = time.perf_counter() - began
            print(name, json.dumps(found), flush=True)
            with core.checkpoints.atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found))
        found = json.loads(path.read_text())
        self.seconds += found["seconds"]
        return found

    def spaced(self, count: int) -> Tensor:
        """The indices of ``count`` test digits, evenly spaced."""
        count = min(count, len(self.test))
        return torch.arange(count) * len(self.test) // count

    @cache  # noqa: B019 (one Bench lives as long as the process)
    def real(self, count: int) -> core.Digits:
        return self.test.subset(self.spaced(count))

    @cache  # noqa: B019
    def reference(self, count: int) -> measure.Reference:
        return measure.Reference(self.classifier, self.real(count), self.train)

    def encode(self, digits: core.Digits) -> Tensor:
        return self.autoencoder.encode_dataset(digits).tensors[0]

    @cached_property
    def train_latents(self) -> Tensor:
        return self.encode(self.train.subset(slice(0, self.sizes.probe)))

    @cached_property
    def directions(self) -> Tensor:
        return core.class_directions(self.train_latents, self.train.labels[: self.sizes.probe])


def mse(a: Tensor, b: Tensor) -> float:
    return F.mse_loss(a, b).item()


def likeness(found: Tensor, images: Tensor) -> dict:
    return {
        "ssim": float(structural_similarity_index_measure(found, images, data_range=1.0)),
        "mse": mse(found, images),
    }


def inverted(model, images: Tensor, z: Tensor, steps: int, corrections: int, spacing: str, other=None) -> Tensor:
    """Images inverted to their x_T with latents z, and generated again from it: with z, or with other latents."""

    def again(rows: Tensor) -> Tensor:
        x_T = model.invert(images[rows], z[rows], steps, corrections=corrections, spacing=spacing)
        return model.generate((z if other is None else other)[rows], steps, x_T=x_T, spacing=spacing)

    return core.in_batches(again, torch.arange(len(images)), 250)


def table_a(bench: Bench) -> dict:
    """Steps and eta."""
    count, steps = bench.sizes.digits, bench.sizes.steps
    reference, latents = bench.reference(count), bench.encode(bench.real(count))

    def cell(num_steps: int, eta: float) -> dict:
        return reference.measure(generate(bench.model, latents, num_steps, eta=eta), reference.real.labels)

    paper = {0.0: (13.36, 6.84, 4.67, 4.16), 0.2: (14.04, 7.11, 4.77, 4.25), 0.5: (16.66, 8.35, 5.25, 4.46)}
    paper[1.0] = (41.07, 18.36, 8.01, 5.78)  # DDIM's table 1
    rows = []
    for eta in bench.sizes.etas:
        cells = [bench.cell(f"A-{num_steps}-{eta}", partial(cell, num_steps, eta)) for num_steps in steps]
        rows.append([eta, *([found["FD ratio"], found["accuracy"]] for found in cells), *paper[eta][: len(steps)]])
    columns = ["eta", *(f"{s} steps: FD ratio (accuracy, %)" for s in steps), *(f"paper, {s}" for s in steps)]
    formats = ["{:g}", *["{:.3f} ({:.2f})"] * len(steps), *["{:.2f}"] * len(steps)]
    return {"A": table(columns, rows, formats, digits=len(reference.real), **{"reference FD": reference.distance})}


def table_b(bench: Bench) -> dict:
    """Inversion and back, against steps."""
    real, steps = bench.real(bench.sizes.few), bench.sizes.inversion_steps
    latents, rows = bench.encode(real), []
    for spacing, corrections in itertools.product(("uniform", "quadratic"), (0, 1, 3, 10)):
        row = [f"{spacing}, {corrections}", f"{2 + corrections} x steps"]
        for num_steps in steps:
            settings = (num_steps, corrections, spacing)
            name = f"B-{spacing}-{corrections}-{num_steps}"
            compute = lambda: {"mse": mse(inverted(bench.model, real.images, latents, *settings), real.images)}  # noqa: B023,E731
            row.append(
                None if corrections and (2 + corrections) * num_steps > 600 else bench.cell(name, compute)["mse"]
            )
        rows.append(row)
    paper = {10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001}
    rows.append(["DDIM's table 2 (CIFAR-10)", "2 x steps", *(paper[num_steps] for num_steps in steps)])
    columns = ["spacing, fixed-point iterations", "NFE", *(f"{s} steps: MSE" for s in steps)]
    return {"B": table(columns, rows, ["", "", *["{:.1e}"] * len(steps)], digits=len(real))}


def table_c(bench: Bench) -> dict:
    """What is kept, and what comes back."""
    real, model = bench.real(bench.sizes.pairs), bench.model
    images, z = real.images, bench.encode(real)
    mean = torch.zeros_like(z)
    ways = {
        "autoencoder's own decoder": lambda: core.in_batches(bench.autoencoder.decode, z),
        "z + random x_T, 20 steps": lambda: generate(model, z, 20),
        "z + random x_T, 20 steps, told 0": lambda: generate(model, z, 20, latent_noise=0.0),
        "z + random x_T, 100 steps": lambda: generate(model, z, 100),
    }
    for steps, spacing, corrections in [(20, s, c) for s in ("uniform", "quadratic") for c in (0, 3)] + [
        (100, s, 0) for s in ("uniform", "quadratic")
    ]:
        name = f"z + inverted x_T, {steps} steps, {spacing}, {corrections} fixed-point iterations"
        ways[name] = partial(inverted, model, images, z, steps, corrections, spacing)
    ways |= {
        "x_T inverted with z, mean latent instead of z, 100 steps": partial(
            inverted, model, images, z, 100, 0, "uniform", mean
        ),
        "x_T inverted with the mean latent, and the mean latent, 100 steps": partial(
            inverted, model, images, mean, 100, 0, "uniform"
        ),
    }
    rows = []
    for place, (name, way) in enumerate(ways.items()):
        found = bench.cell(f"C-{place}", lambda: likeness(way(), images))  # noqa: B023
        rows.append([name, found["ssim"], found["mse"]])
    rows.append(["Diffusion Autoencoders' table 1: z + inverted x_T, 100 steps, faces", 0.991, 6.07e-05])
    return {"C": table(["what is kept", "SSIM", "MSE"], rows, ["", "{:.5f}", "{:.1e}"], digits=len(real))}


def probe(bench: Bench, features: Callable[[core.Digits], Tensor], strengths: tuple[float, ...]) -> dict:
    """A linear classifier on features; how it is regularised is chosen on validation digits, never on test digits."""
    train = bench.train.subset(slice(0, bench.sizes.probe))
    known, seen, inputs = (features(digits).numpy() for digits in (train, bench.validation, bench.test))
    fitted = [LogisticRegression(C=c, max_iter=100).fit(known, train.labels.numpy()) for c in strengths]
    best = max(fitted, key=lambda one: one.score(seen, bench.validation.labels.numpy()))
    labels, chances = bench.test.labels.numpy(), best.predict_proba(inputs)
    areas = [roc_auc_score(labels == label, chances[:, label]) for label in range(10)]
    return {"accuracy": 100 * best.score(inputs, labels), "areas": areas, "regularisation C": best.C}


def latent_probe(bench: Bench, autoencoder: core.SimpleAutoencoder | None = None) -> dict:
    coder = autoencoder or bench.autoencoder
    return probe(bench, lambda digits: coder.encode_dataset(digits).tensors[0], (0.001, 0.01, 0.1))


def table_d(bench: Bench) -> dict:
    """A linear probe on the latent."""
    found = {
        "latents, 256 numbers": bench.cell("D-latents", lambda: latent_probe(bench)),
        "pixels, 784 numbers": bench.cell(
            "D-pixels", lambda: probe(bench, lambda digits: digits.images.flatten(1), (0.01, 0.1, 1.0))
        ),
    }
    rows = [[name, f["accuracy"], sum(f["areas"]) / 10, *f["areas"]] for name, f in found.items()]
    columns = ["features", "accuracy, %", "mean AUROC", *map(str, range(10))]
    facts = {"training digits": min(bench.sizes.probe, len(bench.train)), "test digits": len(bench.test)}
    return {"D": table(columns, rows, ["", "{:.2f}", *["{:.4f}"] * 11], **facts)}


def train_pair(bench: Bench, joint: bool) -> tuple[core.SimpleAutoencoder, core.DiffusionModel]:
    """An encoder and a diffusion model, trained jointly or with the encoder frozen; goes on after a kill."""
    name = "joint" if joint else "frozen"
    paths = [bench.folder / f"E-{name}-{part}.pt" for part in ("autoencoder", "diffusion")]
    if not paths[1].exists():
        torch.manual_seed(0)
        autoencoder = core.SimpleAutoencoder() if joint else bench.autoencoder
        model, config = core.DiffusionModel(), core.TrainingConfig(epochs=bench.sizes.epochs)
        run = (core.train_jointly if joint else core.train_diffusion)(model, bench.train, autoencoder, config)
        state = bench.folder / f"E-{name}-training.pt"
        if state.exists():
            run.resume(state)
        for record in run:
            if not joint and record.step == len(run) // 2:
                bench.cell("G-halfway", lambda: halfway(bench, run))
            if record.step % 200 == 0:
                run.save(state)
        autoencoder.save_checkpoint(paths[0])
        model.save_checkpoint(paths[1])
        state.unlink(missing_ok=True)
    return core.SimpleAutoencoder.from_pretrained(paths[0]), core.DiffusionModel.from_pretrained(paths[1])


def halfway(bench: Bench, run: core.Training) -> dict:
    """Weights in the middle of a run, where the learning rate is high: as they are, and averaged."""
    reference, found = bench.reference(bench.sizes.some), {}
    latents = bench.encode(reference.real)
    for name, model in (("as they are", run.model.eval()), ("EMA", run.ema_model)):
        images = generate(model, latents, 10)
        found[name] = [reference.measure(images)["FD ratio"], mse(images, reference.real.images)]
    run.model.train()
    return found


def edits(bench: Bench, autoencoder, model, strengths: tuple[float, ...], directions: Tensor) -> dict:
    """Each test digit moved towards the next class (9 towards 0), and as far in a random direction."""
    real = bench.real(bench.sizes.some)
    latents, targets = autoencoder.encode_dataset(real).tensors[0], (real.labels + 1) % 10
    random, found = torch.randn(latents.shape, generator=core.seeded(1)), {}
    for strength, (name, way) in itertools.product(strengths, (("edit", directions[targets]), ("random", random))):
        images = generate(model, core.edit(latents, way, strength), 10)
        as_class = [bench.classifier.accuracy(images, labels) for labels in (targets, real.labels)]
        found[f"{name} {strength}"] = [*as_class, mse(images, real.images)]
    return found


def pair_metrics(bench: Bench, autoencoder, model) -> dict[str, list]:
    """Table E's column for one pair of encoder and diffusion model: each metric's values."""
    real, count = bench.real(bench.sizes.some), bench.sizes.pairs
    latents = autoencoder.encode_dataset(real).tensors[0]
    samples = [generate(model, latents, 10, seed) for seed in range(3)]
    back = inverted(model, real.images[:count], latents[:count], 100, 0, "uniform")
    known, labels = autoencoder.encode_dataset(bench.train.subset(slice(0, bench.sizes.probe))).tensors
    moved = edits(bench, autoencoder, model, (0.5, 1.0), core.class_directions(known, labels))
    found = latent_probe(bench, autoencoder)
    return {
        "z + random x_T, 10 steps: accuracy, %": bench.classifier.accuracy(samples[0], real.labels),
        "z + random x_T, 10 steps: SSIM; MSE": list(likeness(samples[0], real.images).values()),
        "z + inverted x_T, 100 steps, plain: SSIM; MSE": list(likeness(back, real.images[:count]).values()),
        "left to x_T: standard deviation of a pixel": torch.stack(samples).std(dim=0).square().mean().item() ** 0.5,
        "linear probe on z: accuracy, %; mean AUROC": [found["accuracy"], sum(found["areas"]) / 10],
        "moved by 0.5 towards the next class: classified as it, %": moved["edit 0.5"][0],
        "moved by 1 towards the next class: classified as it, %": moved["edit 1.0"][0],
        "moved by 1 in a random direction: accuracy, %": moved["random 1.0"][1],
    }


def table_e(bench: Bench) -> dict:
    """Frozen against joint encoder."""
    found = []
    for name, joint in (("frozen", False), ("joint", True)):
        bench.cell(f"E-{name}-training", lambda: train_pair(bench, joint) and {})  # noqa: B023
        found.append(bench.cell(f"E-{name}", lambda: pair_metrics(bench, *train_pair(bench, joint))))  # noqa: B023

    def text(value) -> str:
        return "; ".join(f"{one:.4g}" for one in (value if isinstance(value, list) else [value]))

    rows = [[name, *(text(column[name]) for column in found)] for name in found[0] if name != "seconds"]
    facts = {"test digits": bench.sizes.some, "of these inverted": bench.sizes.pairs, "epochs": bench.sizes.epochs}
    return {"E": table(["metric", "frozen", "joint"], rows, ["", "", ""], **facts)}


def table_f(bench: Bench) -> dict:
    """Unconditional samples."""
    count = min(bench.sizes.sampled, len(bench.test))
    reference = bench.reference(count)

    def mixture(components: int) -> Tensor:
        fitted = GaussianMixture(components, reg_covar=1e-4, random_state=0).fit(bench.train_latents.numpy())
        return torch.from_numpy(fitted.sample(count)[0]).float()

    def measured(images: Tensor) -> dict:
        classes = torch.bincount(bench.classifier.classify(images)[1], minlength=10) / len(images) * 10
        return reference.measure(images, neighbours=3) | {"classes": classes.tolist()}

    latents = {
        "latents of the test digits themselves": lambda: bench.encode(reference.real),
        "latent prior": lambda: bench.prior.sample_latents(count, generator=core.seeded(0)),
        "mixture of 10 Gaussians": lambda: mixture(10),
        "one Gaussian": lambda: mixture(1),
    }
    found = {"real training digits": bench.cell("F-real", lambda: measured(bench.train.subset(slice(0, count)).images))}
    for place, (name, sample) in enumerate(latents.items()):
        found[name] = bench.cell(f"F-{place}", lambda: measured(generate(bench.model, sample())))  # noqa: B023
    rows = [[name, f["FD ratio"], f["precision"], f["recall"], *f["classes"]] for name, f in found.items()]
    columns = ["where the latent is from", "FD ratio", "precision", "recall", *map(str, range(10))]
    facts = {"samples": count, "reference FD": reference.distance}
    return {"F": table(columns, rows, ["", "{:.2f}", "{:.3f}", "{:.3f}", *["{:.2f}"] * 10], **facts)}


def table_g(bench: Bench) -> dict:
    """Ablations: spacing, EMA, loss and conditioning."""
    reference, steps = bench.reference(bench.sizes.some), bench.sizes.spaced
    real, latents = reference.real, bench.encode(reference.real)

    def measured(images: Tensor) -> dict:
        return reference.measure(images, real.labels) | {"mse": mse(images, real.images)}

    spaced = []
    for spacing in ("uniform", "quadratic"):
        work = [partial(generate, bench.model, latents, s, spacing=spacing) for s in steps]
        cells = [bench.cell(f"G-{spacing}-{s}", lambda: measured(run())) for s, run in zip(steps, work)]  # noqa: B023
        spaced.append([spacing, *([found["FD ratio"], found["mse"]] for found in cells)])
    train_pair(bench, joint=False)
    half = bench.cell("G-halfway", dict)
    short = []
    for place, name in enumerate(recipe.ABLATIONS):

        def train() -> dict:
            run, spent = recipe.train_variant(name, bench.train, bench.autoencoder, bench.sizes.seconds)  # noqa: B023
            return measured(generate(run.model, latents, 10)) | {"epochs": spent["epochs"]}

        found = bench.cell(f"G-short-{place}", train)
        short.append([name, *(found[key] for key in ("epochs", "accuracy", "mse", "FD ratio"))])
    columns = ["one thing changed", "epochs", "accuracy, %", "MSE", "FD ratio"]
    head = ["spacing", *(f"{s} steps: FD ratio (MSE)" for s in steps)]
    facts = {"test digits": len(real)}
    return {
        "G spacing": table(head, spaced, ["", *["{:.3f} ({:.1e})"] * len(steps)], **facts),
        "G EMA": table(
            ["weights", "FD ratio", "MSE"],
            [[name, *half[name]] for name in ("as they are", "EMA")],
            ["", "{:.2f}", "{:.1e}"],
            **facts,
        ),
        "G short": table(columns, short, ["", "{:.2f}", "{:.1f}", "{:.1e}", "{:.2f}"], **facts),
    }


def table_h(bench: Bench) -> dict:
    """Edits towards a class, without refining."""
    settings = bench.autoencoder, bench.model, bench.sizes.strengths
    found = bench.cell("H", lambda: edits(bench, *settings, bench.directions))
    rows = [[s, *found[f"edit {s}"], *found[f"random {s}"]] for s in bench.sizes.strengths]
    head = ["classified as the next class, %", "as its own, %", "MSE to the digit"]
    formats = ["{:g}", *["{:.1f}", "{:.1f}", "{:.4f}"] * 2]
    columns = ["strength", *head, *(f"random direction: {name}" for name in head)]
    return {"H": table(columns, rows, formats, **{"test digits": bench.sizes.some})}


def table_i(bench: Bench) -> dict:
    """Does the model use z?"""
    real, times = bench.real(bench.sizes.some), (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
    z = bench.encode(real)
    codes = {"its own latent": z, "another digit's": z.roll(1, dims=0), "the mean latent": torch.zeros_like(z)}

    def losses(latents: Tensor) -> list[float]:
        return core.evaluation.loss_by_time(
            bench.model, real.images, latents, torch.tensor(times), core.seeded(0)
        ).tolist()

    found = bench.cell("I", lambda: {name: losses(latents) for name, latents in codes.items()})
    columns = ["latent", *(f"t = {time:g}" for time in times)]
    return {"I": table(columns, [[n, *found[n]] for n in codes], ["", *["{:.4f}"] * 7], **{"test digits": len(real)})}


def table_j(bench: Bench) -> dict:
    """Memorisation: the distance to the nearest training digit."""
    count = bench.sizes.some
    sets = {
        "held-out test digits": lambda: bench.real(count).images,
        "unconditional samples": lambda: generate(
            bench.model, bench.prior.sample_latents(count, generator=core.seeded(0))
        ),
        "test digits decoded from their latents": lambda: generate(bench.model, bench.encode(bench.real(count))),
    }

    def distances(images: Tensor) -> dict:
        pixels = core.metrics.nearest_distances(images.flatten(1), bench.train.images.flatten(1))
        known = bench.classifier.classify(bench.train.images)[0]
        features = core.metrics.nearest_distances(bench.classifier.classify(images)[0], known)
        return {"values": [one.quantile(share).item() for one in (pixels, features) for share in (0.01, 0.5)]}

    rows = [
        [name, *bench.cell(f"J-{place}", lambda: distances(make()))["values"]]  # noqa: B023
        for place, (name, make) in enumerate(sets.items())
    ]
    columns = ["digits", "pixels, 1%", "pixels, median", "classifier's features, 1%", "features, median"]
    return {"J": table(columns, rows, ["", *["{:.3f}"] * 4], digits=count, **{"training digits": len(bench.train)})}


def as_they_are(bench: Bench, told: float | None) -> dict:
    real = bench.real(bench.sizes.digits)
    images = generate(bench.model, bench.encode(real), latent_noise=told)
    return {"accuracy, %": bench.classifier.accuracy(images, real.labels), "MSE": mse(images, real.images)}


def inverted_back(bench: Bench) -> dict:
    real = bench.real(bench.sizes.some)
    return {"MSE": mse(inverted(bench.model, real.images, bench.encode(real), 20, 1, "quadratic"), real.images)}


def with_noise(bench: Bench, strength: float) -> dict:
    z = bench.encode(bench.real(bench.sizes.some))
    noisy = z + strength * torch.randn(z.shape, generator=core.seeded(1))
    return bench.reference(len(z)).measure(generate(bench.model, noisy))


def half_way(bench: Bench, told: float | None = None, refine_time: float = 0.0) -> dict:
    """Half-way between each digit and the next one, in the order of the file, that is of another class."""
    real = bench.real(bench.sizes.some)
    z, labels = bench.encode(real), real.labels
    shift = torch.stack([labels.roll(-k) != labels for k in range(1, 100)]).float().argmax(dim=0) + 1
    middle = core.lerp(z, z[(torch.arange(len(z)) + shift) % len(z)], 0.5)
    middle = bench.prior.refine(middle, refine_time, generator=core.seeded(2)) if refine_time else middle
    return bench.reference(len(z)).measure(generate(bench.model, middle, latent_noise=told))


def edited(bench: Bench, strength: float, told: float | None = None) -> dict:
    """Each digit towards each of the nine other classes, refined with the label."""
    real = bench.real(bench.sizes.edited)
    targets = (real.labels[:, None] + torch.arange(1, 10)).flatten() % 10
    z = core.edit(bench.encode(real).repeat_interleave(9, dim=0), bench.directions[targets], strength)
    z = bench.prior.refine(z, 0.6, labels=targets, generator=core.seeded(3))
    found = bench.reference(bench.sizes.some).measure(generate(bench.model, z, latent_noise=told), targets)
    return {"becomes it, %": found["accuracy"], "precision": found["precision"]}


def unconditional(bench: Bench, count: int, hide: bool = False) -> dict:
    """Of any class: a random one each time, or with the label hidden from the prior."""
    labels = {"labels": 0, "guidance": 0.0} if hide else {}
    z = bench.prior.sample_latents(count, generator=core.seeded(4), **labels)
    return bench.reference(count).measure(generate(bench.model, z))


def of_a_class(bench: Bench) -> dict:
    labels = torch.arange(bench.sizes.some) % 10
    z = bench.prior.sample_latents(len(labels), labels, guidance=1.5, generator=core.seeded(5))
    found = bench.reference(len(labels)).measure(generate(bench.model, z), labels)
    return {"becomes it, %": found["accuracy"]} | found


def probe_accuracy(bench: Bench) -> dict:
    return {"accuracy of the probe, %": latent_probe(bench)["accuracy"]}


def other_real(bench: Bench, count: int) -> dict:
    """As many other real digits against the same ones: test digits, or training digits where too few are left."""
    left = torch.ones(len(bench.test), dtype=torch.bool).index_fill(0, bench.spaced(count), False)
    others = bench.test.subset(left)
    others = others.subset(slice(0, count)) if len(others) >= count else bench.train.subset(slice(count, 2 * count))
    accuracy = bench.classifier.accuracy(bench.test.images, bench.test.labels)  # of the classifier, on all test digits
    return bench.reference(count).measure(others.images) | {"accuracy, %": accuracy, "becomes it, %": accuracy}


def goals(sizes: Sizes) -> list[tuple]:
    """Table K: case, its function, the counts, and for each metric (must, reach for)."""
    some, all_of_them, copies = sizes.some, sizes.digits, {"accuracy, %": (99.3, 99.6), "MSE": (0.0035, 0.0015)}

    def close(must_fd, must_precision, fd, precision) -> dict:
        return {"FD ratio": (must_fd, fd), "precision": (must_precision, precision)}

    free, nine, free_all = {"FD ratio": (1.5, 1.0)}, 9 * sizes.edited, {"FD ratio": (3, 1.5)}
    becomes = {"becomes it, %": (99.5, 99.9), "precision": (0.93, 0.96)}
    unset = {"FD ratio": (None, None), "precision": (None, None)}
    open_edit = {"becomes it, %": (None, None), "precision": (None, None)}
    wanted = {"becomes it, %": (99.5, 99.9)} | close(0.8, 0.95, 0.6, 0.97)
    return [
        ("as they are, random x_T, told nothing", partial(as_they_are, told=None), all_of_them, copies),
        ("as they are, random x_T, told 0", partial(as_they_are, told=0.0), all_of_them, copies),
        ("as they are, inverted x_T, quadratic, 1 iteration", inverted_back, some, {"MSE": (1e-6, 1e-7)}),
        ("+ 0.5 std", partial(with_noise, strength=0.5), some, unset),
        ("+ 1 std", partial(with_noise, strength=1.0), some, close(0.3, 0.93, 0.15, 0.95)),
        ("+ 2 std", partial(with_noise, strength=2.0), some, close(1.6, 0.85, 1.2, 0.90)),
        ("half-way between classes, told nothing", half_way, some, unset),
        ("half-way between classes, told 1", partial(half_way, told=1.0), some, unset),
        ("half-way between classes, told 1.75", partial(half_way, told=1.75), some, close(4.5, 0.80, 3, 0.85)),
        ("half-way, refined at t = 0.5", partial(half_way, refine_time=0.5), some, unset),
        (
            "half-way, refined at t = 0.6, told 1.5",
            partial(half_way, refine_time=0.6, told=1.5),
            some,
            close(2.0, 0.86, 1.5, 0.90),
        ),
        ("edited by 1, refined at 0.6 with the label", partial(edited, strength=1.0), nine, open_edit),
        ("edited by 1.5, refined at 0.6 with the label", partial(edited, strength=1.5), nine, open_edit),
        ("edited by 1.5, refined, told 1", partial(edited, strength=1.5, told=1.0), nine, becomes),
        ("edited by 2, refined at 0.6 with the label", partial(edited, strength=2.0), nine, open_edit),
        ("from the prior, label hidden", partial(unconditional, count=some, hide=True), some, unset),
        ("from the prior, any class", partial(unconditional, count=some), some, free | {"precision": (None, None)}),
        ("from the prior, any class", partial(unconditional, count=all_of_them), all_of_them, free_all),
        ("of a wanted class, guidance 1.5", of_a_class, some, wanted),
        (
            "latent probe (logistic regression on z)",
            probe_accuracy,
            all_of_them,
            {"accuracy of the probe, %": (93.4, 97)},
        ),
    ]


# The rows of K that README.md shows: the case, and of which metrics.
SUMMARY = {
    "as they are, random x_T, told nothing": ("accuracy, %", "MSE"),
    "+ 1 std": ("FD ratio",),
    "+ 2 std": ("FD ratio",),
    "edited by 1.5, refined, told 1": ("becomes it, %",),
    "from the prior, any class": ("FD ratio",),
}
FORMS = {"MSE": "{:.2g}", "precision": "{:.3f}"}


def reached(metric: str, value: float, must: float | None, reach: float | None) -> str | None:
    if must is None:
        return None
    sign = -1 if metric in ("MSE", "FD ratio") else 1  # of these, less is better
    return "reached" if sign * value >= sign * reach else "must" if sign * value >= sign * must else "**short**"


def slug(case: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", case.lower()).strip("-")


def table_k(bench: Bench) -> dict:
    """What changed latents decode to, beside the goals and other real digits."""
    counts = sorted({bench.sizes.some, bench.sizes.digits})
    real = {count: bench.cell(f"K-real-{count}", partial(other_real, bench, count)) for count in counts}
    cases, found, rows, summary = list(enumerate(goals(bench.sizes))), {}, [], []
    for place, (_, compute, _, _) in sorted(
        cases, key=lambda case: case[1][2]
    ):  # by their counts: the quick ones first
        found[place] = bench.cell(f"K-{slug(cases[place][1][0])}-{cases[place][1][2]}", partial(compute, bench))
    for place, (case, _, count, wanted) in cases:
        for metric, bounds in wanted.items():
            value, beside = found[place][metric], real.get(count, real[counts[0]]).get(metric)
            texts = [
                None if one is None else FORMS.get(metric, "{:.2f}").format(one) for one in (value, beside, *bounds)
            ]
            rows.append([case, count, metric, *texts, reached(metric, value, *bounds)])
            if metric in SUMMARY.get(case, ()):
                summary.append(rows[-1][:5])
    columns = ["case", "n", "metric", "measured", "other real digits", "must", "reach for", "goal"]
    formats, facts = ["", "{:,}", *[""] * 6], {"reference FD": bench.reference(bench.sizes.some).distance}
    return {"K": table(columns, rows, formats, **facts), "summary": table(columns[:5], summary, formats[:5])}


TABLES = {letter: globals()[f"table_{letter.lower()}"] for letter in "KABCDEFGHIJ"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few digits and small grids; nothing is written")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="only these tables")
    options = parser.parse_args()
    bench = Bench(QUICK if options.quick else Sizes())
    for letter in options.only:
        bench.seconds = 0.0
        found = TABLES[letter](bench)
        for one in found.values():
            one["facts"]["seconds"] = round(bench.seconds)
        command = f"python benchmarks/tables.py --only {letter}"
        if not options.quick:
            measure.write(letter, command, found)
            continue
        result = {"command": f"{command} --quick", "machine": measure.machine(), "commit": "", "weights": "none"}
        print(*(f"\n{name}\n{render.markdown(one, result)}" for name, one in found.items()), flush=True)


if __name__ == "__main__":
    main()
