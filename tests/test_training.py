import pytest
import torch
from conftest import SMALL

import diffae_core as core

CONFIG = core.TrainingConfig(epochs=2, batch_size=16, seed=3)


def diffusion_run(digits, config=CONFIG):
    torch.manual_seed(0)
    latents = torch.randn(len(digits), 16, generator=torch.Generator().manual_seed(0))
    return core.train_diffusion(core.DiffusionModel(**SMALL), digits, latents, config)


def judge_run(digits, config=CONFIG):
    torch.manual_seed(0)
    return core.train_judge(core.Judge("cpu"), digits, config)


def joint_run(digits, config=CONFIG):
    torch.manual_seed(0)
    model = core.DiffusionModel(**SMALL)
    return core.train_diffusion(model, digits, core.SimpleAutoencoder(16, "cpu"), config, joint=True)


def prior_run(digits, config=CONFIG):
    torch.manual_seed(0)
    latents = torch.randn(len(digits), 16, generator=torch.Generator().manual_seed(0))
    return core.train_latent_prior(core.LatentPrior(16, 32, 2, device="cpu"), latents, config)


@pytest.mark.parametrize("start", [diffusion_run, joint_run, prior_run, judge_run])
@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_kill_and_resume_gives_the_weights_of_an_uninterrupted_run(sample, tmp_path, start, stop_after):
    digits = sample.subset(slice(0, 64))
    whole = start(digits)
    losses = [record.loss for record in whole]
    assert len(losses) == len(whole) == 8

    killed = start(digits)
    for record in killed:
        killed.save(tmp_path / "run.pt")
        if record.step == stop_after:
            break
    resumed = start(digits)
    torch.randn(100)  # other random numbers in between must not matter
    resumed.resume(tmp_path / "run.pt")
    assert [record.loss for record in resumed] == losses[stop_after:]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_resuming_another_run_is_refused(sample, tmp_path):
    digits = sample.subset(slice(0, 64))
    run = diffusion_run(digits)
    run.save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="to have config"):
        diffusion_run(digits, core.TrainingConfig(epochs=3, batch_size=16)).resume(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="to have num_examples 32"):
        diffusion_run(digits.subset(slice(0, 32))).resume(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="to have data"):
        diffusion_run(sample.subset(slice(64, 128))).resume(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="to have model"):
        judge_run(digits).resume(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError):
        run.resume(tmp_path / "none.pt")


def test_learning_rate_rises_then_falls_to_nothing(sample):
    run = diffusion_run(sample.subset(slice(0, 64)), core.TrainingConfig(epochs=10, batch_size=16, warmup=0.2))
    rates = [record.learning_rate for record in run]
    peak = rates.index(max(rates))
    assert 0 < peak < 12 and rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.05 * rates[peak]


def test_every_digit_is_seen_once_an_epoch(sample):
    run = diffusion_run(sample.subset(slice(0, 64)))
    seen = []
    for _ in run:
        run.step -= 1
        seen.append(run._batch())
        run.step += 1
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(64))
    assert first.tolist() != second.tolist()


def test_the_model_ends_with_the_averaged_weights(sample):
    run = diffusion_run(sample.subset(slice(0, 64)))
    for _ in run:
        last = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    averaged = run.ema_model.state_dict()
    assert all(torch.equal(weight, averaged[name]) for name, weight in run.model.state_dict().items())
    assert any(not torch.equal(weight, averaged[name]) for name, weight in last.items())
    assert not run.model.training


def test_a_tiny_model_overfits_16_digits(sample):
    """Autoencoder and diffusion, in the order of the recipe: the digits come back from pure noise and their latents."""
    digits = sample.subset(torch.arange(16) * 250)
    torch.manual_seed(0)
    autoencoder = core.SimpleAutoencoder(16, "cpu")
    for _ in core.train_autoencoder(autoencoder, digits, core.TrainingConfig(200, 16, 1e-2, ema_decay=0.9)):
        pass
    core.normalise_latents(autoencoder, digits)
    latents = core.encode_all(autoencoder, digits)
    assert (core.in_batches(autoencoder, digits.images) - digits.images).square().mean() < 0.01

    model = core.DiffusionModel(**SMALL)
    for _ in core.train_diffusion(model, digits, latents, core.TrainingConfig(600, 16, 1e-2, ema_decay=0.9)):
        pass
    drawn = model.generate(latents, 20, generator=torch.Generator().manual_seed(0))
    error = (drawn - digits.images).square().mean()
    wrong = (drawn - digits.images.roll(1, 0)).square().mean()
    assert error < 0.01 and error < wrong / 5


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": float("nan")}, {"ema_decay": 1.0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        core.TrainingConfig(**bad)


def test_a_latent_for_each_digit(sample):
    with pytest.raises(ValueError, match=r"expected latents \(4000, 16\)"):
        core.train_diffusion(core.DiffusionModel(**SMALL), sample, torch.randn(5, 16))


def test_joint_training_teaches_the_encoder_too(sample):
    """The noise's loss alone reaches the encoder, and the model that learns along draws better than a frozen one's."""
    digits = sample.subset(slice(0, 16))
    config = core.TrainingConfig(epochs=400, batch_size=16, learning_rate=5e-3)
    losses = {}
    for joint in (False, True):
        torch.manual_seed(0)
        model, autoencoder = core.DiffusionModel(**SMALL), core.SimpleAutoencoder(16, "cpu")
        before = autoencoder.encoder[0].weight.clone()
        latents = autoencoder if joint else torch.zeros(16, 16)
        run = core.train_diffusion(model, digits, latents, config, joint)
        losses[joint] = sum([record.loss for record in run][-20:])
        assert torch.equal(before, autoencoder.encoder[0].weight) is not joint
    assert losses[True] < 0.95 * losses[False]

    latents, x_T = core.encode_all(autoencoder, digits), torch.randn(16, 1, 28, 28)
    drawn = model.generate(latents, 5, x_T=x_T)
    core.normalise_latents(autoencoder, digits, model)
    latents = core.encode_all(autoencoder, digits)
    torch.testing.assert_close(latents.std(0), torch.ones(16), atol=1e-2, rtol=0)
    torch.testing.assert_close(model.generate(latents, 5, x_T=x_T), drawn, atol=1e-3, rtol=1e-3)


def test_joint_training_wants_the_autoencoder_itself(sample):
    model, digits = core.DiffusionModel(**SMALL), sample.subset(slice(0, 16))
    with pytest.raises(TypeError, match="got joint=True and a Tensor"):
        core.train_diffusion(model, digits, torch.zeros(16, 16), joint=True)
    with pytest.raises(TypeError, match="got joint=False and a SimpleAutoencoder"):
        core.train_diffusion(model, digits, core.SimpleAutoencoder(16, "cpu"))
    with pytest.raises(ValueError, match="one latent_dim, got 8 and 16"):
        core.train_diffusion(model, digits, core.SimpleAutoencoder(8, "cpu"), joint=True)
