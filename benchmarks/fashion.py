"""Fashion-MNIST beside a paper's table: a linear classifier of the latents, and what is decoded from them.

python benchmarks/fashion.py                                       hours on one thread; goes on after a kill
python benchmarks/fashion.py --epochs 1                            an hour

The noise in the autoencoder's latent and the linear classifier's regularisation are chosen on validation images; test
images are measured on only once. Writes docs/results/fashion.json after each row, and docs/fashion.png; what was
trained and measured is kept in output/fashion.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import measure
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

import diffae_core as core

FOLDER = measure.ROOT / "output" / "fashion"
NOISES = (0.0, 0.5, 1.0)  # standard deviations of noise in the autoencoder's latent, to choose from at 32 numbers
PAPER = {"AE": 0.819, "VAE": 0.796, "DiffAE": 0.835, "InfoDiffusion": 0.839}  # arXiv 2306.08757, table 3
KINDS = ("principal components", "autoencoder", "frozen encoder", "joint encoder")  # the last two: diffusion decodes
DECODED = 1000  # test images; the linear classifier is measured on all 10,000
COLUMNS = {"latents": "", "numbers": "{:d}", "epochs": "", "validation accuracy": "{:.3f}", "test accuracy": "{:.3f}"}
COLUMNS |= {"MSE": "{:.4f}", "FD ratio": "{:.2f}", "classified correctly, %": "{:.1f}"}


def complete(name: str, start: Callable[[], core.Training], *models: core.model.Model) -> None:
    """Load the models that a training gave, or train them: ``start`` gives the run, and a killed run is resumed."""
    paths = [FOLDER / f"{name} {type(model).__name__}.pt" for model in models]
    if not all(path.exists() for path in paths):
        run, state = start(), FOLDER / f"{name} training.pt"
        if state.exists():
            run.resume(state)
        for record in run:
            if record.step % 100 == 0:
                run.save(state)
                print(f"{name}: step {record.step:,} of {len(run):,}, loss {record.loss:.4f}", flush=True)
        for model, path in zip(models, paths):
            model.save_checkpoint(path)
        state.unlink(missing_ok=True)
    for model, path in zip(models, paths):
        model.load_checkpoint(path)
        model.eval()


def kept(name: str, measured: Callable):
    """What was measured under this name before, or is measured now."""
    return measure.kept(FOLDER / f"{name}.json", measured)


def trained(kind: str, size: int, noise: float, train: core.Digits, options):
    """The autoencoder, trained with this noise in its latents, and a diffusion model, trained if diffusion decodes."""
    torch.manual_seed(0)
    autoencoder, model = core.SimpleAutoencoder(size, device="cpu"), core.DiffusionModel(latent_dim=size, device="cpu")
    config = replace(core.DIFFUSION, epochs=options.epochs)
    own = replace(core.AUTOENCODER, epochs=options.autoencoder_epochs)
    name = f"{size} numbers, {kind}, {config.epochs:g} epochs"
    if kind == "joint encoder":
        complete(name, partial(core.train_jointly, model, train, autoencoder, config), model, autoencoder)
        return autoencoder, model
    first = f"{size} numbers, noise {noise:g}, {own.epochs:g} epochs"
    complete(first, partial(core.train_autoencoder, autoencoder, train, own, noise), autoencoder)
    if kind == "frozen encoder":
        complete(name, partial(core.train_diffusion, model, train, autoencoder, config), model)
    return autoencoder, model


def probe(encode: Callable, parts: list[core.Digits]) -> tuple[LogisticRegression, float]:
    """A logistic regression on the first part's latents, the best of four on the second part's; its accuracy there."""
    known, held_out = (core.in_batches(encode, part.images) for part in parts[:2])
    fits = [LogisticRegression(C=C, max_iter=1000).fit(known, parts[0].labels) for C in (0.01, 0.1, 1.0, 10.0)]
    scores = [fit.score(held_out, parts[1].labels) for fit in fits]
    return fits[scores.index(max(scores))], max(scores)


def values(kind: str, size: int, noise: float, parts: list[core.Digits], reference, options) -> list:
    """Accuracies of the linear classifier; MSE, FD ratio and accuracy of what is decoded from the first latents."""
    if kind == "principal components":
        pca = PCA(size, whiten=True, random_state=0).fit(parts[0].images.flatten(1))
        encode, decode = (lambda images: torch.from_numpy(pca.transform(images.flatten(1)))), None
    else:
        autoencoder, model = trained(kind, size, noise, parts[0], options)
        own = partial(core.in_batches, autoencoder.decode)
        encode, decode = autoencoder.encode, own if kind == "autoencoder" else partial(measure.generate, model)
    fit, validation_accuracy = probe(encode, parts)
    real, latents = reference.real, core.in_batches(encode, parts[2].images)
    accuracies = [validation_accuracy, fit.score(latents, parts[2].labels)]
    if decode is None:
        return [*accuracies, None, None, None]
    copies = decode(latents[: len(real)])
    found = reference.measure(copies, real.labels)
    return [*accuracies, float((copies - real.images).square().mean()), found["FD ratio"], found["accuracy"]]


def picture(autoencoder: core.SimpleAutoencoder, model: core.DiffusionModel, test: core.Digits) -> bytes:
    """A test image of each class; decoded from its latent, from a noisy one, and half-way to the next class."""
    images = test.images[[int((test.labels == label).nonzero()[0]) for label in range(test.num_classes)]]
    z = core.in_batches(autoencoder.encode, images)
    noisy, half_way = z + torch.randn(z.shape, generator=core.seeded(1)), core.lerp(z, z.roll(-1, dims=0), 0.5)
    rows = {"test images": images, "from z and random x_T": measure.generate(model, z)}
    rows["from z + 1 std"] = measure.generate(model, noisy)
    rows["half-way to the next"] = measure.generate(model, half_way, latent_noise=1.0)
    return core.labelled_png(rows, zoom=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="Debian's package (%(default)s)")
    parser.add_argument("--epochs", type=float, default=6, help="of the diffusion models (%(default)s)")
    parser.add_argument("--autoencoder-epochs", type=float, default=20, help="(%(default)s)")
    options = parser.parse_args()
    parts = list(core.load_digits(options.data))
    train, _, test = parts
    FOLDER.mkdir(parents=True, exist_ok=True)

    def trial(noise: float) -> float:
        encode = trained("autoencoder", 32, noise, train, options)[0].encode
        return kept(f"noise {noise:g}, {options.autoencoder_epochs:g} epochs", lambda: probe(encode, parts)[1])

    trials = {noise: trial(noise) for noise in NOISES}
    noise = max(trials, key=trials.get)
    classifier = core.DigitClassifier(device="cpu")
    recipe = replace(core.CLASSIFIER, epochs=2)
    complete("classifier", partial(core.train_classifier, classifier, train, recipe), classifier)
    reference = measure.Reference(classifier, test.subset(slice(0, DECODED)), train)
    facts = {"decoded test images": DECODED, "reference FD": reference.distance}
    facts["real ones classified correctly, %"] = classifier.accuracy(reference.real.images, reference.real.labels)
    columns = ["noise in the autoencoder's latent, std", "validation accuracy"]
    tables = {"fashion trials": measure.table(columns, list(trials.items()), ["{:g}", "{:.3f}"], numbers=32)}
    rows = [[f"{name}, in their table 3", 32, "", None, score, None, None, None] for name, score in PAPER.items()]
    command = "python benchmarks/fashion.py --epochs {epochs:g} --autoencoder-epochs {autoencoder_epochs:g}"
    others = {"principal components": "", "autoencoder": f"{options.autoencoder_epochs:g}"}
    for size in (32, 256):
        for kind in KINDS:
            epochs = others.get(kind, f"{options.epochs:g}")
            measured = partial(values, kind, size, noise, parts, reference, options)
            rows.append([kind, size, epochs, *kept(f"{size} numbers, {kind}, {epochs} epochs", measured)])
            tables["fashion"] = measure.table(list(COLUMNS), rows, list(COLUMNS.values()), **facts)
            measure.write("fashion", command.format(**vars(options)), tables, weights="none")
    with core.checkpoints.atomic_write(measure.ROOT / "docs" / "fashion.png") as temporary:
        temporary.write_bytes(picture(*trained("frozen encoder", 32, noise, train, options), test))


if __name__ == "__main__":
    main()
