"""How the recipe was chosen: the default with one thing changed at a time, for docs/recipe.md.

python benchmarks/recipe.py               train and measure each variant, an hour or two on one core
python benchmarks/recipe.py --mixed       the same for the share of mixed latents alone, a quarter of an hour
python benchmarks/recipe.py --decoding    how many steps, and how to keep a handwriting, with the shipped weights
python benchmarks/recipe.py --prior       how long to train the latent prior, half an hour

All on validation digits. Each variant sees the same number of training digits, however busy the machine is. Rows are
kept in output/recipe, so that a killed run can continue. Writes docs/results/recipe.json, mixed.json, decoding.json and
prior.json.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import measure
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import diffae_core as core

FOLDER = measure.ROOT / "output" / "recipe"


class NeverTold(core.DiffusionModel):
    """The network is never told how much noise a latent holds."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        return super().loss(images, latents, times, noise)


class AlwaysTold(core.DiffusionModel):
    """The network is always told. The noise on the latents is added here, where it is known: train with none."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        s = 2 * torch.rand(len(latents))
        return super().loss(images, latents + s[:, None] * torch.randn(latents.shape), times, noise, s)


class WeightedAsNoise(core.DiffusionModel):
    """The velocity's error weighted by signal_rate^2, which makes it the error of the noise."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        return super().loss(images, latents, times, noise, latent_noise) * self.schedule.rates(times)[0] ** 2


class AbsoluteError(core.DiffusionModel):
    """Mean absolute error of the velocity, as in the Keras DDIM example."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        clean, rates = 2 * images - 1, self.schedule.rates(times, ndim=4)
        noisy = core.schedule.noisy_image(clean, noise, *rates)
        predicted = self.network(noisy, rates[1].flatten(), latents, latent_noise)
        return (predicted - core.schedule.velocity(clean, noise, *rates)).abs().mean(dim=(1, 2, 3))


class PredictsNoise(core.ConditionalUNet):
    """The output is read as the noise, as in DDPM, and passed on as the velocity; sampling clips x_0."""

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        level = noise_rate[:, None, None, None]
        rates = (1 - level**2).clamp(min=0).sqrt(), level
        clean, noise = core.schedule.from_noise(x, super().forward(x, noise_rate, latents, latent_noise), *rates)
        if not self.training:  # at t = 1 there is no signal to divide by
            clean, noise = core.schedule.from_clean(x, clean.clamp(-1, 1), *rates)
        return core.schedule.velocity(clean, noise, *rates)


class FinestAt28(core.ConditionalUNet):
    """The finest level at 28x28 in place of 14x14: each pixel is repeated four times, and the outputs are averaged."""

    def __init__(self):
        super().__init__(image_size=56)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(F.interpolate(x, scale_factor=2), noise_rate, latents, latent_noise), 2)


def without(part: str) -> core.ConditionalUNet:
    """The U-Net with one of its parts held at 0."""
    network = core.ConditionalUNet()
    for weight in network.get_submodule(part).parameters():
        nn.init.zeros_(weight.requires_grad_(False))
    return network


def additive() -> core.ConditionalUNet:
    """The U-Net with its scales held at 0: time and latent only shift."""
    network = core.ConditionalUNet()
    for block in network.modules():
        if isinstance(block, core.unet.ResidualBlock):
            channels = block.conv1.out_channels
            block.scale_and_shift.register_forward_hook(lambda _, __, out, c=channels: F.pad(out[:, c:], (c, 0)))
    return network


# name -> what differs: arguments of ``trained`` below, or of core.TrainingConfig
VARIANTS: dict[str, dict] = {
    "the default": {},
    "the default, another seed": {"seed": 1},
    "latent_noise 0": {"latent_noise": 0.0},
    "latent_noise 1": {"latent_noise": 1.0},
    "latent_noise 1.5": {"latent_noise": 1.5},
    "latent_noise 3": {"latent_noise": 3.0},
    "never told": {"model": NeverTold},
    "always told": {"model": AlwaysTold, "latent_noise": 0.0},
    "sigma 0": {"sigma": 0.0},
    "sigma 0.5": {"sigma": 0.5},
    "sigma 2": {"sigma": 2.0},
    "32 numbers": {"latent_dim": 32},
    "64 numbers": {"latent_dim": 64},
    "128 numbers": {"latent_dim": 128},
    "joint encoder": {"joint": True},
    "finest level at 28x28": {"network": FinestAt28},
    "no latent map": {"network": lambda: without("latent_map")},
    "latent map alone": {"network": lambda: without("feature_embedding")},
    "additive conditioning": {"network": additive},
    "predicts the noise": {"network": PredictsNoise, "model": WeightedAsNoise},
    "loss weighted as the noise's": {"model": WeightedAsNoise},
    "mean absolute error": {"model": AbsoluteError},
    "batch of 32": {"batch_size": 32},
    "batch of 128": {"batch_size": 128},
    "peak learning rate 1e-3": {"learning_rate": 1e-3},
    "peak learning rate 8e-3": {"learning_rate": 8e-3},
    "no EMA": {"ema_decay": 0.0},
    "bfloat16": {"bfloat16": True},
}
MIXED = {
    "the default, nothing mixed": {},
    "the same, another seed": {"seed": 1},
    "a quarter of the latents mixed": {"mixed_share": 0.25},
    "half of the latents mixed": {"mixed_share": 0.5},
}
COLUMNS = ["accuracy, %", "MSE", "+ 1 std: FD ratio", "+ 2 std: FD ratio", "precision", "half-way: FD ratio"]
COLUMNS += ["half-way, told 1.75: FD ratio", "inverted: MSE", "probe: accuracy, %"]
FORMATS = ["{:.1f}", "{:.4f}", "{:.2f}", "{:.2f}", "{:.2f}", "{:.1f}", "{:.1f}", "{:.1e}", "{:.1f}"]


def half_way(z: Tensor, labels: Tensor) -> Tensor:
    """Half-way between each latent and the one before it, where that is of another class."""
    return core.lerp(z, z.roll(1, dims=0), 0.5)[labels != labels.roll(1)]


def trained(
    digits: core.Digits,
    latent_noise: float = 2.0,
    mixed_share: float = 0.0,
    sigma: float = 1.0,
    latent_dim: int = 256,
    joint: bool = False,
    model: type[core.DiffusionModel] = core.DiffusionModel,
    network: Callable[[], nn.Module] | None = None,
    **config,
) -> tuple[core.SimpleAutoencoder, core.DiffusionModel]:
    """An autoencoder, trained with noise sigma on its latents, and a diffusion model: one pass over the digits each."""
    path = FOLDER / f"autoencoder {latent_dim} {sigma:g} {mixed_share:g} {len(digits)}.pt"
    torch.manual_seed(0)
    autoencoder, own = core.SimpleAutoencoder(latent_dim, device="cpu"), core.TrainingConfig(epochs=1, bfloat16=False)
    if not joint:
        if not path.exists():
            for _ in core.train_autoencoder(autoencoder, digits, own, sigma, mixed_share):
                pass
            autoencoder.save_checkpoint(path)
        autoencoder.load_checkpoint(path)
    settings = core.TrainingConfig(**{"epochs": 1, "bfloat16": False} | config)
    torch.manual_seed(settings.seed)
    diffusion = model(latent_dim=latent_dim, network=network and network(), device="cpu")
    train_diffusion = core.train_jointly if joint else core.train_diffusion
    for _ in train_diffusion(diffusion, digits, autoencoder, settings, latent_noise, mixed_share):
        pass
    return autoencoder.eval(), diffusion.eval()


def measured(autoencoder, model, train: core.Digits, digits: core.Digits) -> list[float]:
    """A row of the table: 10 steps from a random x_T, with ``latent_noise`` not given unless the column says so."""
    reference = measure.Reference(core.DigitClassifier.from_pretrained(device="cpu"), digits, train)
    z, few = autoencoder.encode_dataset(digits).tensors[0], digits.images[:50]
    noise, middle = torch.randn(z.shape, generator=core.seeded(5)), half_way(z, digits.labels)

    def decoded(latents: Tensor, told: float | None = None) -> dict[str, float]:
        return reference.measure(measure.generate(model, latents, 10, seed=1, spacing="uniform", latent_noise=told))

    copies = measure.generate(model, z, 10, seed=1, spacing="uniform")
    far = decoded(z + 2 * noise)
    row = [reference.measure(copies, digits.labels)["accuracy"], F.mse_loss(copies, digits.images).item()]
    row += [decoded(z + noise)["FD ratio"], far["FD ratio"], far["precision"]]
    row += [decoded(middle)["FD ratio"], decoded(middle, told=1.75)["FD ratio"]]
    x_T = model.invert(few, z[:50], 20, corrections=1, spacing="quadratic")
    again = model.generate(z[:50], 20, x_T=x_T, spacing="quadratic")
    probe = LogisticRegression(C=0.01, max_iter=200)
    probe.fit(*autoencoder.encode_dataset(train.subset(slice(0, 5000)), as_numpy=True))
    return [*row, F.mse_loss(again, few).item(), 100 * probe.score(z.numpy(), digits.labels.numpy())]


def variants(table: str, changed: dict[str, dict], steps: int, count: int) -> None:
    """Train and measure what has not been measured yet, and write the table."""
    train, digits, rows = core.load_mnist("train"), core.load_mnist("validation").subset(slice(0, count)), []
    for name, changes in changed.items():
        path = FOLDER / f"{name}, {steps} steps, {count} digits.json"
        few = train.subset(slice(0, 64 * steps))
        rows.append([name, *measure.kept(path, lambda: measured(*trained(few, **changes), train, digits))])  # noqa: B023
    facts = {"steps of 64 digits": steps, "validation digits": count}
    found = measure.table(["variant", *COLUMNS], rows, ["", *FORMATS], **facts)
    command = f"python benchmarks/recipe.py{' --mixed' * (table == 'mixed')} --steps {steps}"
    measure.write(table, command, {table: found}, weights="none")


def grid_of_steps(reference: measure.Reference, sets: dict[str, Callable[..., Tensor]]) -> dict:
    """What more DDIM steps bring: for each way to decode and each grid, is the picture a digit, how hazy, how soft?"""
    haze, softness, rows = core.metrics.faint_share, core.metrics.grey_per_ink, []
    for name, decode in sets.items():
        for spacing, steps in itertools.product(("uniform", "quadratic"), (3, 5, 8, 20)):
            images = decode(num_steps=steps, spacing=spacing)
            values = reference.measure(images)
            rows.append([name, spacing, steps, values["FD ratio"], values["precision"], haze(images), softness(images)])
            print(*rows[-1], flush=True)
    real = reference.real.images
    rows.append(["the real digits", "", "", None, None, haze(real), softness(real)])
    columns = [
        "latents",
        "spacing",
        "steps",
        "FD ratio",
        "precision",
        "faint pixels, share",
        "grey pixels per ink pixel",
    ]
    return measure.table(columns, rows, ["", "", "{}", "{:.3f}", "{:.3f}", "{:.4f}", "{:.3f}"], images=len(real))


def relabelled(
    prior, z: Tensor, labels: Tensor, wanted: Tensor, guidance=1.0, steps=20, start=1.0, until=1.0, corrections=1
) -> Tensor:
    """Latents inverted with their labels up to time ``start``, generated with others; guided below time ``until``."""

    def denoiser_for(shown: Tensor, strength: float) -> core.ddim.Denoiser:
        def denoiser(x_t: Tensor, times: Tensor, _: None) -> tuple[Tensor, Tensor]:
            rates = prior.schedule.rates(times, ndim=2)
            v = prior(x_t, rates[1].flatten(), shown)
            if strength != 1 and float(times[0]) <= until:
                hidden = prior(x_t, rates[1].flatten(), torch.full_like(shown, prior.num_classes))
                v = hidden + strength * (v - hidden)
            return core.schedule.from_velocity(x_t, v, *rates)

        return denoiser

    times = core.step_times(steps, start=start)
    with torch.no_grad():
        z_T = core.ddim_invert(denoiser_for(labels, 1.0), z, times, corrections=corrections)
        return core.ddim_sample(denoiser_for(wanted, guidance), z_T, times)


def frontier(reference: measure.Reference, model, prior, z: Tensor, directions: Tensor) -> dict:
    """Another label: does it arrive, is it a digit, and how much of the handwriting is kept?"""
    real, rows = reference.real, []
    labels, before = real.labels.repeat_interleave(3), real.images.repeat_interleave(3, dim=0)
    wanted = (labels + torch.tensor([1, 4, 7]).repeat(len(real))) % 10
    z = z.repeat_interleave(3, dim=0)
    move = partial(relabelled, prior, z, labels, wanted)

    def edited(strength: float, time: float, guidance: float = 1.0) -> Tensor:
        moved = core.edit(z, directions[wanted], strength)
        return prior.refine(moved, time, labels=wanted, guidance=guidance, generator=core.seeded(3))

    def nudged(strength: float) -> Tensor:
        return relabelled(prior, core.edit(z, directions[wanted], strength), labels, wanted, core.demo.GUIDANCE)

    ways: dict[str, Callable[[], Tensor]] = {
        **{f"guidance {guidance:g}": partial(move, guidance) for guidance in (1.0, 1.25, 1.5, 1.75, 2.0, 3.0)},
        "guidance 2, 10 steps": partial(move, 2.0, 10),
        "guidance 1.75, 50 steps": partial(move, 1.75, 50),
        "guidance 1.75, no fixed-point iteration": partial(move, 1.75, corrections=0),
        "guidance 1.75, 4 fixed-point iterations": partial(move, 1.75, corrections=4),
        "guidance 1.75, inverted to t = 0.9": partial(move, 1.75, start=0.9),
        "guidance 2, inverted to t = 0.8": partial(move, 2.0, start=0.8),
        "guidance 2 below t = 0.5": partial(move, 2.0, until=0.5),
        "guidance 2 below t = 0.8": partial(move, 2.0, until=0.8),
        "guidance 1.75, edited by 0.5 before": partial(nudged, 0.5),
        "edited by 1.5, refined at 0.6 (the paper's way)": partial(edited, 1.5, 0.6),
        "edited by 1, refined at 0.45, guidance 2.5": partial(edited, 1.0, 0.45, 2.5),
    }
    decoded_with = {"guidance 1.75, decoded with latent_noise=1": 1.0}
    ways |= dict.fromkeys(decoded_with, partial(move, 1.75))
    for name, way in ways.items():
        images = measure.generate(model, way(), seed=1, latent_noise=decoded_with.get(name))
        values = reference.measure(images, wanted)
        kept = core.metrics.strokes_kept(before, images, labels, wanted)
        rows.append([name, values["accuracy"], values["precision"], values["FD ratio"], *kept.values()])
        print(*rows[-1], flush=True)
    columns = ["another label by", "becomes it, %", "precision", "FD ratio", *(f"{name} kept" for name in kept)]
    return measure.table(columns, rows, ["", "{:.2f}", "{:.3f}", "{:.2f}", *["{:.2f}"] * 4], images=len(wanted))


def decoding(count: int) -> None:
    """How to decode with the shipped weights: steps and spacing, and the way to another label."""
    autoencoder, model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
    prior, train = core.LatentPrior.from_pretrained(), core.load_mnist("train")
    digits = core.load_mnist("validation").subset(slice(0, count))
    reference = measure.Reference(core.DigitClassifier.from_pretrained(), digits, train)
    z, labels = autoencoder.encode_dataset(digits).tensors
    directions = core.class_directions(*autoencoder.encode_dataset(train.subset(slice(0, 10_000))).tensors)
    noisy = z + 2 * torch.randn(z.shape, generator=core.seeded(5))
    relabelled_z = prior.generate(prior.invert(z, labels), (labels + 1) % 10, guidance=core.demo.GUIDANCE)
    middle = core.lerp(z, z[measure.partners(labels)], 0.5)
    latents = {"exact": z, "+ 2 std": noisy, "half-way between classes": middle, "another label": relabelled_z}
    latents |= {"from the prior": prior.sample_latents(count, generator=core.seeded(6))}
    sets = {name: partial(measure.generate, model, rows, seed=1) for name, rows in latents.items()}
    sets["exact, inverted x_T"] = partial(measure.inverted, model, digits.images, z)
    tables = {"steps": grid_of_steps(reference, sets)}
    tables["handwriting"] = frontier(reference, model, prior, z, directions)
    for table in tables.values():
        table["facts"] |= {"validation digits": count, "reference FD": reference.distance}
    measure.write("decoding", f"python benchmarks/recipe.py --decoding --digits {count}", tables)


def priors(count: int) -> None:
    """How long to train the latent prior: digits from scratch, and other labels in a digit's own handwriting."""
    autoencoder, model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
    train, digits = core.load_mnist("train"), core.load_mnist("validation").subset(slice(0, count))
    reference, rows = measure.Reference(core.DigitClassifier.from_pretrained(), digits, train), []
    few = digits.subset(slice(0, min(count, 500))).labels.repeat_interleave(3)
    before = digits.images[: len(few) // 3].repeat_interleave(3, dim=0)
    wanted = (few + torch.tensor([1, 4, 7]).repeat(len(few) // 3)) % 10
    z = autoencoder.encode_dataset(digits).tensors[0][: len(few) // 3].repeat_interleave(3, dim=0)

    def measured(epochs: float) -> list[float]:
        torch.manual_seed(0)
        prior = core.LatentPrior()
        for _ in core.train_latent_prior(prior, train, autoencoder, replace(core.PRIOR, epochs=epochs)):
            pass
        samples = measure.generate(model, prior.sample_latents(count, generator=core.seeded(4)), seed=1)
        scratch = reference.measure(samples)
        z_T = prior.invert(z, few)
        images = measure.generate(model, prior.generate(z_T, wanted, guidance=core.demo.GUIDANCE), seed=1)
        values = reference.measure(images, wanted)
        kept = core.metrics.strokes_kept(before, images, few, wanted)
        found = [scratch[name] for name in ("FD ratio", "precision", "recall")]
        return [*found, values["accuracy"], values["precision"], *kept.values()]

    for epochs in (10, 20, 40):
        path = FOLDER / f"prior, {epochs} epochs, {count} digits, {measure.weights()}.json"
        rows.append([epochs, *measure.kept(path, lambda: measured(epochs))])  # noqa: B023
    columns = ["epochs", "from scratch: FD ratio", "precision", "recall", "another label: becomes it, %", "precision"]
    columns += [f"{name} kept" for name in ("thickness", "ink", "slant", "height")]
    formats = ["{}", "{:.2f}", "{:.3f}", "{:.3f}", "{:.1f}", "{:.3f}", *["{:.2f}"] * 4]
    facts = {"samples": count, "reference FD": reference.distance, "digits with another label": len(few)}
    measure.write(
        "prior", "python benchmarks/recipe.py --prior", {"prior": measure.table(columns, rows, formats, **facts)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixed", action="store_true", help="train with other shares of mixed latents")
    parser.add_argument("--decoding", action="store_true", help="how to decode with the shipped weights")
    parser.add_argument("--prior", action="store_true", help="train the latent prior for fewer epochs")
    parser.add_argument("--steps", type=int, default=400, help="of training for each variant (%(default)s)")
    parser.add_argument("--digits", type=int, default=500, help="validation digits to measure on (%(default)s)")
    options = parser.parse_args()
    if options.decoding:
        decoding(options.digits)
    elif options.prior:
        priors(10 * options.digits)
    elif options.mixed:
        variants("mixed", MIXED, options.steps, options.digits)
    else:
        variants("recipe", VARIANTS, options.steps, options.digits)


if __name__ == "__main__":
    main()
