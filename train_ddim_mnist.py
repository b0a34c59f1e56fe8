"""The whole recipe from a terminal: autoencoder, diffusion model, latent prior, pictures, and how good they are.

python train_ddim_mnist.py                 train everything from scratch, into ./output
python train_ddim_mnist.py --resume        go on after a kill or Ctrl-C
python train_ddim_mnist.py --pretrained    use the shipped weights: pictures and metrics in about a minute
python train_ddim_mnist.py --data FOLDER   train on pictures of your own, in one folder for each class
"""

import argparse
import logging
import math
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

import diffae_core as core

log = logging.getLogger("diffae_core.script")
M = TypeVar("M", bound=core.model.Model)
SAVE_EVERY_STEPS = 200  # at most this much training is lost in a kill
LINE_EVERY_SECONDS = 10  # where the output is no terminal
CPU_MINUTES_AN_EPOCH = {"autoencoder": 0.3, "diffusion": 1.6, "prior": 0.1, "classifier": 0.6}  # 54,000 digits, 2 cores


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output-dir", type=Path, default=Path("output"), help="where all files go (%(default)s)")
    add("--pretrained", action="store_true", help="use the shipped weights, train nothing")
    add("--resume", action="store_true", help="go on with the unfinished run in --output-dir")
    add("--data", type=Path, help="a folder with a folder of pictures for each class, an .npz, or IDX files (MNIST)")
    add("--image-size", type=int, default=28, help="of --data, a multiple of 4 (%(default)s)")
    add("--train-digits", type=int, help="use only so many training digits (all)")
    add("--device", default="auto", help="cuda, mps, cpu or auto (%(default)s)")
    add("--seed", type=int, default=0, help="the same seed gives the same weights (%(default)s)")
    add("--autoencoder-epochs", type=float, default=5, help="(%(default)s)")
    add("--epochs", type=float, default=24, help="of the diffusion model (%(default)s)")
    add("--prior-epochs", type=float, default=100, help="of the latent prior; 0 for none (%(default)s)")
    add("--train-classifier", action="store_true", help="train the classifier too, instead of using the shipped one")
    add("--batch-size", type=int, default=64, help="of the diffusion model (%(default)s)")
    add("--learning-rate", type=float, default=3e-3, help="the diffusion model's peak (%(default)s)")
    add("--latent-noise", type=float, default=2, help="the most noise on a latent in its training (%(default)s)")
    add("--latent-dim", type=int, default=256, help="(%(default)s)")
    add("--widths", type=int, nargs="+", default=[32, 64, 128], help="of the U-Net (32 64 128)")
    add("--block-depth", type=int, default=2, help="of the U-Net (%(default)s)")
    add("--time-embedding-dim", type=int, default=32, help="(%(default)s)")
    add("--feature-embedding-dim", type=int, default=64, help="(%(default)s)")
    add("--num-steps", type=int, default=20, help="DDIM steps in the pictures (%(default)s)")
    add("--quality-digits", type=int, default=500, help="test digits to measure on; below 10: none (%(default)s)")
    return parser.parse_args(arguments)


def drive(run: core.Training, name: str, options: argparse.Namespace, each_epoch=lambda epoch: None) -> None:
    """Run a training to its end, saving it as it goes; Ctrl-C stops after the step under way, so nothing is lost."""
    state, stop = options.output_dir / f"{name}_training.pt", []
    if state.exists():
        if not options.resume:
            raise FileExistsError(f"found an unfinished run, {state}: add --resume to go on with it, or delete it")
        run.resume(state)

    def ask_to_stop(*_) -> None:
        stop.append(True)
        signal.signal(signal.SIGINT, handler)  # a second Ctrl-C stops at once

    handler = signal.signal(signal.SIGINT, ask_to_stop)
    smooth_loss, line_at, terminal = None, time.monotonic() + LINE_EVERY_SECONDS, sys.stderr.isatty()
    try:
        with tqdm(total=len(run), initial=run.step, desc=name, unit="step", disable=not terminal) as bar:
            for record in run:
                if not math.isfinite(record.loss):
                    raise ValueError(
                        f"the loss of the {name} is {record.loss} at step {record.step}: start anew in another folder, "
                        f"with another --seed or a lower --learning-rate; its last state is {state}"
                    )
                smooth_loss = record.loss if smooth_loss is None else 0.98 * smooth_loss + 0.02 * record.loss
                bar.set_postfix(epoch=f"{record.epoch:.2f}", loss=f"{smooth_loss:.4f}", refresh=False)
                bar.update()
                if not terminal and (time.monotonic() > line_at or record.step == len(run)):
                    log.info("%s: step %d of %d, loss %.4f", name, record.step, len(run), smooth_loss)
                    line_at = time.monotonic() + LINE_EVERY_SECONDS
                if record.step % run.steps_per_epoch == 0:
                    each_epoch(record.step // run.steps_per_epoch)  # before saving: after a kill it is made again
                if stop or record.step % SAVE_EVERY_STEPS == 0:
                    run.save(state)
                if stop:
                    raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, handler)


def train_or_load(name: str, outline: M, start, options: argparse.Namespace, each_epoch=None) -> M:
    """The shipped model, the one in the output folder, or a newly trained one, with the sizes of ``outline``."""
    kind = type(outline)
    path = options.output_dir / kind.pretrained_file
    shipped = options.pretrained or (name == "classifier" and not options.train_classifier and not path.exists())
    if shipped or path.exists():
        model = kind.from_pretrained(None if shipped else path, options.device)
        differing = {
            key: (size, model.config[key]) for key, size in outline.config.items() if model.config[key] != size
        }
        if differing:
            wanted = ", ".join(f"{key} {size} (it has {found})" for key, (size, found) in differing.items())
            raise ValueError(f"expected {path.name} with {wanted}: use its own sizes, or another --output-dir")
        if not shipped:
            log.info("%s: found, so not trained", path)
        return model
    torch.manual_seed(options.seed)
    model = kind(**outline.config, device=options.device)
    run = start(model)
    drive(run, name, options, *([lambda epoch: each_epoch(epoch, run.ema_model)] if each_epoch else []))
    model.save_checkpoint(path)
    options.written.append(path)
    (options.output_dir / f"{name}_training.pt").unlink(missing_ok=True)
    return model


def measure(autoencoder, model, classifier, train: core.Digits, test: core.Digits, options) -> None:
    """Print :func:`diffae_core.quality` as a Markdown table, and write it to quality.md."""
    count = min(options.quality_digits, len(test), len(train))
    metrics = core.quality(autoencoder, model, classifier, test.spaced(count), train, options.seed, progress=tqdm)
    rows = [
        f"| {name} | {value:.2f} |" if "%" in name else f"| {name} | {value:.4g} |" for name, value in metrics.items()
    ]
    head = f"| on {count:,} test digits, random x_T, 20 steps, eta 0 | value |"
    table = "\n".join([head, "|---|---|", *rows]) + "\n"
    options.written.append(options.output_dir / "quality.md")
    with core.checkpoints.atomic_write(options.written[-1]) as temporary:
        temporary.write_text(table)
    print(table)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffae_core").setLevel(logging.INFO)
    options.device, options.written = core.choose_device(options.device), []
    options.output_dir = options.output_dir.expanduser()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(options.output_dir / ".lock")  # free again when this process ends, however it ends
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(
            f"another run writes to {options.output_dir}: wait for it, or choose another --output-dir"
        ) from None

    # Every option is checked here, before anything is trained: configurations, and models without memory.
    splits = ("train", "validation", "test")
    train, _, test = (
        core.load_digits(options.data, options.image_size) if options.data else map(core.load_mnist, splits)
    )
    if options.train_digits is not None and options.train_digits < 1:
        raise ValueError(f"expected --train-digits of 1 or more, got {options.train_digits}")
    train = train.subset(slice(0, options.train_digits))
    size, latent_dim, meta = train.pixels.shape[-1], options.latent_dim, torch.device("meta")
    autoencoder = core.SimpleAutoencoder(latent_dim, size, device=meta)
    embeddings = options.time_embedding_dim, options.feature_embedding_dim
    model = core.DiffusionModel(*embeddings, options.widths, options.block_depth, latent_dim, size, device=meta)
    core.step_times(options.num_steps)
    if not 0 <= options.latent_noise <= 100:
        raise ValueError(f"expected --latent-noise from 0 to 100, got {options.latent_noise}")
    default = core.TrainingConfig(seed=options.seed)
    coder = replace(default, epochs=options.autoencoder_epochs)
    main_run = replace(
        default, epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate
    )
    plan = {"autoencoder": coder.epochs, "diffusion": main_run.epochs}
    prior = classifier = None
    if options.prior_epochs:
        prior = core.LatentPrior(latent_dim, num_classes=train.num_classes, device=meta)
        prior_run = replace(default, epochs=options.prior_epochs, batch_size=256, learning_rate=2e-3, ema_decay=0.999)
        plan["prior"] = prior_run.epochs
    if options.quality_digits >= 10 and train.num_classes >= 2:
        classifier = core.DigitClassifier(train.num_classes, size, device=meta)
        options.train_classifier |= options.data is not None
        plan |= {"classifier": 6} if options.train_classifier else {}
    minutes = sum(CPU_MINUTES_AN_EPOCH[name] * epochs for name, epochs in plan.items()) * len(train) / 54_000
    effort = f"about {max(1, round(minutes))} minutes on 2 cores" if not options.pretrained else "shipped weights"
    log.info("%s, %s training digits, %s, into %s", options.device, f"{len(train):,}", effort, options.output_dir)

    def save_samples(epoch: int, ema_model: core.DiffusionModel) -> None:
        if epoch % 5 == 0:
            latents = autoencoder.encode_dataset(train.subset(slice(0, 64))).tensors[0]
            samples = ema_model.generate(latents, options.num_steps, generator=core.seeded(options.seed))
            options.written.append(options.output_dir / "samples" / f"epoch_{epoch:03d}.png")
            core.plotting.save_png(samples, options.written[-1], columns=16)

    autoencoder = train_or_load(
        "autoencoder", autoencoder, lambda new: core.train_autoencoder(new, train, coder), options
    )
    start = lambda new: core.train_diffusion(new, train, autoencoder, main_run, options.latent_noise)  # noqa: E731
    model = train_or_load("diffusion", model, start, options, save_samples)
    model.check_latents_from(autoencoder)
    if prior is not None:
        start = lambda new: core.train_latent_prior(new, train, autoencoder, prior_run)  # noqa: E731
        prior = train_or_load("prior", prior, start, options)
        prior.check_latents_from(autoencoder)
    demo = core.Demo(autoencoder, model, prior, train, test, options.num_steps, options.seed)
    options.written += demo.save(options.output_dir)
    if classifier is not None:
        classifier = train_or_load("classifier", classifier, lambda new: core.train_classifier(new, train), options)
        measure(autoencoder, model, classifier, train, test, options)
    for left_over in options.output_dir.rglob(".*-????????.*"):  # half-written files of a run that was killed
        left_over.unlink()
    print("Files written:", *options.written, sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was trained is kept: the same command with --resume goes on from there.")
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")
