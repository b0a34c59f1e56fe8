"""The whole recipe from a terminal: autoencoder, diffusion model, latent prior, pictures and metrics.

python train_ddim_mnist.py                 train everything from scratch, into ./output
python train_ddim_mnist.py --resume        continue after a kill or Ctrl-C
python train_ddim_mnist.py --pretrained    use the shipped weights: pictures and metrics in about a minute
python train_ddim_mnist.py --data FOLDER   train on your own pictures, one folder per class
"""

import argparse
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import diffae_core as core
from diffae_core.autoencoder import AUTOENCODER
from diffae_core.base.runs import check_settings, first_interrupt, locked, with_progress
from diffae_core.diffusion import DIFFUSION, NUM_STEPS, SPACING
from diffae_core.evaluation.classifier import CLASSIFIER
from diffae_core.prior import PRIOR

log = logging.getLogger("diffae_core.script")
SAVE_EVERY_STEPS = 200  # a kill loses at most this much training
SAMPLES_EVERY_EPOCHS = 5
CPU_MINUTES_AN_EPOCH = {"autoencoder": 0.4, "diffusion": 2.4, "prior": 0.1, "classifier": 0.6}  # 54,000 digits, 2 cores


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output-dir", type=Path, default=Path("output"), help="where all files go (%(default)s)")
    add("--pretrained", action="store_true", help="use the shipped weights, train nothing")
    add("--resume", action="store_true", help="continue the unfinished run in --output-dir")
    add("--data", type=Path, help="a folder with one folder of pictures per class, an .npz, or IDX files (MNIST)")
    add("--image-size", type=int, default=28, help="height and width of --data, a multiple of 4 (%(default)s)")
    add("--train-digits", type=int, help="use only this many training digits (all)")
    add("--device", default="auto", help="cuda, mps, cpu or auto (%(default)s)")
    add("--seed", type=int, default=0, help="the same seed gives the same weights (%(default)s)")
    add("--autoencoder-epochs", type=float, default=AUTOENCODER.epochs, help="(%(default)s)")
    add("--epochs", type=float, default=DIFFUSION.epochs, help="of the diffusion model (%(default)s)")
    add("--prior-epochs", type=float, default=PRIOR.epochs, help="of the latent prior; 0 for none (%(default)s)")
    add("--train-classifier", action="store_true", help="train the classifier too, instead of using the shipped one")
    add("--batch-size", type=int, default=DIFFUSION.batch_size, help="of the diffusion model (%(default)s)")
    add("--learning-rate", type=float, default=DIFFUSION.learning_rate, help="the diffusion model's peak (%(default)s)")
    add("--max-latent-noise", type=float, default=2, help="the most noise on a latent in training (%(default)s)")
    add("--mixed-share", type=float, default=0.25, help="share of latents mixed with another's (%(default)s)")
    add("--latent-dim", type=int, default=256, help="(%(default)s)")
    add("--widths", type=int, nargs="+", default=[32, 64, 128], help="of the U-Net (32 64 128)")
    add("--block-depth", type=int, default=2, help="of the U-Net (%(default)s)")
    add("--time-embedding-dim", type=int, default=32, help="(%(default)s)")
    add("--feature-embedding-dim", type=int, default=64, help="(%(default)s)")
    add("--num-steps", type=int, default=NUM_STEPS, help="DDIM steps in the pictures (%(default)s)")
    add("--quality-digits", type=int, default=500, help="test digits for the metrics; below 10: none (%(default)s)")
    return parser.parse_args(arguments)


@dataclass
class Plan:
    """What the options ask for, checked."""

    options: argparse.Namespace
    folder: Path
    device: torch.device
    train: core.Digits
    test: core.Digits
    recipes: dict[str, core.TrainingConfig]
    models: dict[str, Any]  # first without memory, for their sizes; then shipped, found or trained
    written: list[Path] = field(default_factory=list)


def check_options(options: argparse.Namespace, folder: Path) -> Plan:
    """Refuse options that make no sense, before anything is trained."""
    if options.image_size != 28 and not options.data:
        raise ValueError(f"expected --data with --image-size {options.image_size}: MNIST's digits are 28 x 28")
    if options.train_digits is not None and options.train_digits < 1:
        raise ValueError(f"expected --train-digits of 1 or more, got {options.train_digits}")
    amounts = ("max-latent-noise", options.max_latent_noise, 100), ("mixed-share", options.mixed_share, 1)
    for name, number, high in amounts:
        if not 0 <= number <= high:
            raise ValueError(f"expected --{name} from 0 to {high}, got {number}")
    core.step_times(options.num_steps)
    device = core.choose_device(options.device)
    splits = "train", "validation", "test"
    data = core.load_digits(options.data, options.image_size) if options.data else map(core.load_mnist, splits)
    train, _, test = data
    train = train.subset(slice(0, options.train_digits))

    size, latent_dim, meta = train.pixels.shape[-1], options.latent_dim, torch.device("meta")
    network = options.time_embedding_dim, options.feature_embedding_dim, options.widths, options.block_depth
    changes = {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.learning_rate}
    recipes = {
        "autoencoder": replace(AUTOENCODER, epochs=options.autoencoder_epochs, seed=options.seed),
        "diffusion": replace(DIFFUSION, **changes, seed=options.seed),
    }
    models: dict[str, Any] = {
        "autoencoder": core.SimpleAutoencoder(latent_dim, size, meta),
        "diffusion": core.DiffusionModel(*network, latent_dim, size, device=meta),
    }
    if options.prior_epochs:
        recipes["prior"] = replace(PRIOR, epochs=options.prior_epochs, seed=options.seed)
        models["prior"] = core.LatentPrior(latent_dim, num_classes=train.num_classes, device=meta)
    if min(options.quality_digits, len(test), len(train)) >= 10 and train.num_classes >= 2:
        recipes["classifier"] = CLASSIFIER
        models["classifier"] = core.DigitClassifier(train.num_classes, size, device=meta)

    if not options.pretrained:
        pictures = core.model.fingerprint(train.pixels, train.labels)
        settings = {"pictures": pictures, "seed": options.seed}
        settings |= {"max latent noise": options.max_latent_noise, "mixed share": options.mixed_share}
        for name, recipe in recipes.items():
            settings |= {f"{name} {key}": value for key, value in asdict(recipe).items() if key != "seed"}
        names = [name for key, model in models.items() for name in (model.pretrained_file, f"{key}_training.pt")]
        has_models = any((folder / name).exists() for name in names)
        check_settings(folder / "diffae_settings.json", settings, has_models)
    return Plan(options, folder, device, train, test, recipes, models)


def announce(plan: Plan) -> None:
    """Log what the run will do, and about how long it will take."""
    trained = set(plan.recipes)
    if not (plan.options.data or plan.options.train_classifier):
        trained -= {"classifier"}
    minutes = sum(CPU_MINUTES_AN_EPOCH[name] * plan.recipes[name].epochs for name in trained) * len(plan.train) / 54_000
    effort = "shipped weights" if plan.options.pretrained else f"about {max(1, round(minutes))} minutes on 2 cores"
    log.info("%s, %s training digits, %s, into %s", plan.device, f"{len(plan.train):,}", effort, plan.folder)


def train_all(plan: Plan) -> None:
    """The autoencoder, then the models that learn from its latents (diffusion model, prior), then the classifier."""
    options, train, recipes, models = plan.options, plan.train, plan.recipes, plan.models
    noise = options.max_latent_noise, options.mixed_share
    make_run = {
        "autoencoder": lambda model: core.train_autoencoder(model, train, recipes["autoencoder"]),
        "diffusion": lambda model: core.train_diffusion(
            model, train, models["autoencoder"], recipes["diffusion"], *noise
        ),
        "prior": lambda model: core.train_latent_prior(model, train, models["autoencoder"], recipes["prior"]),
        "classifier": lambda model: core.train_classifier(model, train, recipes["classifier"]),
    }
    for name in models:
        models[name] = train_or_load(plan, name, make_run[name])
        if name in ("diffusion", "prior"):
            models[name].check_latents_from(models["autoencoder"])


def train_or_load(plan: Plan, name: str, make_run: Callable[[Any], core.Training]) -> Any:
    """The shipped model, the one in the output folder, or a newly trained one."""
    kind, sizes, options = type(plan.models[name]), plan.models[name].config, plan.options
    path, run_path = plan.folder / kind.pretrained_file, plan.folder / f"{name}_training.pt"
    wants_own = options.train_classifier or options.data or path.exists()
    is_shipped = options.pretrained or (name == "classifier" and not wants_own)
    if not is_shipped and not path.exists():
        torch.manual_seed(options.seed)
        model = kind(**sizes, device=plan.device)
        drive(plan, name, make_run(model), run_path)
        model.save_checkpoint(path)
        run_path.unlink(missing_ok=True)
        plan.written.append(path)
        return model
    if not is_shipped:
        log.info("%s: found, so not trained", path)
    model = kind.from_pretrained(None if is_shipped else path, plan.device)
    for key, size in sizes.items():
        if model.config[key] != size:
            hint = "leave out --pretrained, and train" if is_shipped else "use its value, or another --output-dir"
            got = f"{key} {size}, to fit the pictures and options, got {model.config[key]}"
            raise ValueError(f"expected {path.name} with {got}: {hint}")
    return model


def drive(plan: Plan, name: str, run: core.Training, path: Path) -> None:
    """Run a training to its end, saving it as it goes; Ctrl-C stops after the current step, so nothing is lost."""
    if path.exists():
        if not plan.options.resume:
            raise FileExistsError(f"found an unfinished run, {path}: add --resume to go on with it, or delete it")
        run.resume(path)
    with first_interrupt() as interrupted:
        for record in with_progress(run, name):
            stops = interrupted.is_set()
            saves = stops or record.step % SAVE_EVERY_STEPS == 0
            samples = name == "diffusion" and record.step % (SAMPLES_EVERY_EPOCHS * run.steps_per_epoch) == 0
            is_read = saves or samples or record.step == len(run)  # not at every step: reading a loss waits for the GPU
            if is_read and not math.isfinite(record.loss):
                hint = "start again in another folder, with another --seed or a lower --learning-rate"
                raise ValueError(f"the loss of the {name} is {record.loss} at step {record.step}: {hint}")
            if samples:
                save_samples(plan, run.ema_model, round(record.epoch))  # before saving: a kill repeats it
            if saves:
                run.save(path)
            if stops:
                raise KeyboardInterrupt


def save_samples(plan: Plan, model: Any, epoch: int) -> None:
    """Digits decoded during the training of the diffusion model, always the same ones from the same noise."""
    latents = plan.models["autoencoder"].encode_dataset(plan.train.subset(slice(0, 64))).tensors[0]
    samples = model.generate(latents, plan.options.num_steps, generator=core.seeded(plan.options.seed))
    if plan.train.paper > 0.5:  # save_png inverts MNIST, whose paper is black; these are black on white already
        samples = 1 - samples
    path = plan.folder / "samples" / f"epoch_{epoch:03d}.png"
    core.plotting.save_png(samples, path, columns=16)
    plan.written.append(path)


def write_quality(plan: Plan) -> None:
    """Write the metrics of some test digits as a Markdown table, to a file and to the screen."""
    test = plan.test.spaced(min(plan.options.quality_digits, len(plan.test), len(plan.train)))
    autoencoder, model, classifier = (plan.models[name] for name in ("autoencoder", "diffusion", "classifier"))
    metrics = core.quality(autoencoder, model, classifier, plan.train, test, plan.options.seed, progress=tqdm)
    rows = [f"| {name} | {value:{'.2f' if '%' in name else '.4g'}} |" for name, value in metrics.items()]
    heading = f"| on {len(test):,} test digits, random x_T, {NUM_STEPS} {SPACING} steps, eta 0 | value |"
    text = "\n".join([heading, "|---|---|", *rows]) + "\n"
    path = plan.folder / "quality.md"
    with core.checkpoints.atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    plan.written.append(path)
    print(text)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffae_core").setLevel(logging.INFO)
    folder = options.output_dir.expanduser()
    if options.data and folder.resolve().is_relative_to(options.data.expanduser().resolve()):
        raise ValueError(f"expected --output-dir outside of the pictures in {options.data}, got {folder}")
    with locked(folder):
        plan = check_options(options, folder)
        announce(plan)
        train_all(plan)
        models = plan.models["autoencoder"], plan.models["diffusion"], plan.models.get("prior")
        demo = core.Demo(*models, plan.test, options.num_steps, options.seed)
        plan.written += demo.save(folder)
        if "classifier" in plan.models:
            write_quality(plan)
        for place in (folder, folder / "samples"):  # left by a run that was killed
            core.checkpoints.remove_left_overs(place)
    print("Files written:", *sorted(plan.written), sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was trained is kept: the same command with --resume goes on from there.")
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")
