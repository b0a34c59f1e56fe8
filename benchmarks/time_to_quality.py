"""Time to quality: ours and two peers train on the same latents for the same seconds, judged along the way.

pip install -e '.[bench]'
python benchmarks/time_to_quality.py        three quarters of an hour on 2 cores

Writes a section of benchmarks/RESULTS.md, and the curve docs/time_to_quality.png. The clock runs only while training
steps do: judging stops it. Judged on validation digits drawn from their latents and random noise, 10 DDIM steps at
eta 0, EMA weights. Run it on a machine that does nothing else.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import contest
import peers
import report
import torch
from tqdm import tqdm

import diffae_core as core

GOALS = (95, 97, 98)  # label agreement, %
FIRST_SECONDS, GROWTH = 6.0, 1.25  # judged after 6 seconds, then each time a quarter later
STEPS = 10  # of DDIM, in judging
DIFFUSERS_RATES = (5e-4, 1e-3, 2e-3)
KERAS = {"learning_rate": 1e-3, "weight_decay": 1e-4, "ema_decay": 0.999, "gradient_clip": 1e9}


@torch.no_grad()
def own_loss(model, referee: contest.Referee) -> float:
    """The model's own loss on the validation digits, at fixed times and noise."""
    count, generator = len(referee.real), torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, 28, 28, generator=generator)
    return float(model.loss(referee.real.images, referee.latents, torch.arange(count) / count, noise).mean())


def train(
    run: core.Training, seconds: float, setting: contest.Setting, referee: contest.Referee, name: str
) -> list[tuple[float, float, float]]:
    """(seconds, agreement, share of the floor) along a run of so many seconds of training."""
    curve, spent, next_look, steps = [], 0.0, FIRST_SECONDS, iter(run)
    with tqdm(total=round(seconds), desc=name, unit="s") as bar:
        while spent < seconds:
            began = time.perf_counter()
            with setting.precision():
                record = next(steps, None)
            if record is None:
                break
            spent += time.perf_counter() - began
            bar.update(round(spent) - bar.n)
            if spent >= min(next_look, seconds) or record.step == len(run):
                drawn = contest.draw_digits(run.ema_model, referee.latents, STEPS)
                curve.append((spent, *(referee(drawn) if bool(drawn.isfinite().all()) else (0.0, float("inf")))))
                run.model.train()
                next_look *= GROWTH
                tqdm.write(f"{name}: {curve[-1][0]:.0f} s, step {record.step}: {curve[-1][1]:.1f}%, {curve[-1][2]:.2f}")
    return curve


def draw_curves(curves: dict[str, list[tuple]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, curve in curves.items():
        seconds, agreement, shares = zip(*curve)
        axes[0].plot(seconds, agreement, marker=".", label=name)
        axes[1].plot(seconds, shares, marker=".", label=name)
    axes[0].set(ylabel="label agreement, %", title="drawn digits that are read right")
    axes[1].set(ylabel="Frechet distance, share of the floor", title="distance from real digits", yscale="log")
    axes[1].legend()
    for axis in axes:
        axis.set(xlabel="seconds of training, 2 CPU threads", xscale="log")
        axis.grid(alpha=0.3)
    core.save_figure(figure, path)


def reached(curve: list[tuple], goal: float) -> float:
    """Seconds at the first look at which the agreement was there; infinity where it never was."""
    return next((seconds for seconds, agreement, _ in curve if agreement >= goal), float("inf"))


def goal_rows(curves: dict[str, list[tuple]]) -> list[list[str]]:
    rows = []
    ours, *others = curves.values()
    for goal in GOALS:
        own = reached(ours, goal)
        row = [f"{goal}%", f"{own:.0f}"]
        for curve in others:
            other = reached(curve, goal)
            last = curve[-1][0]
            never = [f"not in {last:.0f}", f"over {int(last / own)}"]
            row += [f"{other:.0f}", f"{other / own:.1f}"] if other < float("inf") else never
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of training for each contender (%(default)s)")
    parser.add_argument("--trial-seconds", type=float, default=90, help="for each learning rate of diffusers'")
    parser.add_argument("--digits", type=int, default=500, help="validation digits to judge on (%(default)s)")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    parser.add_argument("--figure", type=Path, default=report.RESULTS.parent.parent / "docs" / "time_to_quality.png")
    options = parser.parse_args()

    autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
    referee = contest.Referee(autoencoder, core.Judge.from_pretrained(device="cpu"), options.digits)
    training, latents = referee.training, core.encode_all(autoencoder, referee.training)

    def run_for(build: Callable, setting: contest.Setting, settings: dict, seconds: float) -> core.Training:
        return contest.start(build, training, latents, round(seconds / setting.step_seconds), setting, settings)

    settings = {"ours": contest.time_steps(contest.build_ours, training, latents, contest.OURS)}
    for name, build in (("diffusers", peers.Diffusers), ("Keras recipe", peers.KerasRecipe)):
        settings[name] = contest.fastest(build, training, latents)

    trials = {}
    for rate in DIFFUSERS_RATES:
        setting = settings["diffusers"]
        run = run_for(peers.Diffusers, setting, {"learning_rate": rate}, options.trial_seconds)
        with setting.precision():
            for _ in run:
                pass
        trials[rate] = own_loss(run.ema_model, referee)
        print(f"diffusers, peak {rate:g}: validation loss {trials[rate]:.4f}", flush=True)
    best = min(trials, key=trials.get)

    contenders = {
        "ours": (contest.build_ours, {}),
        "diffusers": (peers.Diffusers, {"learning_rate": best}),
        "Keras recipe": (peers.KerasRecipe, {**KERAS, "constant": True}),
    }
    curves = {}
    for name, (build, configuration) in contenders.items():
        setting = settings[name]
        run = run_for(build, setting, configuration, options.seconds)
        curves[name] = train(run, options.seconds, setting, referee, name)

    rows = []
    for name, setting in settings.items():
        _, agreement, share = curves[name][-1]
        rate = contenders[name][1].get("learning_rate", core.TrainingConfig.learning_rate)
        row = [name, setting.name, f"{1000 * setting.step_seconds:.0f}", f"{rate:g}"]
        rows.append([*row, f"{agreement:.1f}", f"{share:.2f}"])
    columns = ["contender", "type and layout", "ms a step of 64", "peak learning rate"]
    described = report.table([*columns, "at the end, %", "share of the floor"], rows)
    header = ["label agreement", "ours, s"]
    for name in list(contenders)[1:]:
        header += [f"{name}, s", f"{name} / ours"]
    looks = [
        [name, f"{seconds:.0f}", f"{agreement:.1f}", f"{share:.2f}"]
        for name, curve in curves.items()
        for seconds, agreement, share in curve
    ]
    rates = ", ".join(f"{loss:.4f} at {rate:g}" for rate, loss in trials.items())
    text = f"""Each contender trains alone for {options.seconds:g} seconds on the same 54,000 digits and latents, from
seed 0, in the type and layout that was fastest for it of float32 and bfloat16, channels_last or not (ours: as the
package trains). Judged on {options.digits} validation digits drawn from their latents and random noise in
{STEPS} DDIM steps at eta 0 with EMA weights; Frechet distances in the judge's 128 features, as a share of the
distance of as many real training digits ({referee.floor:.4f}). Ours and diffusers' run with our loop (cosine to
0, EMA 0.998), the Keras recipe with a constant rate and EMA 0.999. diffusers' rate was chosen by its own
validation loss after {options.trial_seconds:g} seconds: {rates}. One seed.

{described}
Seconds of training until the first look at which so many were read right:

{report.table(header, goal_rows(curves))}
All looks:

{report.table(["contender", "seconds", "agreement, %", "share of the floor"], looks)}"""
    draw_curves(curves, options.figure)
    command = f"python benchmarks/time_to_quality.py --seconds {options.seconds:g} --digits {options.digits}"
    report.write_section("Time to quality", command, text, ("diffusers",), options.results)


if __name__ == "__main__":
    main()
