"""The tables of RESULTS.md: what the shipped weights can do, in the forms of the papers' own tables.

python benchmarks/tables.py              about two hours on 2 cores; writes RESULTS.md
python benchmarks/tables.py --quick      on 1,000 digits and smaller grids, a few minutes; writes output/tables-quick.md
python benchmarks/tables.py --only A F   only these tables' figures, kept for the whole

Every figure that is measured is kept in output/tables, in a folder named by the weights and the sizes: after a kill, or
once --only has done its part, the same command goes on from there. Delete that folder to measure anew.
"""

import argparse
import hashlib
import itertools
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from contest import draw_digits
from recipe import VARIANTS, train_variant
from report import table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

import diffae_core as core

ROOT = Path(__file__).parent.parent
PRETRAINED = ROOT / "diffae_core" / "pretrained"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    digits: int = 10_000  # test digits for table A
    drawn: int = 5_000  # digits drawn from nothing (table F)
    some: int = 1_000  # test digits for all else
    pairs: int = 500  # test digits for table C
    few: int = 50  # test digits for table B, which asks the network thousands of times
    steps: tuple[int, ...] = (10, 20, 50, 100)  # table A
    etas: tuple[float, ...] = (0.0, 1.0, 0.5, 0.2)  # the most telling first
    inversion_steps: tuple[int, ...] = (10, 20, 50, 100, 200, 500, 1000)  # table B
    epochs: float = 2.0  # of each training in table E
    probe: int = 54_000  # training digits for linear classifiers
    seconds: float = 45.0  # of each training in table G
    spaced: tuple[int, ...] = (3, 5, 10, 20)  # steps in table G
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # table H


QUICK = Sizes(1_000, 1_000, 1_000, 50, 16, (10, 20), (0.0, 1.0), (10, 20, 50), 0.05, 2_000, 2.0, (5, 10), (0.5, 1.0))
SEED = 0


def seeded(seed: int = SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def there_and_back(
    model, images: Tensor, latents: Tensor, steps: int, corrections: int, spacing: str, drawn_with: Tensor | None = None
) -> Tensor:
    """Images inverted to their x_T, and drawn again from it: with the latents, or with others."""
    parts, others = [], latents if drawn_with is None else drawn_with
    for picture, z, other in zip(images.split(250), latents.split(250), others.split(250)):
        x_T = model.invert(picture, z, steps, corrections, spacing)
        parts.append(model.generate(other, steps, x_T=x_T, spacing=spacing).cpu())
    return torch.cat(parts)


def likeness(drawn: Tensor, images: Tensor) -> dict:
    return {"ssim": core.ssim(drawn, images), "mse": F.mse_loss(drawn, images).item()}


WEIGHTS = ("autoencoder_weights.pt", "diffusion_model.pt", "judge.pt")
PRIOR = "latent_prior.pt"


def digest(*names: str) -> str:
    """A short name for the contents of shipped files, and for other strings as they are."""
    joined = hashlib.sha256()
    for name in names:
        path = PRETRAINED / name
        joined.update(path.read_bytes() if name.endswith(".pt") else name.encode())
    return joined.hexdigest()[:12]


class Bench:
    """The digits, the shipped models, and what has been measured with them."""

    def __init__(self, sizes: Sizes, folder: Path):
        self.sizes = sizes
        self.training, _ = core.split_training(core.load_mnist("train"))
        self.test = core.load_mnist("test")
        self.autoencoder, self.model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
        self.judge = core.Judge.from_pretrained()
        self.folder = folder / digest(*WEIGHTS, json.dumps(asdict(sizes)), self.training.source, self.test.source)

    def measure(self, name: str, compute: Callable[[], dict]) -> dict:
        """What ``compute`` gives, and the seconds it took: computed once, and kept in a file."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            figures = compute()
            figures["seconds"] = time.perf_counter() - began
            print(name, json.dumps(figures), flush=True)
            with core.write_whole(path) as temporary:
                temporary.write_text(json.dumps(figures))
        return json.loads(path.read_text())

    def real(self, count: int) -> core.Digits:
        return self.test.subset(core.spread(len(self.test), count))

    @cached_property
    def training_latents(self) -> Tensor:
        return core.encode_all(self.autoencoder, self.training)

    @cache
    def crowd(self, count: int) -> tuple[Tensor, float]:
        """The judge's features of ``count`` test digits, and how far as many training digits are from them."""
        features, _ = self.judge.read(self.real(count).images)
        others, _ = self.judge.read(self.training.subset(slice(0, count)).images)
        return features, core.frechet_distance(others, features)

    def share(self, features: Tensor) -> float:
        """The Frechet distance of drawn features from as many test digits, as a share of the floor."""
        real_features, floor = self.crowd(len(features))
        return core.frechet_distance(features, real_features) / floor


def table_a(bench: Bench) -> str:
    count, steps = min(bench.sizes.digits, len(bench.test)), bench.sizes.steps
    real = bench.real(count)

    def cell(num_steps: int, eta: float) -> dict:
        features, labels = bench.judge.read(
            draw_digits(bench.model, core.encode_all(bench.autoencoder, real), num_steps, eta=eta)
        )
        agreement = core.percent_equal(labels, real.labels)
        return {"share": bench.share(features), "agreement": agreement, "floor": bench.crowd(count)[1]}

    paper = {0.0: (13.36, 6.84, 4.67, 4.16), 0.2: (14.04, 7.11, 4.77, 4.25), 0.5: (16.66, 8.35, 5.25, 4.46)}
    paper[1.0] = (41.07, 18.36, 8.01, 5.78)
    rows, seconds = [], 0.0
    for eta in bench.sizes.etas:
        cells = [bench.measure(f"A-{num_steps}-{eta}", lambda: cell(num_steps, eta)) for num_steps in steps]
        seconds += sum(figures["seconds"] for figures in cells)
        rows.append([f"{eta:g}", *(f"{figures['share']:.3f} ({figures['agreement']:.2f})" for figures in cells)])
        rows[-1] += paper[eta][: len(steps)]
    head = ["eta", *(f"{s} steps" for s in steps), *(f"paper, {s}" for s in steps)]
    return (
        f"Frechet distance as a share of the floor, and in brackets the label agreement in percent, on {count:,} "
        "test digits drawn from their latents and a random x_T; steps evenly spaced, EMA weights. The floor is "
        f"{cells[0]['floor']:.4f}: {count:,} training digits against the same test digits. The paper's columns are "
        f"DDIM's table 1: FID on CIFAR-10, no latent, 50,000 samples. {seconds:,.0f} "
        "s.\n\n" + table(head, sorted(rows))
    )


def table_b(bench: Bench) -> str:
    real = bench.real(bench.sizes.few)
    latents, steps = core.encode_all(bench.autoencoder, real), bench.sizes.inversion_steps
    paper = {10: "0.014", 20: "0.0065", 50: "0.0023", 100: "0.0009", 200: "0.0004", 500: "0.0001", 1000: "0.0001"}
    rows, seconds = [], 0.0
    for spacing in ("uniform", "quadratic"):
        for corrections in (0, 1, 3, 10):
            row = []
            for num_steps in steps:
                if corrections and (2 + corrections) * num_steps > 600:
                    row.append("")
                    continue

                def cell() -> dict:
                    drawn = there_and_back(bench.model, real.images, latents, num_steps, corrections, spacing)
                    return likeness(drawn, real.images)

                figures = bench.measure(f"B-{spacing}-{corrections}-{num_steps}", cell)
                seconds += figures["seconds"]
                row.append(f"{figures['mse']:.1e}")
            rows.append([f"{spacing}, {corrections}", f"{2 + corrections} x steps", *row])
    rows.append(["DDIM's table 2 (CIFAR-10)", "2 x steps", *(paper[num_steps] for num_steps in steps)])
    return (
        f"Mean squared error, on the [0, 1] scale, of {len(real)} test digits inverted to x_T and drawn again from "
        "it, against the number of steps; how these are spaced, and how many corrections each backward step gets (0 "
        f"is the plain one). Denoiser calls count both ways. {seconds:,.0f} s.\n\n"
        + table(["spacing, corrections", "denoiser calls", *(f"{s} steps" for s in steps)], rows)
    )


def table_c(bench: Bench) -> str:
    real = bench.real(bench.sizes.pairs)
    images, latents, model = real.images, core.encode_all(bench.autoencoder, real), bench.model
    mean = torch.zeros_like(latents)

    ways = {
        "autoencoder's own decoder": lambda: likeness(core.in_batches(bench.autoencoder.decode, latents), images),
        "z + random x_T, 20 steps": lambda: likeness(draw_digits(model, latents, 20), images),
        "z + random x_T, 100 steps": lambda: likeness(draw_digits(model, latents, 100), images),
    }
    for steps, corrected in ((20, (0, 3)), (100, (0,))):
        for spacing, corrections in itertools.product(("uniform", "quadratic"), corrected):
            name = f"z + inverted x_T, {steps} steps, {spacing}, " + (
                f"{corrections} corrections" if corrections else "plain"
            )
            ways[name] = lambda s=steps, c=corrections, p=spacing: likeness(
                there_and_back(model, images, latents, s, c, p), images
            )
    ways["x_T inverted with z, drawn with the mean latent, 100 steps"] = lambda: likeness(
        there_and_back(model, images, latents, 100, 0, "uniform", drawn_with=mean), images
    )
    ways["x_T inverted and drawn with the mean latent, 100 steps"] = lambda: likeness(
        there_and_back(model, images, mean, 100, 0, "uniform"), images
    )
    rows, seconds = [], 0.0
    for place, (name, compute) in enumerate(ways.items()):
        figures = bench.measure(f"C-{place}", compute)
        seconds += figures["seconds"]
        rows.append([name, f"{figures['ssim']:.5f}", f"{figures['mse']:.1e}"])
    rows.append(["Diffusion Autoencoders' table 1: z + inverted x_T, 100 steps, faces", "0.991", "6.07e-05"])
    return (
        f"{len(real):,} test digits, written down and drawn again; structural similarity (11 x 11 windows) and mean "
        f"squared error, both on [0, 1]. {seconds:,.0f} s.\n\n" + table(["what is kept", "SSIM", "MSE"], rows)
    )


def probe(bench: Bench, features: Callable[[core.Digits], Tensor], strengths: tuple[float, ...]) -> dict:
    """A linear classifier on features; how it is regularised is chosen on validation digits, never on test digits."""
    train = bench.training.subset(slice(0, bench.sizes.probe))
    _, validation = core.split_training(core.load_mnist("train"))
    known, seen = (features(digits).numpy() for digits in (train, validation))
    candidates = {
        strength: LogisticRegression(C=strength, max_iter=100).fit(known, train.labels.numpy())
        for strength in strengths
    }
    best = max(strengths, key=lambda strength: candidates[strength].score(seen, validation.labels.numpy()))
    fitted = candidates[best]
    inputs, labels = features(bench.test).numpy(), bench.test.labels.numpy()
    chances = fitted.predict_proba(inputs)
    areas = [roc_auc_score(labels == label, chances[:, label]) for label in range(10)]
    return {"accuracy": 100 * fitted.score(inputs, labels), "areas": areas, "strength": best}


def table_d(bench: Bench) -> str:
    figures = {
        "latents, 256 numbers": bench.measure(
            "D-latents",
            lambda: probe(bench, lambda digits: core.encode_all(bench.autoencoder, digits), (0.001, 0.01, 0.1)),
        ),
        "pixels, 784 numbers": bench.measure(
            "D-pixels", lambda: probe(bench, lambda digits: digits.images.flatten(1), (0.01, 0.1, 1.0))
        ),
    }
    rows = [
        [name, f"{f['accuracy']:.2f}", f"{sum(f['areas']) / 10:.4f}", *(f"{area:.4f}" for area in f["areas"])]
        for name, f in figures.items()
    ]
    seconds = sum(f["seconds"] for f in figures.values())
    return (
        f"A linear classifier (logistic regression) trained on {min(bench.sizes.probe, len(bench.training)):,} "
        f"training digits, on all {len(bench.test):,} test digits: accuracy in percent, and the area under the ROC "
        "curve of each class against the rest. Its regularisation is chosen on validation digits. The paper's table "
        f"3 does this for 40 attributes of faces, which have no counterpart here. {seconds:,.0f} s.\n\n"
        + table(["features", "accuracy", "mean AUROC", *map(str, range(10))], rows)
    )


def train_pair(bench: Bench, joint: bool) -> tuple[core.SimpleAutoencoder, core.DiffusionModel]:
    """An encoder and a diffusion model, trained joint or with the encoder frozen; goes on after a kill."""
    name = "joint" if joint else "frozen"
    paths = [bench.folder / f"E-{name}-{part}.pt" for part in ("autoencoder", "diffusion")]
    torch.manual_seed(SEED)
    autoencoder = core.SimpleAutoencoder() if joint else bench.autoencoder
    model = core.DiffusionModel()
    done = paths[1].exists() and (joint or (bench.folder / "G-halfway.json").exists())
    if not done:
        config = core.TrainingConfig(epochs=bench.sizes.epochs)
        latents = autoencoder if joint else bench.training_latents
        run = core.train_diffusion(model, bench.training, latents, config, joint)
        state = bench.folder / f"E-{name}-training.pt"
        if state.exists():
            run.resume(state)
        for record in run:
            if not joint and record.step == len(run) // 2:
                bench.measure("G-halfway", lambda: halfway(bench, run))
            if record.step % 200 == 0:
                run.save(state)
                print(f"{name}: step {record.step} of {len(run)}, loss {record.loss:.4f}", flush=True)
        if joint:
            core.normalise_latents(autoencoder, bench.training, model)
        autoencoder.save_checkpoint(paths[0])
        model.save_checkpoint(paths[1])
        state.unlink(missing_ok=True)
    return core.SimpleAutoencoder.from_pretrained(paths[0]), core.DiffusionModel.from_pretrained(paths[1])


def halfway(bench: Bench, run: core.Training) -> dict:
    """Weights in the middle of a run, where the learning rate is high: as they are, and averaged."""
    real = bench.real(bench.sizes.some)
    latents = core.encode_all(bench.autoencoder, real)
    figures = {}
    for name, model in (("raw", run.model.eval()), ("ema", run.ema_model)):
        drawn = draw_digits(model, latents, 10)
        share = bench.share(bench.judge.read(drawn)[0])
        figures |= {f"{name} share": share, f"{name} mse": F.mse_loss(drawn, real.images).item()}
    run.model.train()
    return figures


def edits(bench: Bench, autoencoder, model, strengths: tuple[float, ...]) -> dict:
    """Each test digit moved towards the next class (9 towards 0), and as far in a random direction."""
    real, train = bench.real(bench.sizes.some), bench.training.subset(slice(0, bench.sizes.probe))
    latents = core.encode_all(autoencoder, real)
    directions = core.class_directions(core.encode_all(autoencoder, train), train.labels)
    targets = (real.labels + 1) % 10
    random = torch.randn(latents.shape, generator=seeded(1))
    figures = {}
    for strength in strengths:
        for name, direction in (("edit", directions[targets]), ("random", random)):
            drawn = draw_digits(model, core.edit(latents, direction, strength), 10)
            labels = bench.judge.read(drawn)[1]
            figures[f"{name} {strength}"] = {
                "target": core.percent_equal(labels, targets),
                "kept": core.percent_equal(labels, real.labels),
                "drift": F.mse_loss(drawn, real.images).item(),
            }
    return figures


def pair_figures(bench: Bench, autoencoder, model) -> dict:
    """What table E says of one pair of encoder and diffusion model."""
    real = bench.real(bench.sizes.some)
    latents = core.encode_all(autoencoder, real)
    drawn = [draw_digits(model, latents, 10, seed=seed) for seed in range(3)]
    pairs = slice(0, bench.sizes.pairs)
    back = there_and_back(model, real.images[pairs], latents[pairs], 100, 0, "uniform")
    other = latents.roll(1, dims=0)
    middle = draw_digits(model, (latents + other) / 2, 10)[real.labels != real.labels.roll(1)]

    def grey(pictures: Tensor) -> float:
        return 100 * ((pictures > 0.2) & (pictures < 0.8)).float().mean().item()

    classifier = probe(bench, lambda digits: core.encode_all(autoencoder, digits), (0.001, 0.01, 0.1))
    return {
        "agreement": core.percent_equal(bench.judge.read(drawn[0])[1], real.labels),
        "random": likeness(drawn[0], real.images),
        "inverted": likeness(back, real.images[pairs]),
        "noise": torch.stack(drawn).std(dim=0).square().mean().item() ** 0.5,
        "accuracy": classifier["accuracy"],
        "area": sum(classifier["areas"]) / 10,
        "grey ends": grey(drawn[0]),
        "grey middle": grey(middle),
        "edits": edits(bench, autoencoder, model, (0.5, 1.0)),
    }


def table_e(bench: Bench) -> str:
    columns, seconds = {}, 0.0
    for name, joint in (("frozen", False), ("joint", True)):
        training = bench.measure(f"E-{name}-training", lambda: train_pair(bench, joint) and {})
        columns[name] = bench.measure(f"E-{name}", lambda: pair_figures(bench, *train_pair(bench, joint)))
        seconds += training["seconds"] + columns[name]["seconds"]
    rows = [
        ["z + random x_T, 10 steps: label agreement, %", *(f"{f['agreement']:.2f}" for f in columns.values())],
        ["z + random x_T, 10 steps: SSIM", *(f"{f['random']['ssim']:.4f}" for f in columns.values())],
        ["z + random x_T, 10 steps: MSE", *(f"{f['random']['mse']:.1e}" for f in columns.values())],
        [
            f"z + inverted x_T, 100 steps, plain ({bench.sizes.pairs} digits): SSIM",
            *(f"{f['inverted']['ssim']:.5f}" for f in columns.values()),
        ],
        [
            f"z + inverted x_T, 100 steps, plain ({bench.sizes.pairs} digits): MSE",
            *(f"{f['inverted']['mse']:.1e}" for f in columns.values()),
        ],
        ["left to the noise: standard deviation of a pixel over x_T", *(f"{f['noise']:.4f}" for f in columns.values())],
        ["linear probe on z: accuracy, %", *(f"{f['accuracy']:.2f}" for f in columns.values())],
        ["linear probe on z: mean AUROC", *(f"{f['area']:.4f}" for f in columns.values())],
        [
            "grey pixels half-way between two digits, % (at the ends)",
            *(f"{f['grey middle']:.1f} ({f['grey ends']:.1f})" for f in columns.values()),
        ],
    ]
    for strength in (0.5, 1.0):
        for way, name in (("edit", "towards the next class"), ("random", "in a random direction")):
            cells = (f["edits"][f"{way} {strength}"] for f in columns.values())
            rows.append(
                [
                    f"moved by {strength} {name}: read as the next class, % (drift, MSE)",
                    *(f"{cell['target']:.1f} ({cell['drift']:.3f})" for cell in cells),
                ]
            )
    return (
        f"The same diffusion model, trained from nothing for {bench.sizes.epochs:g} epochs: on the frozen "
        "autoencoder's latents (whose own training of 5 epochs is not counted), and with an encoder of the same "
        f"shape that learns along, by the diffusion's loss alone, as in the paper. {bench.sizes.some:,} test digits. "
        f"{seconds:,.0f} s.\n\n" + table(["figure", *columns], rows)
    )


def table_f(bench: Bench) -> str:
    count = min(bench.sizes.drawn, len(bench.test))

    def mixture(components: int) -> core.MixturePrior:
        return core.MixturePrior(bench.training_latents[: bench.sizes.probe], components)

    priors = {
        "latents of the test digits themselves": lambda: core.encode_all(bench.autoencoder, bench.real(count)),
        "latent DDIM": lambda: core.LatentPrior.from_pretrained().sample_latents(count, seeded()),
        "mixture of 10 Gaussians": lambda: mixture(10).sample_latents(count, seeded()),
        "one Gaussian": lambda: mixture(1).sample_latents(count, seeded()),
    }

    def figures_of(features: Tensor, labels: Tensor) -> dict:
        real_features, floor = bench.crowd(count)
        precision, recall = core.precision_recall(real_features, features)
        return {
            "share": bench.share(features),
            "precision": precision,
            "recall": recall,
            "classes": (torch.bincount(labels, minlength=10) / len(labels) * 10).tolist(),
            "floor": floor,
        }

    results = {
        "real training digits": bench.measure(
            "F-real", lambda: figures_of(*bench.judge.read(bench.training.subset(slice(0, count)).images))
        )
    }
    for place, (name, draw) in enumerate(priors.items()):
        results[name] = bench.measure(
            f"F-{place}-{digest(PRIOR)}",
            lambda: figures_of(*bench.judge.read(draw_digits(bench.model, draw(), 20))),
        )
    rows = [
        [name, f"{f['share']:.2f}", f"{f['precision']:.3f}", f"{f['recall']:.3f}", *(f"{c:.2f}" for c in f["classes"])]
        for name, f in results.items()
    ]
    verdict = "reaches" if results["latent DDIM"]["share"] <= 3 else "falls short of"
    return (
        f"The latent DDIM {verdict} the goal of three times the floor. The row of true latents is the limit of any "
        f"prior: what is missing below it is missing in the prior, a small network trained for minutes.\n\n{count:,} "
        "digits from nothing: a latent from the prior, then 20 steps from a random x_T. Frechet distance as a share "
        f"of the floor ({results['one Gaussian']['floor']:.4f}, {count:,} training against {count:,} test digits), "
        "precision and recall (3 neighbours), all in the judge's features; and how often each class comes, 1 being "
        f"a tenth. {sum(f['seconds'] for f in results.values()):,.0f} s.\n\n"
        + table(["where the latent is from", "Frechet / floor", "precision", "recall", *map(str, range(10))], rows)
    )


def table_g(bench: Bench) -> str:
    real = bench.real(bench.sizes.some)
    latents = core.encode_all(bench.autoencoder, real)

    def judged(drawn: Tensor) -> dict:
        features, labels = bench.judge.read(drawn)
        agreement = core.percent_equal(labels, real.labels)
        return likeness(drawn, real.images) | {"share": bench.share(features), "agreement": agreement}

    steps, spacings = bench.sizes.spaced, ("uniform", "quadratic", "log-snr")
    cells = {
        (spacing, s): bench.measure(
            f"G-{spacing}-{s}",
            lambda: judged(draw_digits(bench.model, latents, s, spacing=spacing)),
        )
        for spacing in spacings
        for s in steps
    }
    spaced = table(
        ["spacing", *(f"{s} steps" for s in steps)],
        [
            [spacing, *(f"{cells[spacing, s]['share']:.3f} ({cells[spacing, s]['mse']:.1e})" for s in steps)]
            for spacing in spacings
        ],
    )
    half = bench.measure("G-halfway", halfway_missing)
    averaged = table(
        ["weights, half-way through table E's frozen run", "Frechet / floor", "MSE"],
        [
            [name, f"{half[f'{key} share']:.2f}", f"{half[f'{key} mse']:.1e}"]
            for name, key in (("as they are", "raw"), ("EMA", "ema"))
        ],
    )
    base = next(iter(VARIANTS))
    shipped = {"batch_size": 64, "learning_rate": 3e-3, "gradient_clip": 1.0}
    names = (base, "mean absolute error", "loss weighted as the noise's", "predicts the noise")
    names += ("latent by its map alone", "latent without its map, by scale and shift alone")
    rows, short_seconds = [], 0.0
    for place, name in enumerate(names):
        kind, change, changes = VARIANTS[name]

        def train() -> dict:
            variant = (kind, change, shipped | changes)
            model, _, epochs, spent = train_variant(
                variant, bench.training, bench.training_latents, bench.sizes.seconds, SEED
            )
            return judged(draw_digits(model.eval(), latents, 10)) | {"epochs": epochs, "spent": spent}

        f = bench.measure(f"G-short-{place}", train)
        short_seconds += f["seconds"]
        label = "the shipped recipe" if name == base else name
        rows.append(
            [
                label,
                f"{f['spent']:.0f}",
                f"{f['epochs']:.2f}",
                f"{f['agreement']:.1f}",
                f"{f['mse']:.1e}",
                f"{f['share']:.2f}",
            ]
        )
    short = table(["one thing changed", "seconds", "epochs", "agreement, %", "MSE", "Frechet / floor"], rows)
    return (
        f"On {len(real):,} test digits from their latents and a random x_T, eta 0.\n\n**Spacing** of the steps, with "
        f"the shipped weights: Frechet distance as a share of the floor, and in brackets MSE.\n\n{spaced}\n**EMA** "
        "in the middle of a run, where the learning rate is still high (10 steps); at the end of a run it has "
        f"fallen to 0, and both are nearly the same.\n\n{averaged}\n**Loss and conditioning**: new models, trained "
        f"for about the same short time (10 steps; what wins here need not win a long run). {short_seconds:,.0f} "
        f"s.\n\n{short}"
    )


def halfway_missing() -> dict:
    raise RuntimeError("expected table E to have been measured before table G: run it first, or both with --only E G")


def table_h(bench: Bench) -> str:
    strengths = bench.sizes.strengths
    figures = bench.measure("H", lambda: edits(bench, bench.autoencoder, bench.model, strengths))
    rows = [
        [
            strength,
            *(f"{figures[f'edit {strength}'][key]:.{d}f}" for key, d in (("target", 1), ("kept", 1), ("drift", 4))),
            *(f"{figures[f'random {strength}'][key]:.{d}f}" for key, d in (("target", 1), ("kept", 1), ("drift", 4))),
        ]
        for strength in strengths
    ]
    head = ["strength", "read as the next class, %", "as its own, %", "drift, MSE"]
    return (
        f"{bench.sizes.some:,} test digits, each moved along the linear classifier's direction of the next class (9 "
        "towards 0) and, for comparison, as far in a random direction; strength in standard deviations; 10 steps "
        f"from a random x_T. Drift is the mean squared error to the digit itself. {figures['seconds']:,.0f} s.\n\n"
        + table([*head, *(f"random: {name}" for name in head[1:])], rows)
    )


def table_i(bench: Bench) -> str:
    real, times = bench.real(bench.sizes.some), (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
    latents = core.encode_all(bench.autoencoder, real)
    codes = {
        "its own latent": latents,
        "another digit's": latents.roll(1, dims=0),
        "the mean latent": torch.zeros_like(latents),
    }

    def compute() -> dict:
        return {
            name: core.loss_by_time(bench.model, real.images, z, torch.tensor(times), seeded()).tolist()
            for name, z in codes.items()
        }

    figures = bench.measure("I", compute)
    rows = [[name, *(f"{loss:.4f}" for loss in figures[name])] for name in codes]
    return (
        f"The loss (velocity, MSE) on {len(real):,} test digits, by diffusion time. {figures['seconds']:,.0f} s.\n\n"
        + table(["latent", *(f"t = {time:g}" for time in times)], rows)
    )


def table_j(bench: Bench) -> str:
    count = bench.sizes.some
    crowds = {
        "held-out test digits": lambda: bench.real(count).images,
        "digits from nothing (latent DDIM)": lambda: draw_digits(
            bench.model, core.LatentPrior.from_pretrained().sample_latents(count, seeded()), 20
        ),
        "test digits drawn from their latents": lambda: draw_digits(
            bench.model, core.encode_all(bench.autoencoder, bench.real(count)), 20
        ),
    }

    def compute() -> dict:
        known = bench.training.images
        figures, known_features = {}, bench.judge.read(known)[0]
        for name, draw in crowds.items():
            images = draw()
            pixels = core.nearest_distances(images.flatten(1), known.flatten(1))
            features = core.nearest_distances(bench.judge.read(images)[0], known_features)
            for kind, distances in (("pixels", pixels), ("features", features)):
                figures[f"{name}, {kind}"] = distances.quantile(torch.tensor([0.01, 0.5])).tolist()
        return figures

    figures = bench.measure(f"J-{digest(PRIOR)}", compute)
    rows = [
        [name, *(f"{value:.3f}" for kind in ("pixels", "features") for value in figures[f"{name}, {kind}"])]
        for name in crowds
    ]
    return (
        f"The distance to the nearest of {len(bench.training):,} training digits, for {count:,} digits of each kind: "
        "the nearest hundredth, and the median. Copies of training digits would lie nearer than held-out digits do. "
        f"{figures['seconds']:,.0f} s.\n\n"
        + table(["digits", "pixels, 1%", "pixels, median", "judge's features, 1%", "features, median"], rows)
    )


TABLES = {
    "A": ("Steps and eta", table_a),
    "B": ("There and back: inversion against steps", table_b),
    "C": ("What is kept, and what comes back", table_c),
    "D": ("A linear probe on the latent", table_d),
    "E": ("Frozen against joint encoder", table_e),
    "F": ("Digits from nothing", table_f),
    "G": ("Ablations", table_g),
    "H": ("Edits towards a class", table_h),
    "I": ("Does the model use z?", table_i),
    "J": ("Memorisation", table_j),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 digits and smaller grids")
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, help="measure only these, and write nothing but what is kept"
    )
    options = parser.parse_args()
    bench = Bench(QUICK if options.quick else Sizes(), ROOT / "output" / "tables")
    if options.only:
        for letter in options.only:
            TABLES[letter][1](bench)
        return
    command = "make tables-quick" if options.quick else "make tables"
    parts = [
        f"# Results\n\nWritten by `{command}` (`benchmarks/tables.py`) with the shipped weights, seed {SEED}, on "
        f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()} and torch {torch.__version__}. Nothing "
        "was tuned on test digits. Seconds are those of a machine that did other things besides.\n"
    ]
    for letter, (title, write) in TABLES.items():
        parts.append(f"\n## {letter}. {title}\n\n{write(bench)}")
    output = ROOT / ("output/tables-quick.md" if options.quick else "RESULTS.md")
    with core.write_whole(output) as temporary:
        temporary.write_text("".join(parts))
    print(f"written: {output}")


if __name__ == "__main__":
    main()
