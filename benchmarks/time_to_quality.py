"""Time to quality: ours and its rivals train on the same latents, measured along the way.

pip install -e '.[bench]'
python benchmarks/time_to_quality.py           train: two hours on one thread; goes on after a kill
python benchmarks/time_to_quality.py --times   time a step of each: a minute on a machine that does nothing else

The race is run in steps, which other work on the machine does not change; seconds are steps times the time of a step.
Ours trains for its steps with each seed; a rival trains with one seed until it reaches its goal, or for its steps.
Measured on validation digits generated from their latents and random noise, 10 DDIM steps at eta 0, EMA weights.
Results are kept in output/race, and either command writes docs/results/race.json and docs/time_to_quality.png with the
contenders that have finished.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from functools import partial

import measure
import peers
import speed
import torch

import diffae_core as core

FOLDER = measure.ROOT / "output" / "race"
STEPS = {"ours": 800, "diffusers, our latent map": 600, "diffusers": 1200, "Keras recipe": 1000}
STOPS = {"diffusers, our latent map": 98, "diffusers": 95, "Keras recipe": 95}  # a rival stops at this accuracy, %
RATES, TRIAL = (1e-3, 2e-3, 4e-3), 40  # tried for each rival, for so many steps
FIRST, FINE, COARSE, GOOD = 0.1, 1.17, 1.6, 60  # how much later each look comes, see ``next_look``
GOALS = (95, 97, 98, 99)  # accuracy, %
DIGITS, DDIM_STEPS, ROUNDS = 300, 10, 20


class Race:
    """The digits on which all are trained and measured."""

    def __init__(self):
        self.autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
        self.train, real = core.load_mnist("train"), core.load_mnist("validation").subset(slice(0, DIGITS))
        self.reference = measure.Reference(core.DigitClassifier.from_pretrained(device="cpu"), real, self.train)
        self.latents = self.autoencoder.encode_dataset(real).tensors[0]

    def start(self, name: str, steps: int, **settings) -> core.Training:
        return peers.start(name, self.train, self.autoencoder, steps, **settings)

    def trial(self, name: str, learning_rate: float) -> float:
        """After a short run, the model's own loss on the validation digits, at fixed times and noise."""
        run, real = self.start(name, TRIAL, learning_rate=learning_rate), self.reference.real
        for _ in run:
            pass
        noise, times = torch.randn(real.images.shape, generator=core.seeded(0)), torch.arange(DIGITS) / DIGITS
        with torch.no_grad():
            return float(run.ema_model.loss(real.images, self.latents, times, noise).mean())

    def look(self, model: core.DiffusionModel, strength: float = 0.0) -> list[float]:
        """Accuracy in % and FD ratio of digits generated from the latents, with noise of this strength on them."""
        latents = self.latents + strength * torch.randn(self.latents.shape, generator=core.seeded(1))
        ours = {"spacing": "uniform"} if type(model) is core.DiffusionModel else {}  # like the others' grids
        images = measure.generate(model, latents, DDIM_STEPS, **ours).nan_to_num()
        found = self.reference.measure(images, self.reference.real.labels)
        return [found["accuracy"], found["FD ratio"]]

    def run(self, name: str, **settings) -> dict:
        """A run's looks, [steps, accuracy, FD ratio] each; and the FD ratio at + 1 std in the end."""
        run, looks = self.start(name, STEPS[name], **settings), []
        state = FOLDER / f"{name}, {settings}.pt"
        if state.exists():
            run.resume(state)
            looks = [look for look in json.loads(state.with_suffix(".looks").read_text()) if look[0] <= run.step]
        for record in run:
            if record.step >= next_look(name, looks) or record.step == len(run):
                looks.append([record.step, *self.look(run.ema_model)])
                with core.checkpoints.atomic_write(state.with_suffix(".looks")) as temporary:
                    temporary.write_text(json.dumps(looks))
                run.save(state)
                if looks[-1][1] >= STOPS.get(name, math.inf):
                    break
        return settings | {"looks": looks, "+ 1 std": self.look(run.ema_model, 1.0)[1]}

    def step_times(self) -> dict:
        """Milliseconds of a step of each contender, all in turn: the median of ``ROUNDS`` rounds."""
        runs = [iter(self.start(name, 1000)) for name in STEPS]
        times = speed.in_turn([partial(next, run) for run in runs], ROUNDS)
        return dict(zip(STEPS, times)) | {"machine": measure.machine("diffusers")}


def next_look(name: str, looks: list) -> float:
    """The step of the next look: a sixth later than the last; 60% later for a rival that is far from any goal."""
    step, accuracy, _ = looks[-1] if looks else (FIRST * STEPS[name], 0.0, 0.0)
    return step * (FINE if name == "ours" or accuracy > GOOD else COARSE)


def kept(file: str, compute: Callable):
    """What ``compute`` gives, computed once and kept in a file."""
    return measure.kept(FOLDER / f"{file}.json", compute)


def seeds_of(name: str, seeds: int) -> range:
    return range(seeds if name == "ours" else 1)


def train_all(race: Race, seeds: int) -> None:
    """One run for each of our seeds and for each rival, which trains at the best of the rates."""
    for name in STEPS:
        settings = {}
        if name != "ours":
            losses = {rate: kept(f"{name}, rate {rate:g}", partial(race.trial, name, rate)) for rate in RATES}
            settings["learning_rate"] = min(losses, key=losses.get)
        for seed in seeds_of(name, seeds):
            kept(f"{name}, seed {seed}", partial(race.run, name, seed=seed, **settings))


def reached(run: dict, goal: float) -> float | None:
    """Seconds at the first look that reached the accuracy; None if no look did."""
    return next((seconds for seconds, accuracy, _ in run["looks"] if accuracy >= goal), None)


def goal_cell(goal: float, name: str, runs: list[dict], ours: list[dict]) -> str:
    """The seconds of each run until the goal, and for a rival their ratio to the median of ours."""
    times, fast = ([reached(run, goal) for run in one] for one in (runs, ours))
    if None in times:
        last = runs[0]["looks"][-1]
        return "not trained so far" if last[1] >= STOPS.get(name, math.inf) else f"not in {last[0]:.0f}"
    cell = ", ".join(f"{time:.0f}" for time in times)
    return cell if runs is ours or None in fast else f"{cell} ({times[0] / statistics.median(fast):.1f} times ours)"


def tables(race: Race, runs: dict[str, list[dict]], times: dict) -> dict[str, dict]:
    rows = []
    for name, own in runs.items():
        ends = [statistics.mean(column) for column in zip(*([*run["looks"][-1][1:], run["+ 1 std"]] for run in own))]
        rate = own[0].get("learning_rate", core.TrainingConfig.learning_rate)
        seconds = own[0]["looks"][-1][0]
        rows.append([name, len(own), times[name], round(1000 * seconds / times[name]), seconds, rate, *ends])
    goals = [[f"{goal}%", *(goal_cell(goal, *pair, runs["ours"]) for pair in runs.items())] for goal in GOALS]
    columns = ["contender", "seeds", "ms a step of 64", "steps", "seconds", "learning rate"]
    columns += ["accuracy, %", "FD ratio", "+ 1 std: FD ratio"]
    formats = ["", "{}", "{:.0f}", "{}", "{:.0f}", "{:g}", "{:.1f}", "{:.2f}", "{:.2f}"]
    facts = {"validation digits": DIGITS, "reference FD": race.reference.distance}
    return {
        "race": measure.table(columns, rows, formats, **facts),
        "race goals": measure.table(
            ["accuracy", *(f"{name}, s" for name in runs)], goals, [""] * (1 + len(runs)), **facts
        ),
    }


def plot(runs: dict[str, list[dict]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axis, column, what, scale in zip(figure.subplots(1, 2), (1, 2), ("accuracy, %", "FD ratio"), ("linear", "log")):
        for place, (name, own) in enumerate(runs.items()):
            for run in own:
                seconds, values = ([look[part] for look in run["looks"]] for part in (0, column))
                axis.plot(seconds, values, ".-", color=f"C{place}", label=name if run is own[0] else None)
        axis.set(xlabel="seconds of training", ylabel=what, yscale=scale)
        axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(runs))
    figure.savefig(measure.ROOT / "docs" / "time_to_quality.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", action="store_true", help="time a step of each contender, and train nothing")
    parser.add_argument("--seeds", type=int, default=3, help="runs of ours (%(default)s)")
    race, options = Race(), parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.times:
        (FOLDER / "times.json").unlink(missing_ok=True)
        kept("times", race.step_times)
    else:
        train_all(race, options.seeds)
    files = {name: [FOLDER / f"{name}, seed {seed}.json" for seed in seeds_of(name, options.seeds)] for name in STEPS}
    files = {name: paths for name, paths in files.items() if all(path.exists() for path in paths)}  # the finished ones
    if (FOLDER / "times.json").exists() and "ours" in files:
        times = json.loads((FOLDER / "times.json").read_text())
        runs = {name: [json.loads(path.read_text()) for path in paths] for name, paths in files.items()}
        for name, own in runs.items():
            for run in own:
                run["looks"] = [[step * times[name] / 1000, *values] for step, *values in run["looks"]]
        plot(runs)
        command, machine = f"python benchmarks/time_to_quality.py --seeds {options.seeds}", times.pop("machine")
        measure.write("race", command, tables(race, runs, times), machine=machine, runs=runs)


if __name__ == "__main__":
    main()
