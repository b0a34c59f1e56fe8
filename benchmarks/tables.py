"""The tables of docs/results.md: what the shipped weights can do, beside the papers' own tables.

python benchmarks/tables.py              all tables, about an hour on one core
python benchmarks/tables.py --only K     the goals alone, about half of that
python benchmarks/tables.py --quick      on few digits, in a few minutes; prints the tables and writes nothing
python benchmarks/tables.py --weights output/trained     K of the weights from `make train`, beside the shipped ones

Each cell is kept in output/tables, in a folder named by the weights and the sizes: after a kill, the same command goes
on from there. To measure again, delete that folder. docs/results/<letter>.json is written when a table is complete.
"""

import argparse
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import measure
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

    digits: int = 10_000  # test digits for K's first rows, samples for its last
    some: int = 1_000  # test digits for table A and most of K, samples for table F
    edited: int = 200  # test digits for K's edits and table C
    few: int = 20  # test digits for table B
    probe: int = 54_000  # training digits for the linear probes
    fitted: int = 10_000  # training digits for the Gaussians of table F
    steps: tuple[int, ...] = (10, 20, 50, 100)  # tables A and B


QUICK = Sizes(60, 60, 6, 6, 2_000, 1_000, (5, 10))


class Bench:
    """The digits, the models (from a folder, or the shipped ones), and what has been measured with them."""

    def __init__(self, sizes: Sizes, weights: Path | None = None):

        def load(kind: type):
            return kind.from_pretrained(weights and weights / kind.pretrained_file)

        self.sizes = sizes
        self.train, self.validation, self.test = map(core.load_mnist, ("train", "validation", "test"))
        self.autoencoder, self.model = load(core.SimpleAutoencoder), load(core.DiffusionModel)
        self.prior, self.classifier = load(core.LatentPrior), core.DigitClassifier.from_pretrained()
        name = hashlib.sha256(f"{asdict(sizes)} {self.train.source}".encode()).hexdigest()[:8]
        self.folder = measure.ROOT / "output" / "tables" / f"{measure.weights(weights)}-{name}"

    def cell(self, name: str, compute: Callable[..., dict], *arguments) -> dict:
        """What ``compute`` gives, computed once and kept in a file."""
        return measure.kept(self.folder / f"{name}.json", partial(compute, *arguments))

    def indices(self, count: int) -> Tensor:
        """Of ``count`` test digits, evenly spaced."""
        return torch.arange(count) * len(self.test) // count

    @cache  # noqa: B019 (one Bench lives as long as the process)
    def real(self, count: int) -> core.Digits:
        return self.test.subset(self.indices(count))

    def other_real(self, count: int) -> core.Digits:
        """As many other test digits, or training digits where too few are left."""
        left = torch.ones(len(self.test), dtype=torch.bool).index_fill(0, self.indices(count), False)
        enough = int(left.sum()) >= count
        return self.test.subset(left).subset(slice(0, count)) if enough else self.train.subset(slice(count, 2 * count))

    @cache  # noqa: B019
    def reference(self, count: int) -> measure.Reference:
        return measure.Reference(self.classifier, self.real(count), self.train)

    def encode(self, digits: core.Digits) -> Tensor:
        return self.autoencoder.encode_dataset(digits).tensors[0]

    @cached_property
    def directions(self) -> Tensor:
        known = self.train.subset(slice(0, self.sizes.probe))
        return core.class_directions(self.encode(known), known.labels)


def mse(a: Tensor, b: Tensor) -> float:
    return F.mse_loss(a, b).item()


def table_a(bench: Bench) -> dict:
    """Steps and eta."""
    reference, steps, rows = bench.reference(bench.sizes.some), bench.sizes.steps, []
    latents, labels = bench.encode(reference.real), reference.real.labels

    def measured(num_steps: int, eta: float) -> dict:
        return reference.measure(generate(bench.model, latents, num_steps, eta=eta, spacing="uniform"), labels)

    for eta, paper in ((0.0, (13.36, 6.84, 4.67, 4.16)), (1.0, (41.07, 18.36, 8.01, 5.78))):  # DDIM's table 1
        cells = [bench.cell(f"A-{s}-{eta:g}", measured, s, eta) for s in steps]
        rows.append([eta, *([found["FD ratio"], found["accuracy"]] for found in cells), *paper[: len(steps)]])
    columns = ["eta", *(f"{s} steps: FD ratio (accuracy, %)" for s in steps), *(f"paper, {s}" for s in steps)]
    formats = ["{:g}", *["{:.3f} ({:.1f})"] * len(steps), *["{:.2f}"] * len(steps)]
    return {"A": table(columns, rows, formats, **{"test digits": len(labels), "reference FD": reference.distance})}


def table_b(bench: Bench) -> dict:
    """Inversion and back."""
    real, steps, rows = bench.real(bench.sizes.few), bench.sizes.steps, []
    latents = bench.encode(real)

    def measured(*settings) -> dict:
        return {"MSE": mse(measure.inverted(bench.model, real.images, latents, *settings), real.images)}

    for spacing, count in itertools.product(("uniform", "quadratic"), (0, 1, 3)):
        cells = [bench.cell(f"B-{spacing}-{count}-{s}", measured, s, spacing, count) for s in steps]
        rows.append([f"{spacing}, {count}", f"{2 + count} x steps", *(found["MSE"] for found in cells)])
    rows.append(["DDIM's table 2 (CIFAR-10)", "2 x steps", *(0.014, 0.0065, 0.0023, 0.0009)[: len(steps)]])
    columns = ["spacing, fixed-point iterations", "NFE", *(f"{s} steps: MSE" for s in steps)]
    return {"B": table(columns, rows, ["", "", *["{:.1e}"] * len(steps)], **{"test digits": len(real)})}


def table_c(bench: Bench) -> dict:
    """What is kept, and what comes back."""
    real = bench.real(bench.sizes.edited)
    images, z = real.images, bench.encode(real)
    mean, decoded = torch.zeros_like(z), partial(generate, bench.model)
    back = partial(measure.inverted, bench.model, images)
    best, papers = (20, "quadratic", 1), (100, "uniform", 0)
    ways: dict[str, Callable[[], Tensor]] = {
        "z, the autoencoder's own decoder": lambda: core.in_batches(bench.autoencoder.decode, z),
        "z + random x_T": lambda: decoded(z),
        "z + random x_T, latent_noise=0": lambda: decoded(z, latent_noise=0.0),
        "z + inverted x_T": lambda: back(z, *best),
        "z + inverted x_T, as the paper does it: 100 steps, uniform, 0 iterations": lambda: back(z, *papers),
        "x_T inverted with z, then the mean latent instead of z": lambda: back(z, *best, mean),
        "x_T inverted with the mean latent, and the mean latent": lambda: back(mean, *best),
    }

    def likeness(way: Callable[[], Tensor]) -> dict:
        found = way()
        ssim = structural_similarity_index_measure(found, images, data_range=1.0)
        return {"SSIM": float(ssim), "MSE": mse(found, images)}

    cells = [bench.cell(f"C-{place}", likeness, way) for place, way in enumerate(ways.values())]
    rows = [[name, found["SSIM"], found["MSE"]] for name, found in zip(ways, cells)]
    rows.append(["Diffusion Autoencoders' table 1: z + inverted x_T, 100 steps, faces", 0.991, 6.07e-05])
    return {"C": table(["what is kept", "SSIM", "MSE"], rows, ["", "{:.5f}", "{:.1e}"], **{"test digits": len(real)})}


def probe(bench: Bench, features: Callable[[core.Digits], Tensor], strengths: tuple[float, ...]) -> dict:
    """A linear classifier on features; how it is regularised is chosen on validation digits, never on test digits."""
    train = bench.train.subset(slice(0, bench.sizes.probe))
    known, seen, inputs = (features(digits).numpy() for digits in (train, bench.validation, bench.test))
    fitted = [LogisticRegression(C=c, max_iter=100).fit(known, train.labels.numpy()) for c in strengths]
    best = max(fitted, key=lambda one: one.score(seen, bench.validation.labels.numpy()))
    labels, chances = bench.test.labels.numpy(), best.predict_proba(inputs)
    areas = [roc_auc_score(labels == label, chances[:, label]) for label in range(10)]
    return {"n": len(labels), "accuracy of the probe, %": 100 * best.score(inputs, labels), "areas": areas}


def latent_probe(bench: Bench) -> dict:
    return probe(bench, bench.encode, (0.001, 0.01, 0.1))


def pixel_probe(bench: Bench) -> dict:
    return probe(bench, lambda digits: digits.images.flatten(1), (0.01, 0.1, 1.0))


def table_d(bench: Bench) -> dict:
    """A linear probe on the latent."""
    probes = {"latents, 256 numbers": latent_probe, "pixels, 784 numbers": pixel_probe}
    cells = [bench.cell(f"D-{place}", one, bench) for place, one in enumerate(probes.values())]
    rows = [[n, f["accuracy of the probe, %"], sum(f["areas"]) / 10, *f["areas"]] for n, f in zip(probes, cells)]
    columns = ["features", "accuracy, %", "mean AUROC", *map(str, range(10))]
    facts = {"training digits": min(bench.sizes.probe, len(bench.train)), "test digits": len(bench.test)}
    return {"D": table(columns, rows, ["", "{:.2f}", *["{:.4f}"] * 11], **facts)}


def table_f(bench: Bench) -> dict:
    """Unconditional samples."""
    count = bench.sizes.some
    reference = bench.reference(count)

    def gaussians(number: int) -> Tensor:
        known = bench.encode(bench.train.subset(slice(0, bench.sizes.fitted))).double()
        fitted = GaussianMixture(number, reg_covar=1e-4, random_state=0).fit(known.numpy())
        return torch.from_numpy(fitted.sample(count)[0]).float()

    def measured(make: Callable[[], Tensor]) -> dict:
        images = make()
        classes = torch.bincount(bench.classifier.classify(images)[1], minlength=10) / len(images) * 10
        nearest = core.metrics.nearest_distances(images.flatten(1), bench.train.images.flatten(1))
        found = {"nearest": [nearest.quantile(0.01).item(), nearest.median().item()], "classes": classes.tolist()}
        return reference.measure(images) | found

    sets: dict[str, Callable[[], Tensor]] = {
        "other real digits": lambda: bench.other_real(count).images,
        "latents of the test digits themselves": lambda: generate(bench.model, bench.encode(reference.real)),
        "latent prior": lambda: generate(bench.model, bench.prior.sample_latents(count, generator=core.seeded(6))),
        "mixture of 10 Gaussians": lambda: generate(bench.model, gaussians(10)),
        "one Gaussian": lambda: generate(bench.model, gaussians(1)),
    }
    cells = [bench.cell(f"F-{place}", measured, make) for place, make in enumerate(sets.values())]
    values = ("FD ratio", "precision", "recall", "nearest")
    rows = [[name, *(found[value] for value in values), *found["classes"]] for name, found in zip(sets, cells)]
    columns = ["where the latent is from", *values[:3], "nearest training digit: 1% (median)", *map(str, range(10))]
    formats = ["", "{:.2f}", "{:.3f}", "{:.3f}", "{:.2f} ({:.2f})", *["{:.2f}"] * 10]
    return {"F": table(columns, rows, formats, samples=count, **{"reference FD": reference.distance})}


def as_they_are(bench: Bench, **options) -> dict:
    real = bench.real(bench.sizes.digits)
    images = generate(bench.model, bench.encode(real), **options)
    accuracy = bench.classifier.accuracy(images, real.labels)
    return {"n": len(real), "accuracy, %": accuracy, "MSE": mse(images, real.images)}


def half_way(bench: Bench, refine_time: float = 0.0) -> Tensor:
    """Half-way between each digit and its partner."""
    real = bench.real(bench.sizes.some)
    z = bench.encode(real)
    middle = core.lerp(z, z[measure.partners(real.labels)], 0.5)
    return bench.prior.refine(middle, refine_time, generator=core.seeded(2)) if refine_time else middle


def other_labels(bench: Bench) -> tuple[core.Digits, Tensor]:
    """Each of some test digits nine times, and the nine other classes."""
    real = bench.real(bench.sizes.edited)
    real = real.subset(torch.arange(len(real)).repeat_interleave(9))
    return real, (real.labels + torch.arange(1, 10).repeat(len(real) // 9)) % 10


def relabelled(bench: Bench) -> dict:
    """Each digit as each of the nine other classes, in its own handwriting."""
    real, wanted = other_labels(bench)
    z_T = bench.prior.invert(bench.encode(real), real.labels)
    images = generate(bench.model, bench.prior.generate(z_T, wanted, guidance=core.demo.GUIDANCE))
    values = bench.reference(bench.sizes.some).measure(images, wanted)
    kept = core.metrics.strokes_kept(real.images, images, real.labels, wanted)
    values |= {f"{name} kept": value for name, value in kept.items()}
    return values | {"n": len(wanted), "becomes it, %": values["accuracy"]}


def edited(bench: Bench) -> tuple[Tensor, Tensor]:
    """The paper's way: towards each of the nine other classes, refined with the label; and these labels."""
    real, wanted = other_labels(bench)
    z = core.edit(bench.encode(real), bench.directions[wanted], 1.5)
    return bench.prior.refine(z, 0.6, labels=wanted, generator=core.seeded(3)), wanted


def turned(bench: Bench, angle: float, **options) -> dict:
    """The handwriting turned by an angle, the label kept."""
    real = bench.real(bench.sizes.some)
    z_T = core.turn(bench.prior.invert(bench.encode(real), real.labels, **options), angle, core.seeded(7))
    images = generate(bench.model, bench.prior.generate(z_T, real.labels, **options))
    values = bench.reference(len(real)).measure(images, real.labels)
    change = mse(images, real.images)
    return values | {"n": len(real), "class kept, %": values["accuracy"], "pixel change": change}


def arc(bench: Bench) -> dict:
    """Nine frames on the arc from each digit's handwriting to its partner's, the label switched in the middle."""
    real = bench.real(bench.sizes.some)
    z_T = bench.prior.invert(bench.encode(real), real.labels)
    partner = measure.partners(real.labels)
    worst = 1.0
    for share in torch.linspace(0, 1, 11)[1:-1].tolist():
        labels = real.labels if share < 0.5 else real.labels[partner]
        latents = bench.prior.generate(core.slerp(z_T, z_T[partner], share), labels)
        values = bench.reference(len(real)).measure(generate(bench.model, latents))
        worst = min(worst, values["precision"])
    return {"n": len(real), "precision": worst}


def round_trip(bench: Bench) -> dict:
    """Latents to their z_T and back."""
    real = bench.real(bench.sizes.some)
    z = bench.encode(real)
    return {"n": len(real), "MSE": mse(bench.prior.generate(bench.prior.invert(z, real.labels), real.labels), z)}


def close(*bounds: float | None, metric: str = "FD ratio") -> dict:
    """The metrics of a case, ``metric`` and precision, and for both, if set: the value it must have, and the goal."""
    must, reach, precision_must, precision = bounds or [None] * 4
    return {metric: (must, reach), "precision": (precision_must, precision)}


def goals(bench: Bench) -> list[tuple]:
    """Table K: the case, what gives its values, and for each metric (must, reach for)."""
    some, full = bench.sizes.some, bench.sizes.digits
    real, classes = bench.real(some), torch.arange(some) % 10
    z, middle = bench.encode(real), partial(half_way, bench)
    noise, sample = torch.randn(z.shape, generator=core.seeded(1)), bench.prior.sample_latents
    digits = real_values(bench, some)["precision"]  # what real digits have
    others, distance = bench.other_real(full), {"FD ratio": (None, None)}
    copies = {"accuracy, %": (99.4, 99.6), "MSE": (0.0033, 0.002)}
    uniform = {"num_steps": 20, "spacing": "uniform"}

    def decoded(latents: Tensor, labels: Tensor | None = None, count: int = some, **options) -> dict:
        values = bench.reference(count).measure(generate(bench.model, latents, **options), labels)
        return values | {"n": len(latents), "becomes it, %": values.get("accuracy")}

    def back() -> dict:
        return {"n": some, "MSE": mse(measure.inverted(bench.model, real.images, z, 20, "quadratic", 1), real.images)}

    def free(count: int, **options) -> dict:
        return decoded(sample(count, generator=core.seeded(4), **options), count=count)

    def of_a_class() -> dict:
        return decoded(sample(some, classes, guidance=1.5, generator=core.seeded(5)), classes)

    kept = {
        "thickness kept": (0.75, 0.85),
        "ink kept": (0.66, 0.8),
        "slant kept": (0.3, 0.6),
        "height kept": (None, None),
    }
    becomes = close(99.5, 99.9, digits - 0.01, digits, metric="becomes it, %")
    return [
        ("as they are", lambda: as_they_are(bench), copies),
        ("as they are, 20 uniform steps", lambda: as_they_are(bench, **uniform), copies),
        ("as they are, latent_noise=0", lambda: as_they_are(bench, latent_noise=0.0), copies),
        ("as they are, inverted x_T, 20 steps, 1 iteration", back, {"MSE": (1e-6, 1e-7)}),
        ("latent + 1 std", lambda: decoded(z + noise), close(0.3, 0.15, 0.93, 0.95)),
        ("latent + 2 std", lambda: decoded(z + 2 * noise), close(1.6, 1.2, 0.85, 0.90)),
        ("half-way between classes", lambda: decoded(middle()), close(2.5, 1.5, 0.82, 0.88)),
        (
            "half-way between classes, 20 uniform steps",
            lambda: decoded(middle(), **uniform),
            close(2.5, 1.5, 0.82, 0.88),
        ),
        (
            "half-way between classes, latent_noise=1.75",
            lambda: decoded(middle(), latent_noise=1.75),
            close(4.5, 3, 0.80, 0.85),
        ),
        (
            "half-way, refined at t = 0.6, latent_noise=1.5",
            lambda: decoded(middle(0.6), latent_noise=1.5),
            close(2, 1.5, 0.86, 0.90),
        ),
        ("latents to z_T and back", partial(round_trip, bench), {"MSE": (1e-3, 1e-5)}),
        (
            "handwriting turned by 0.8 rad",
            lambda: turned(bench, 0.8),
            close(97, 99, digits - 0.01, digits, metric="class kept, %") | {"pixel change": (0.03, 0.04)},
        ),
        (
            "handwriting turned by 0.8 rad, 50 steps of the prior",
            lambda: turned(bench, 0.8, num_steps=50),
            {"class kept, %": (None, None), "precision": (None, None), "pixel change": (None, None)},
        ),
        (
            "arc between two digits, the worst of nine frames",
            lambda: arc(bench),
            {"precision": (digits - 0.02, digits)},
        ),
        ("another label, in the same handwriting", partial(relabelled, bench), becomes | kept),
        (
            "another label by the paper's way (edit, refine)",
            lambda: decoded(*edited(bench), latent_noise=1.0),
            close(99.5, 99.9, 0.93, 0.96, metric="becomes it, %"),
        ),
        ("from the prior, label hidden", lambda: free(some, labels=0, guidance=0.0), close()),
        ("from the prior, any class", lambda: free(some), close(1.5, 1.0, None, None)),
        ("from the prior, any class", lambda: free(full), {"FD ratio": (2.75, 1.3)}),
        ("from the prior, the labels of the other real digits", lambda: free(full, labels=others.labels), distance),
        (
            "the other real digits, decoded from their latents",
            lambda: decoded(bench.encode(others), count=full),
            distance,
        ),
        (
            "of a wanted class, guidance 1.5",
            of_a_class,
            {"becomes it, %": (99.5, 99.9)} | close(0.8, 0.6, 0.95, 0.97),
        ),
        (
            "latent probe (logistic regression on z)",
            lambda: latent_probe(bench),
            {"accuracy of the probe, %": (93.4, 97)},
        ),
    ]


# The rows of K that README.md shows: case, n, metric.
SUMMARY = (
    ("as they are", 10_000, "accuracy, %"),
    ("half-way between classes", 1_000, "precision"),
    ("handwriting turned by 0.8 rad", 1_000, "class kept, %"),
    ("another label, in the same handwriting", 1_800, "becomes it, %"),
    ("another label, in the same handwriting", 1_800, "thickness kept"),
    ("from the prior, any class", 10_000, "FD ratio"),
)
FORMS = {"MSE": "{:.2g}", "precision": "{:.3f}", "pixel change": "{:.4f}", "thickness kept": "{:.3f}"}


def reached(metric: str, value: float, must: float | None, reach: float | None) -> str | None:
    if must is None or reach is None:
        return None
    sign = -1 if metric in ("MSE", "FD ratio") else 1  # for these, less is better
    return "reached" if sign * value >= sign * reach else "must" if sign * value >= sign * must else "**short**"


def real_values(bench: Bench, count: int) -> dict:
    """What other real digits have; the accuracy is the classifier's, on all test digits."""
    share = bench.classifier.accuracy(bench.test.images, bench.test.labels)
    found = bench.reference(count).measure(bench.other_real(count).images)
    return found | {"accuracy, %": share, "becomes it, %": share, "class kept, %": share}


def table_k(bench: Bench) -> dict:
    """What changed latents decode to, beside the goals and other real digits."""
    some, full, rows, summary = bench.sizes.some, bench.sizes.digits, [], []
    real = {n: bench.cell(f"K-real-{n}", real_values, bench, n) for n in (some, full)}
    for place, (case, compute, wanted) in enumerate(goals(bench)):
        found = bench.cell(f"K-{place} {case}", compute)
        count = found["n"]
        for metric, bounds in wanted.items():
            values = (found[metric], real.get(count, real[some]).get(metric), *bounds)
            texts = [None if value is None else FORMS.get(metric, "{:.2f}").format(value) for value in values]
            rows.append([case, count, metric, *texts, reached(metric, found[metric], *bounds)])
            if (case, count, metric) in SUMMARY:
                summary.append(rows[-1][:5])
    columns = ["case", "n", "metric", "measured", "other real digits", "must", "reach for", "goal"]
    formats, facts = ["", "{:,}", *[""] * 6], {"reference FD": bench.reference(some).distance}
    return {"K": table(columns, rows, formats, **facts), "summary": table(columns[:5], summary, formats[:5])}


def beside_the_shipped(bench: Bench) -> dict:
    """Table K of the bench's weights, beside that of the shipped ones."""
    shipped = json.loads((measure.RESULTS / "K.json").read_text())["tables"]["K"]["rows"]
    again = table_k(bench)["K"]["rows"]
    rows = [[*row[:4], other[3]] for row, other in zip(shipped, again, strict=True)]
    return {"retrained": table(["case", "n", "metric", "shipped", "trained again"], rows, ["", "{:,}", "", "", ""])}


TABLES = {"K": table_k, "A": table_a, "B": table_b, "C": table_c, "D": table_d, "F": table_f}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few digits; nothing is written")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="only these tables")
    parser.add_argument("--weights", type=Path, help="a folder that train_ddim_mnist.py wrote: K alone")
    parser.add_argument("--note", help="printed with the tables: what else the machine did, say")
    options = parser.parse_args()
    bench = Bench(QUICK if options.quick else Sizes(), options.weights)
    tables = {letter: (TABLES[letter], f"--only {letter}") for letter in options.only}
    if options.weights:
        tables = {"retrained": (beside_the_shipped, f"--weights {options.weights}")}
    for letter, (measured, arguments) in tables.items():
        found, command = measured(bench), f"python benchmarks/tables.py {arguments}"
        if options.quick:
            made_with = {"command": f"{command} --quick", "machine": measure.machine(), "commit": "", "weights": "none"}
            print(*(f"\n{name}\n{render.markdown(one, made_with)}" for name, one in found.items()), flush=True)
        else:
            measure.write(letter, command, found, **({"note": options.note} if options.note else {}))


if __name__ == "__main__":
    main()
