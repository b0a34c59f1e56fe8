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
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

import diffae_core as core

log = logging.getLogger("diffae_core.script")
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
    add("--epochs", type=float, default=30, help="of the diffusion model (%(default)s)")
    add("--prior-epochs", type=float, default=100, help="of the latent prior; 0 for none (%(default)s)")
    add("--train-classifier", action="store_true", help="train the classifier too, instead of using the shipped one")
    add("--batch-size", type=int, default=64, help="of the diffusion model (%(default)s)")
    add("--learning-rate", type=float, default=3e-3, help="the diffusion model's peak (%(default)s)")
    add("--latent-noise", type=float, default=2, help="the most noise on a latent in its training (%(default)s)")
    add("--mixed-share", type=float, default=0.25, help="of latents mixed with another digit's (%(default)s)")
    add("--latent-dim", type=int, default=256, help="(%(default)s)")
    add("--widths", type=int, nargs="+", default=[32, 64, 128], help="of the U-Net (32 64 128)")
    add("--block-depth", type=int, default=2, help="of the U-Net (%(default)s)")
    add("--time-embedding-dim", type=int, default=32, help="(%(default)s)")
    add("--feature-embedding-dim", type=int, default=64, help="(%(default)s)")
    add("--num-steps", type=int, default=core.diffusion.NUM_STEPS, help="DDIM steps in the pictures (%(default)s)")
    add("--quality-digits", type=int, default=500, help="test digits to measure on; below 10: none (%(default)s)")
    return parser.parse_args(arguments)


def drive(run: core.Training, name: str, options: argparse.Namespace, each_epoch) -> None:
    """Run a training to its end, saving it as it goes; Ctrl-C stops after the step under way, so nothing is lost."""
    state, stop, terminal = options.output_dir / f"{name}_training.pt", [], sys.stderr.isatty()
    if state.exists():
        if not options.resume:
            raise FileExistsError(f"found an unfinished run, {state}: add --resume to go on with it, or delete it")
        run.resume(state)
    # A second Ctrl-C finds the former handler, and stops at once.
    handler = signal.signal(signal.SIGINT, lambda *_: stop.append(signal.signal(signal.SIGINT, handler)))
    line_at = time.monotonic() + LINE_EVERY_SECONDS
    try:
        for record in (bar := tqdm(run, name, initial=run.step, unit="step", disable=not terminal)):
            if not math.isfinite(record.loss):
                hint = f"start anew in another folder, with another --seed or a lower --learning-rate; see {state}"
                raise ValueError(f"the loss of the {name} is {record.loss} at step {record.step}: {hint}")
            bar.set_postfix(epoch=f"{record.epoch:.2f}", loss=f"{record.loss:.4f}", refresh=False)
            if not terminal and (time.monotonic() > line_at or record.step == len(run)):
                log.info("%s: step %d of %d, loss %.4f", name, record.step, len(run), record.loss)
                line_at = time.monotonic() + LINE_EVERY_SECONDS
            if record.step % run.steps_per_epoch == 0:
                each_epoch(record.step // run.steps_per_epoch, run.ema_model)  # before saving: after a kill made again
            if stop or record.step % SAVE_EVERY_STEPS == 0:
                run.save(state)
            if stop:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, handler)


def train_or_load(name, outline, options, start, *given, each_epoch=lambda epoch, model: None):
    """The shipped model, the one in the output folder, or a new one that is trained, with the sizes of ``outline``."""
    kind, path = type(outline), options.output_dir / outline.pretrained_file
    shipped = options.pretrained or (name == "classifier" and not options.train_classifier and not path.exists())
    if shipped or path.exists():
        model = kind.from_pretrained(None if shipped else path, options.device)
        for key, size in outline.config.items():
            if model.config[key] != size:
                got = f"{key} {size} (it has {model.config[key]})"
                raise ValueError(f"expected {path.name} with {got}: use its own sizes, or another --output-dir")
        if not shipped:
            log.info("%s: found, so not trained", path)
        return model
    torch.manual_seed(options.seed)
    model = kind(**outline.config, device=options.device)
    drive(start(model, *given), name, options, each_epoch)
    model.save_checkpoint(path)
    (options.output_dir / f"{name}_training.pt").unlink(missing_ok=True)
    return model


def locked(folder: Path) -> FileLock:
    """The lock of the output folder, which is made if there is none."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected --output-dir to be a folder, got the file {folder}: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"another run writes to {folder}: wait for it, or choose another --output-dir") from None
    return lock


def write_quality(path: Path, metrics: dict[str, float], count: int) -> None:
    """The metrics of ``count`` test digits as a table in Markdown, in a file and on the screen."""
    rows = [f"| {name} | {value:{'.2f' if '%' in name else '.4g'}} |" for name, value in metrics.items()]
    text = "\n".join([f"| on {count:,} test digits, random x_T, 20 steps, eta 0 | value |", "|---|---|", *rows]) + "\n"
    with core.checkpoints.atomic_write(path) as temporary:
        temporary.write_text(text)
    print(text)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffae_core").setLevel(logging.INFO)
    device, seed = core.choose_device(options.device), options.seed
    options.output_dir = folder = options.output_dir.expanduser()
    lock = locked(folder)  # noqa: F841 (free again when this process ends, however it ends)

    # Every option is checked here, before anything is trained: configurations, and models without memory.
    if options.image_size != 28 and not options.data:
        raise ValueError(f"expected --data with --image-size {options.image_size}: MNIST's digits are 28 x 28")
    splits = "train", "validation", "test"
    data = core.load_digits(options.data, options.image_size) if options.data else map(core.load_mnist, splits)
    train, _, test = data
    if options.train_digits is not None and options.train_digits < 1:
        raise ValueError(f"expected --train-digits of 1 or more, got {options.train_digits}")
    if not 0 <= options.latent_noise <= 100:
        raise ValueError(f"expected --latent-noise from 0 to 100, got {options.latent_noise}")
    if not 0 <= options.mixed_share <= 1:
        raise ValueError(f"expected --mixed-share from 0 to 1, got {options.mixed_share}")
    core.step_times(options.num_steps)
    train = train.subset(slice(0, options.train_digits))
    size, latent_dim, meta = train.pixels.shape[-1], options.latent_dim, torch.device("meta")
    autoencoder = core.SimpleAutoencoder(latent_dim, size, device=meta)
    embeddings = options.time_embedding_dim, options.feature_embedding_dim
    model = core.DiffusionModel(*embeddings, options.widths, options.block_depth, latent_dim, size, device=meta)
    coder_config = core.TrainingConfig(options.autoencoder_epochs, seed=seed)
    config = core.TrainingConfig(options.epochs, options.batch_size, options.learning_rate, seed=seed)
    epochs, prior, classifier = {"autoencoder": coder_config.epochs, "diffusion": config.epochs}, None, None
    if options.prior_epochs:
        prior = core.LatentPrior(latent_dim, num_classes=train.num_classes, device=meta)
        prior_config = core.TrainingConfig(options.prior_epochs, 256, 2e-3, ema_decay=0.999, seed=seed)
        epochs["prior"] = prior_config.epochs
    quality_digits = min(options.quality_digits, len(test), len(train))
    if quality_digits >= 10 and train.num_classes >= 2:
        classifier = core.DigitClassifier(train.num_classes, size, device=meta)
        options.train_classifier |= options.data is not None
        epochs |= {"classifier": 6} if options.train_classifier else {}
    minutes = sum(CPU_MINUTES_AN_EPOCH[name] * number for name, number in epochs.items()) * len(train) / 54_000
    effort = "shipped weights" if options.pretrained else f"about {max(1, round(minutes))} minutes on 2 cores"
    log.info("%s, %s training digits, %s, into %s", device, f"{len(train):,}", effort, folder)
    options.device, before = device, {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}

    def save_samples(epoch: int, ema_model: core.DiffusionModel) -> None:
        if epoch % 5 == 0:
            latents = autoencoder.encode_dataset(train.subset(slice(0, 64))).tensors[0]
            samples = ema_model.generate(latents, options.num_steps, generator=core.seeded(seed))
            core.plotting.save_png(samples, folder / "samples" / f"epoch_{epoch:03d}.png", columns=16)

    autoencoder = train_or_load("autoencoder", autoencoder, options, core.train_autoencoder, train, coder_config)
    given = core.train_diffusion, train, autoencoder, config, options.latent_noise, options.mixed_share
    model = train_or_load("diffusion", model, options, *given, each_epoch=save_samples)
    model.check_latents_from(autoencoder)
    if prior is not None:
        prior = train_or_load("prior", prior, options, core.train_latent_prior, train, autoencoder, prior_config)
        prior.check_latents_from(autoencoder)
    core.Demo(autoencoder, model, prior, test, options.num_steps, seed).save(folder)
    if classifier is not None:
        classifier = train_or_load("classifier", classifier, options, core.train_classifier, train)
        test = test.spaced(quality_digits)
        metrics = core.quality(autoencoder, model, classifier, test, train, seed, progress=tqdm)
        write_quality(folder / "quality.md", metrics, len(test))
    for left_over in folder.rglob(".*-????????.*"):  # half-written files of a run that was killed
        left_over.unlink()
    files = sorted(path for path in folder.rglob("*.*") if before.get(path) != path.stat().st_mtime_ns)
    print("Files written:", *files, sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was trained is kept: the same command with --resume goes on from there.")
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")
