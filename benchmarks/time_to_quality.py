"""Time to quality: ours and its rivals train on the same latents for the same seconds, measured along the way.

pip install -e '.[bench]'
python benchmarks/time_to_quality.py        over three hours on 2 cores, for three seeds; writes docs/results/race.json

The clock runs only while training steps do: measuring stops it. Measured on validation digits generated from their
latents and random noise, 10 DDIM steps at eta 0, EMA weights. Run it on a machine that does nothing else.
"""

import argparse
import time

import measure
import peers
import torch
from tqdm import tqdm

import diffae_core as core

GOALS = (95, 97, 98)  # accuracy, %
FIRST_SECONDS, GROWTH = 6.0, 1.12  # measured after 6 seconds, then each time an eighth later: tells 20 s from 25
STEPS = 10  # of DDIM, in measuring


@torch.no_grad()
def own_loss(model, reference: measure.Reference, latents: torch.Tensor) -> float:
    """The model's own loss on the validation digits, at fixed times and noise."""
    images, count = reference.real.images, len(latents)
    noise = torch.randn(images.shape, generator=core.seeded(0))
    return float(model.loss(images, latents, torch.arange(count) / count, noise).mean())


def train(run: core.Training, seconds: float, reference: measure.Reference, latents: torch.Tensor) -> list[tuple]:
    """(seconds, accuracy in %, FD ratio, FD ratio at + 1 std) along a run of so many seconds of training."""
    noisy = latents + torch.randn(latents.shape, generator=core.seeded(1))
    curve, spent, next_look, steps = [], 0.0, FIRST_SECONDS, iter(run)
    while spent < seconds:
        began = time.perf_counter()
        record = next(steps, None)
        if record is None:
            break
        spent += time.perf_counter() - began
        if spent >= min(next_look, seconds) or record.step == len(run):
            exact, far = (measure.generate(run.ema_model, z, STEPS).nan_to_num() for z in (latents, noisy))
            found = reference.measure(exact, reference.real.labels)
            curve.append((spent, found["accuracy"], found["FD ratio"], reference.measure(far)["FD ratio"]))
            run.model.train()
            next_look *= GROWTH
    return curve


def reached(curve: list[tuple], goal: float) -> float:
    """Seconds at the first look at which the accuracy was there; infinity where it never was."""
    return next((look[0] for look in curve if look[1] >= goal), float("inf"))


def plot(curves: dict[str, list[list[tuple]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for place, (name, runs) in enumerate(curves.items()):
        for seed, curve in enumerate(runs):
            for axis, column in zip(axes, (1, 2)):
                line = (look[column] for look in curve)
                axis.plot([look[0] for look in curve], list(line), color=f"C{place}", label=name if seed == 0 else None)
    axes[0].set(ylabel="accuracy, %", title="generated digits classified correctly")
    axes[1].set(ylabel="FD ratio", title="distance from real digits", yscale="log")
    axes[1].legend()
    for axis in axes:
        axis.set(xlabel="seconds of training", xscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(measure.ROOT / "docs" / "time_to_quality.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of training for each contender (%(default)s)")
    parser.add_argument("--trial-seconds", type=float, default=90, help="for each learning rate (%(default)s)")
    parser.add_argument("--digits", type=int, default=500, help="validation digits to measure on (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
    digits, real = core.load_mnist("train"), core.load_mnist("validation").subset(slice(0, options.digits))
    reference = measure.Reference(core.DigitClassifier.from_pretrained(device="cpu"), real, digits)
    latents = autoencoder.encode_dataset(real).tensors[0]

    curves, described = {}, []
    for name, (_, rates, _) in tqdm(peers.CONTENDERS.items()):
        timed = {  # ours as the package trains on a CPU; the others in what is fastest for them
            setting: measure.step_seconds(peers.start(name, digits, autoencoder, 1, setting))
            for setting in (peers.LAYOUTS if name != "ours" else [(False, torch.channels_last)])
        }
        setting, step = min(timed.items(), key=lambda item: item[1])
        epochs = options.seconds / step / (len(digits) // 64)
        losses = {}
        for rate in rates if len(rates) > 1 else ():
            share = options.trial_seconds / options.seconds
            run = peers.start(name, digits, autoencoder, epochs * share, setting, learning_rate=rate)
            for _ in run:
                pass
            losses[rate] = own_loss(run.ema_model, reference, latents)
        rate = min(losses, key=losses.get) if losses else rates[0]
        settings = [{"learning_rate": rate, "seed": seed} for seed in range(options.seeds)]
        runs = [peers.start(name, digits, autoencoder, epochs, setting, **one) for one in settings]
        curves[name] = [train(run, options.seconds, reference, latents) for run in runs]
        ends = torch.tensor([curve[-1] for curve in curves[name]]).mean(dim=0).tolist()
        described.append([name, peers.setting_name(setting), 1000 * step, rate, *ends[1:]])

    ours, rows = curves["ours"], []
    for goal in GOALS:
        row = [f"{goal}%"]
        for runs in curves.values():
            times = [reached(curve, goal) for curve in runs]
            row.append(", ".join(f"{one:.0f}" if one < float("inf") else "never" for one in times))
            ratios = [one / reached(own, goal) for one, own in zip(times, ours)]
            row.append(", ".join(f"{one:.1f}" if one < float("inf") else "" for one in ratios))
        rows.append(row)
    columns = [
        "contender",
        "type and layout",
        "ms a step of 64",
        "learning rate",
        "accuracy, %",
        "FD ratio",
        "+ 1 std: FD ratio",
    ]
    formats = ["", "", "{:.0f}", "{:g}", "{:.1f}", "{:.2f}", "{:.2f}"]
    facts = {"validation digits": len(real), "seconds": options.seconds, "seeds": options.seeds}
    head = ["accuracy", *(part for name in curves for part in (f"{name}, s", "/ ours"))]
    tables = {
        "race": measure.table(columns, described, formats, **facts, **{"reference FD": reference.distance}),
        "race goals": measure.table(head, rows, [""] * len(head), **facts),
    }
    plot(curves)
    command = f"python benchmarks/time_to_quality.py --seconds {options.seconds:g} --seeds {options.seeds}"
    measure.write("race", command, tables, ("diffusers",), curves=curves)


if __name__ == "__main__":
    main()
