import pytest
import torch
from conftest import SMALL, all_equal

import diffae_core as core

CONFIG = core.TrainingConfig(epochs=2, batch_size=16, seed=3)


def small_encoder():
    torch.manual_seed(1)
    return core.SimpleAutoencoder(16, device="cpu").eval()


def autoencoder_run(digits, config=CONFIG):
    torch.manual_seed(0)
    return core.train_autoencoder(core.SimpleAutoencoder(16, device="cpu"), digits, config)


def diffusion_run(digits, config=CONFIG):
    encoder = small_encoder()
    torch.manual_seed(0)
    return core.train_diffusion(core.DiffusionModel(**SMALL), digits, encoder, config)


def joint_run(digits, config=CONFIG):
    encoder = small_encoder()
    torch.manual_seed(0)
    return core.train_jointly(core.DiffusionModel(**SMALL), digits, encoder, config)


def prior_run(digits, config=CONFIG):
    encoder = small_encoder()
    torch.manual_seed(0)
    return core.train_latent_prior(core.LatentPrior(16, 32, 2, device="cpu"), digits, encoder, config)


def classifier_run(digits, config=CONFIG):
    torch.manual_seed(0)
    return core.train_classifier(core.DigitClassifier(device="cpu"), digits, config)


def head_run(digits, config=CONFIG):
    encoder = small_encoder()
    return core.train_last_layer(core.BayesianLastLayer(encoder.encoder, 16), encoder.encode_dataset(digits), config)


@pytest.fixture(scope="module")
def digits():
    return core.load_sample("train").spaced(64)


@pytest.mark.parametrize("start", [autoencoder_run, diffusion_run, joint_run, prior_run, classifier_run, head_run])
def test_killed_and_resumed_gives_the_weights_of_an_uninterrupted_run(digits, tmp_path, start):
    uninterrupted = start(digits)
    losses = [record.loss for record in uninterrupted]
    assert len(losses) == len(uninterrupted) == 8
    killed = start(digits)
    for record in killed:
        if record.step in (1, 4, 5):  # in the first epoch, at its end, in the second
            killed.save(tmp_path / f"{record.step}.pt")
    for stopped_after in (1, 4, 5):
        resumed = start(digits)
        torch.randn(100)  # other random numbers in between must not matter
        resumed.resume(tmp_path / f"{stopped_after}.pt")
        assert [record.loss for record in resumed] == losses[stopped_after:]
        assert all_equal(resumed.model.state_dict(), uninterrupted.model.state_dict())


def test_resuming_another_run_is_refused(digits, sample, tmp_path):
    run, path = diffusion_run(digits), tmp_path / "run.pt"
    run.save(path)
    others = {
        "config": diffusion_run(digits, core.TrainingConfig(epochs=3, batch_size=16)),
        "num_examples": diffusion_run(digits.subset(slice(0, 32))),
        "data": diffusion_run(sample.subset(slice(64, 128))),
        "model": classifier_run(digits),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"to have {name} .*resume with the options it was started with"):
            other.resume(path)
    less_noise = core.train_diffusion(core.DiffusionModel(**SMALL), digits, small_encoder(), CONFIG, latent_noise=1.0)
    with pytest.raises(ValueError, match="to have data .*latent_noise 1, .*got .*latent_noise 2"):
        less_noise.resume(path)
    with pytest.raises(FileNotFoundError):
        run.resume(tmp_path / "none.pt")


def test_learning_rate_rises_then_falls_to_nothing(digits):
    run = classifier_run(digits, core.TrainingConfig(epochs=10, batch_size=16, warmup=0.2))
    rates = [record.learning_rate for record in run]
    peak = rates.index(max(rates))
    assert 0 < peak < 12 and rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.05 * rates[peak]
    constant = core.TrainingConfig(epochs=2, batch_size=16, warmup=0, learning_rate_schedule="constant")
    assert {record.learning_rate for record in head_run(digits, constant)} == {3e-3}


def test_every_digit_is_seen_once_an_epoch_and_each_step_has_randomness_of_its_own(digits):
    seen, random = [], []

    class Line(torch.nn.Linear):
        config, device = {}, torch.device("cpu")

    def batch_loss(index, generator):
        seen.append(index)
        random.append(torch.rand(1, generator=generator).item())
        return model(torch.ones(1)).sum()

    model = Line(1, 1)
    assert [record.epoch for record in core.Training(model, batch_loss, 64, CONFIG)][3::4] == [1, 2]
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(64))
    assert first.tolist() != second.tolist() and len(set(random)) == 8


def test_the_model_ends_with_the_averaged_weights(digits):
    run = diffusion_run(digits)
    average = None
    for _ in run:
        now, step = run.model.state_dict(), run.step - 1
        decay = min(0.998, (step + 1) / (step + 10)) if step else 0.0
        before = average or now
        average = {name: decay * before[name] + (1 - decay) * weight for name, weight in now.items()}
        last = {name: weight.clone() for name, weight in now.items()}
    for name, weight in run.model.state_dict().items():
        torch.testing.assert_close(weight, average[name], atol=1e-6, rtol=1e-5)
    assert not all_equal(last, run.ema_model.state_dict()) and not run.model.training


def test_a_training_that_was_interrupted_in_a_notebook_goes_on(digits):
    """The interrupt button raises KeyboardInterrupt in the middle of a step; running the cell again goes on."""
    run, uninterrupted = diffusion_run(digits), [record.loss for record in diffusion_run(digits)]
    whole, calls = run.batch_loss, 0

    def interrupted_once(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    run.batch_loss, losses = interrupted_once, []
    with pytest.raises(KeyboardInterrupt):
        for record in run:
            losses.append(record.loss)
    losses += [record.loss for record in run]
    assert losses == uninterrupted and run.step == len(run) == 8


@pytest.mark.parametrize(
    "bad",
    [
        *({"epochs": value} for value in (0, -1, float("nan"), "3")),
        *({"batch_size": value} for value in (0, 2.5)),
        {"learning_rate": float("nan")},
        {"learning_rate_schedule": "linear"},
        {"ema_decay": 1.0},
        {"seed": -1},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"expected {next(iter(bad))}"):
        core.TrainingConfig(**bad)


def test_bfloat16_where_it_is_wanted(digits):
    losses = {}
    for bfloat16 in (False, True):
        config = core.TrainingConfig(epochs=2, batch_size=16, seed=3, bfloat16=bfloat16)
        losses[bfloat16] = [record.loss for record in diffusion_run(digits, config)]
    assert losses[True] != losses[False]
    assert max(abs(a - b) for a, b in zip(*losses.values())) < 0.05
