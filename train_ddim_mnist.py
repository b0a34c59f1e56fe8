"""The whole recipe from a terminal: autoencoder, latents, DDIM, samples, and how good they are.

python train_ddim_mnist.py                 train both from nothing, into ./output
python train_ddim_mnist.py --resume        go on after a kill or Ctrl-C
python train_ddim_mnist.py --pretrained    use the shipped weights: pictures and figures in under a minute
torchrun --nproc-per-node 2 train_ddim_mnist.py    the same in two processes, each with half of every batch
"""

import argparse
import logging
import math
import signal
import sys
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

import diffae_core as core

PERTURBATIONS = (0.0, 0.5, 1.0, 2.0)  # standard deviations of each latent dimension
log = logging.getLogger("train_ddim_mnist")
SAVE_EVERY_STEPS = 200  # at most this much training is lost in a kill


def whole(at_least: int):
    """For argparse: a whole number of ``at_least`` or more."""

    def parse(text: str) -> int:
        if not text.removeprefix("-").isdigit() or int(text) < at_least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {at_least} or more, got {text!r}")
        return int(text)

    return parse


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("output"), help="where all files go (%(default)s)")
    parser.add_argument("--pretrained", action="store_true", help="use the shipped weights, train nothing")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run in --output-dir")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu or auto (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="the same seed gives the same weights (%(default)s)")
    parser.add_argument("--autoencoder-epochs", type=float, default=5, help="(%(default)s)")
    parser.add_argument("--epochs", type=float, default=30, help="of the DDIM (%(default)s)")
    parser.add_argument("--batch-size", type=whole(1), default=64, help="of the DDIM (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the DDIM's peak (%(default)s)")
    parser.add_argument("--latent-dim", type=whole(1), default=256, help="(%(default)s)")
    parser.add_argument("--widths", type=whole(1), nargs="+", default=[32, 64, 128], help="of the U-Net (32 64 128)")
    parser.add_argument("--block-depth", type=whole(1), default=2, help="of the U-Net (%(default)s)")
    parser.add_argument("--time-embedding-dim", type=whole(2), default=32, help="(%(default)s)")
    parser.add_argument("--feature-embedding-dim", type=whole(4), default=64, help="(%(default)s)")
    parser.add_argument("--train-digits", type=whole(2), help="use only so many training digits (all)")
    parser.add_argument("--num-steps", type=whole(1), default=20, help="DDIM steps in the pictures (%(default)s)")
    parser.add_argument(
        "--quality-digits", type=whole(0), default=500, help="test digits to measure on; below 2: none (%(default)s)"
    )
    parser.add_argument(
        "--quality-steps", type=whole(1), nargs="*", default=[], help="steps with a Frechet distance beside 20"
    )
    parser.add_argument(
        "--train-prior", action="store_true", help="train the latent prior too, which draws digits from nothing"
    )
    parser.add_argument("--prior-epochs", type=float, default=120, help="of the latent prior (%(default)s)")
    parser.add_argument(
        "--train-judge", action="store_true", help="train the judge anew instead of using the shipped one"
    )
    return parser.parse_args(arguments)


class Interrupt:
    """Ctrl-C asks for a stop after the step under way, so that what is saved is whole."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, *_) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once


def drive(run: core.Training, name: str, options: argparse.Namespace, each_epoch=lambda epoch: None) -> None:
    """Run a training to its end with a progress bar, saving it as it goes."""
    state = options.output_dir / f"{name}_training.pt"
    if state.exists():
        if not options.resume:
            raise FileExistsError(f"found an unfinished run, {state}: add --resume to go on with it, or delete it")
        run.resume(state)
    interrupt, smooth_loss = Interrupt(), None
    first = core.is_first_process()
    if first:
        remove_left_overs(state)
    with tqdm(total=len(run), initial=run.step, desc=name, unit="step", disable=not first) as bar:
        for record in run:
            if not math.isfinite(record.loss):
                raise ValueError(
                    f"the loss of the {name} is {record.loss} at step {record.step}: start anew in another "
                    f"folder, with another --seed or a lower --learning-rate (of the DDIM); its last state is {state}"
                )
            smooth_loss = record.loss if smooth_loss is None else 0.98 * smooth_loss + 0.02 * record.loss
            bar.set_postfix(epoch=f"{record.epoch:.2f}", loss=f"{smooth_loss:.4f}", refresh=False)
            bar.update()
            stop = core.any_process(interrupt.asked, run.model.device)
            if first and record.step % run.steps_per_epoch == 0:
                each_epoch(record.step // run.steps_per_epoch)  # before saving: after a kill it is drawn again
            if first and (stop or record.step % SAVE_EVERY_STEPS == 0):
                run.save(state)
            if stop:
                raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


def load(kind: type, path: Path, options: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    """The model in the output folder, unless ``--pretrained`` asks for the shipped one, or there is none."""
    if options.pretrained or not path.exists():
        return kind.from_pretrained(device=device)
    log.info("%s: found, so not trained; its own sizes hold", path)
    return kind.from_pretrained(path, device)


def get_autoencoder(options: argparse.Namespace, device: torch.device, training: core.Digits) -> core.SimpleAutoencoder:
    """The shipped autoencoder, the one in the output folder, or a newly trained one."""
    path = options.output_dir / "autoencoder_weights.pt"
    if options.pretrained or path.exists():
        return load(core.SimpleAutoencoder, path, options, device)
    torch.manual_seed(options.seed)
    model = core.SimpleAutoencoder(options.latent_dim, device)
    config = core.TrainingConfig(options.autoencoder_epochs, learning_rate=3e-3, seed=options.seed)
    drive(core.train_autoencoder(model, training, config), "autoencoder", options)
    core.normalise_latents(model, training)
    return finish(model, path, "autoencoder", options)


def get_diffusion_model(
    options: argparse.Namespace, device: torch.device, training: core.Digits, autoencoder: core.SimpleAutoencoder
) -> core.DiffusionModel:
    """The shipped diffusion model, the one in the output folder, or a newly trained one."""
    path = options.output_dir / "diffusion_model.pt"
    if options.pretrained or path.exists():
        return load(core.DiffusionModel, path, options, device)
    torch.manual_seed(options.seed)
    model = core.DiffusionModel(
        options.time_embedding_dim,
        options.feature_embedding_dim,
        tuple(options.widths),
        options.block_depth,
        autoencoder.latent_dim,
        device=device,
    )
    latents = core.encode_all(autoencoder, training)
    config = core.TrainingConfig(options.epochs, options.batch_size, options.learning_rate, seed=options.seed)
    run = core.train_diffusion(model, training, latents, config)

    def save_samples(epoch: int) -> None:
        if epoch % 5 == 0:
            generator = torch.Generator().manual_seed(options.seed)
            samples = run.ema_model.generate(latents[:64], options.num_steps, generator=generator)
            options.written.append(options.output_dir / "samples" / f"epoch_{epoch:03d}.png")
            core.save_png(samples, options.written[-1], columns=16)

    drive(run, "diffusion", options, save_samples)
    return finish(model, path, "diffusion", options)


def get_prior(
    options: argparse.Namespace, device: torch.device, training: core.Digits, autoencoder: core.SimpleAutoencoder
) -> core.LatentPrior:
    """The shipped latent prior, the one in the output folder, or with ``--train-prior`` a newly trained one."""
    path = options.output_dir / "latent_prior.pt"
    if options.pretrained or path.exists():
        return load(core.LatentPrior, path, options, device)
    torch.manual_seed(options.seed)
    prior = core.LatentPrior(autoencoder.latent_dim, device=device)
    config = core.TrainingConfig(options.prior_epochs, 256, 2e-3, ema_decay=0.999, seed=options.seed)
    run = core.train_latent_prior(prior, core.encode_all(autoencoder, training), config)
    drive(run, "prior", options)
    return finish(prior, path, "prior", options)


def get_judge(options: argparse.Namespace, device: torch.device, training: core.Digits) -> core.Judge:
    """The shipped judge, the one in the output folder, or with ``--train-judge`` a newly trained one."""
    path = options.output_dir / "judge.pt"
    if options.pretrained or not options.train_judge or path.exists():
        return load(core.Judge, path, options, device)
    torch.manual_seed(options.seed + 1)
    judge = core.Judge(device)
    drive(core.train_judge(judge, training), "judge", options)
    return finish(judge, path, "judge", options)


def finish(model: torch.nn.Module, path: Path, name: str, options: argparse.Namespace) -> torch.nn.Module:
    """Save a trained model, and remove the state of its run, which is not needed any more."""
    if not core.is_first_process():
        return model
    model.save_checkpoint(path)
    options.written.append(path)
    (options.output_dir / f"{name}_training.pt").unlink(missing_ok=True)
    return model


def remove_left_overs(path: Path) -> None:
    """Remove what a run that was killed while it wrote ``path`` left beside it; no other run writes here now."""
    for left_over in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        left_over.unlink()


def draw_pictures(
    options: argparse.Namespace, autoencoder: core.SimpleAutoencoder, model: core.DiffusionModel, test: core.Digits
) -> None:
    """Draw the two pictures of the main job on test digits, one of each class."""
    images = test.subset(torch.stack([(test.labels == label).nonzero()[0, 0] for label in range(10)])).images
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        latents = autoencoder.encode(images)
    generated = model.generate(latents, options.num_steps, generator=generator)
    noisy, _ = model.add_noise(images, 0.7, generator)
    direction = core.random_normal(tuple(latents.shape), model.device, generator)
    rows = {"original": images, "noised, t = 0.7": (noisy + 1) / 2}
    for strength in PERTURBATIONS:
        label = f"latent + {strength:g} std"
        rows[label] = model.denoise_with_latent(noisy, latents + strength * direction, 0.7, options.num_steps)
    title = "Encode, add noise, denoise with the latent; then change the latent"
    files = [options.output_dir / "conditioned_samples.png", options.output_dir / "diffusion_autoencoder_demo.png"]
    exact = {"num_steps": options.num_steps, "spacing": "quadratic"}
    own_noise = model.invert(images, latents, corrections=1, **exact)
    pairs = {"original": images, "drawn from latent\n+ random noise": generated}
    pairs["drawn from latent\n+ its own noise"] = model.generate(latents, x_T=own_noise, **exact)
    core.save_figure(core.rows_figure(pairs, "Test digits, and what DDIM draws from their latents"), files[0])
    core.save_figure(core.rows_figure(rows, title), files[1])
    options.written += files


def draw_from_nothing(options: argparse.Namespace, prior: core.LatentPrior, model: core.DiffusionModel) -> None:
    """Draw digits that no one wrote: a latent from the prior, then the digit from the latent."""
    generator = torch.Generator().manual_seed(options.seed)
    images = model.generate(prior.sample_latents(64, generator), options.num_steps, generator=generator)
    options.written.append(options.output_dir / "from_nothing.png")
    core.save_png(images, options.written[-1], columns=16)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    core.join_processes()
    logging.basicConfig(format="%(message)s", level=logging.INFO if core.is_first_process() else logging.WARNING)
    device = core.choose_device(options.device)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    options.written = []
    lock = FileLock(options.output_dir / ".lock")  # free again when this process ends, however it ends
    try:
        if core.is_first_process():
            lock.acquire(timeout=0)
    except Timeout:
        raise OSError(
            f"another run writes to {options.output_dir}: wait for it, or choose another --output-dir"
        ) from None
    training, _ = core.split_training(core.load_mnist("train"))
    test = core.load_mnist("test")
    used = training.subset(slice(0, options.train_digits))
    autoencoder = get_autoencoder(options, device, used)
    model = get_diffusion_model(options, device, used, autoencoder)
    prior = get_prior(options, device, used, autoencoder) if options.pretrained or options.train_prior else None
    count = min(options.quality_digits, len(test), len(training))
    judge = get_judge(options, device, used) if count >= 2 else None
    if not core.is_first_process():
        return
    draw_pictures(options, autoencoder, model, test)
    if prior is not None:
        draw_from_nothing(options, prior, model)
    if judge is not None:
        real = test.subset(core.spread(len(test), count))
        steps = tuple(options.quality_steps)
        figures = core.quality(autoencoder, model, judge, real, training, steps, options.seed, progress=tqdm)
        table = core.quality_table(figures, count)
        options.written.append(options.output_dir / "quality.md")
        with core.write_whole(options.written[-1]) as temporary:
            temporary.write_text(table)
        print(table)
    for path in options.written:
        remove_left_overs(path)
    print("Files written:", *options.written, sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was trained is kept: the same command with --resume goes on from there.")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
