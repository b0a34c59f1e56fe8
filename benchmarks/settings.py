"""How roughly to take a changed latent, and how much to refine it: chosen on validation digits, for docs/recipe.md.

python benchmarks/settings.py    about five minutes on one thread; writes docs/results/settings.json
"""

import argparse

import measure

import diffae_core as core

TOLD = (None, 1.0, 1.5, 2.0)  # latent_noise when decoding
TIMES = (0.0, 0.5, 0.6, 0.7)  # up to which the prior adds noise; 0 does not refine
STRENGTH = 1.5  # of the edits, in standard deviations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=500, help="validation digits (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of DDIM (%(default)s)")
    options = parser.parse_args()
    autoencoder, model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
    prior, train = core.LatentPrior.from_pretrained(), core.load_mnist("train")
    digits = core.load_mnist("validation").subset(slice(0, options.digits))
    reference = measure.Reference(core.DigitClassifier.from_pretrained(), digits, train)
    z, labels = autoencoder.encode_dataset(digits).tensors
    directions = core.class_directions(*autoencoder.encode_dataset(train.subset(slice(0, 10_000))).tensors)

    following = (labels + 1) % 10
    half_way = core.lerp(z, z.roll(1, dims=0), 0.5)[labels != labels.roll(1)]
    starts = {"half-way": (half_way, None)}
    starts["edited"] = (core.edit(z, directions[following], STRENGTH), following)
    rows = []
    for time in TIMES:
        for told in TOLD:
            cells = []
            for latents, wanted in starts.values():
                refined = prior.refine(latents, time, labels=wanted, generator=core.seeded(1)) if time else latents
                found = reference.measure(measure.generate(model, refined, options.steps, latent_noise=told), wanted)
                cells += [found["FD ratio"], found["precision"], *([found["accuracy"]] if wanted is not None else [])]
            rows.append([str(time) if time else "not refined", "nothing" if told is None else str(told), *cells])
            print(rows[-1], flush=True)
    columns = [
        "refined at t",
        "told",
        "half-way: FD ratio",
        "precision",
        "edited: FD ratio",
        "precision",
        "becomes it, %",
    ]
    formats = ["", "", "{:.2f}", "{:.3f}", "{:.2f}", "{:.3f}", "{:.1f}"]
    facts = {"validation digits": options.digits, "steps": options.steps, "strength of the edits": STRENGTH}
    measure.write(
        "settings", "python benchmarks/settings.py", {"settings": measure.table(columns, rows, formats, **facts)}
    )


if __name__ == "__main__":
    main()
