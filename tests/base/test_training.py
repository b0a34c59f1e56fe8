from dataclasses import replace

import numpy as np
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
        with pytest.raises(ValueError, match=f"to have {name} .*resume with the options it was started with") as error:
            other.resume(path)
        assert name != "config" or "{'epochs': 3.0, 'seed': 0}, got {'epochs': 2.0, 'seed': 3}" in str(error.value)
    changed = torch.where(digits.labels == 1, 7, digits.labels)
    classifiers = [classifier_run(replace(digits, labels=labels)) for labels in (digits.labels, changed)]
    classifiers[0].save(tmp_path / "classifier.pt")
    with pytest.raises(ValueError, match="to have data "):
        classifiers[1].resume(tmp_path / "classifier.pt")
    less_noise = core.train_diffusion(
        core.DiffusionModel(**SMALL), digits, small_encoder(), CONFIG, max_latent_noise=1.0
    )
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


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.2, 0.5, 0.9])
def test_the_learning_rate_is_the_peak(digits, warmup):
    config = core.TrainingConfig(epochs=10, batch_size=16, warmup=warmup, learning_rate=1e-3)
    assert max(record.learning_rate for record in head_run(digits, config)) == pytest.approx(1e-3)


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
    """Averaged, they change less from step to step than the weights themselves, and the first ones are forgotten."""
    config = core.TrainingConfig(epochs=10, batch_size=16, learning_rate_schedule="constant", ema_decay=0.99)
    run = autoencoder_run(digits, config)
    first = run.model.encoder[0].weight.clone()
    trained, averaged = [], []
    for _ in run:
        trained.append(run.model.encoder[0].weight.detach().clone())
        averaged.append(run.ema_model.encoder[0].weight.clone())
    assert torch.equal(run.model.encoder[0].weight, averaged[-1]) and not run.model.training
    trained[-1] = trained[-2]  # with the last record the model is finished
    late = slice(20, 40)
    assert torch.stack(averaged[late]).diff(dim=0).norm() < 0.8 * torch.stack(trained[late]).diff(dim=0).norm()
    assert (averaged[-1] - trained[-1]).norm() < 0.5 * (averaged[-1] - first).norm()
    assert torch.stack(trained).amin(0).le(averaged[-1] + 1e-6).all(), "an average lies among what it is of"
    assert torch.stack(trained).amax(0).ge(averaged[-1] - 1e-6).all()


def test_a_run_is_finished_with_its_last_record(digits):
    """Also for a loop that asks for no further one."""
    run = autoencoder_run(digits)
    steps = [record.step for _, record in zip(range(len(run)), run)]
    assert steps[-1] == len(run) and not run.model.training
    latents = run.model.encode_dataset(digits).tensors[0]
    assert (latents.std(dim=0) - 1).abs().max() < 1e-3, "the latents are normalised"
    assert all(weight.grad is None for weight in run.model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_training_in_a_block_without_gradients_is_the_same(digits, mode):
    wanted = [record.loss for record in diffusion_run(digits)]
    run = diffusion_run(digits)
    losses = []
    with mode():
        for record in run:
            assert not torch.is_grad_enabled(), "between steps the caller's mode holds"
            losses.append(record.loss)
    assert losses == wanted


@pytest.mark.parametrize("wide", [np.float64, np.float32, torch.tensor])
def test_settings_from_numpy_or_torch_are_saved_as_pythons_own(digits, tmp_path, wide):
    config = core.TrainingConfig(wide(2), np.int64(16), wide(1e-2), seed=np.int32(3), bfloat16=np.bool_(False))
    assert all(type(value) in (int, float, str, bool) for value in vars(config).values())
    head_run(digits, config).save(tmp_path / "run.pt")
    head_run(digits, config).resume(tmp_path / "run.pt")


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
        {"warmup": 1},
        {"seed": -1},
        {"seed": 2**32},
        {"bfloat16": "yes"},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"expected {next(iter(bad))}") as error:
        core.TrainingConfig(**bad)
    assert "ema_decay" not in bad or "from 0 and below 1, got 1.0" in str(error.value)


def test_bfloat16_is_used_where_it_is_wanted_or_built_in(digits, monkeypatch):
    """Its losses differ from float32's, by as little as its rounding."""
    losses = {}
    for bfloat16, built_in in ((False, True), (True, False), (None, True), (None, False), (None, "with AMX")):
        capabilities = {"avx512_bf16": bool(built_in), "amx_bf16": built_in == "with AMX"}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)  # noqa: B023
        config = core.TrainingConfig(epochs=2, batch_size=16, seed=3, bfloat16=bfloat16)
        losses[bfloat16, built_in] = [record.loss for record in diffusion_run(digits, config)]
    assert losses[None, True] == losses[True, False] != losses[None, False] == losses[False, True]
    assert losses[None, "with AMX"] == losses[None, False]
    assert max(abs(a - b) for a, b in zip(losses[None, True], losses[None, False])) < 0.05


@pytest.mark.parametrize("first", [True, False])
def test_a_run_resumes_where_the_precision_is_another(digits, tmp_path, monkeypatch, first):
    """bfloat16 wants the weights in another order of memory, and the fused AdamW does not look at the order."""
    config = replace(CONFIG, epochs=8, learning_rate=1e-2)

    def run_where(has_bfloat16):
        monkeypatch.setattr("diffae_core.base.training.has_fast_bfloat16", lambda device: has_bfloat16)
        return diffusion_run(digits, config)

    wanted = [record.loss for record in run_where(not first)]
    stopped = run_where(first)
    for record in stopped:
        if record.step == 16:
            stopped.save(tmp_path / "run.pt")
    resumed = run_where(not first)
    resumed.resume(tmp_path / "run.pt")
    for record, loss in zip(resumed, wanted[16:], strict=True):
        assert record.loss == pytest.approx(loss, abs=0.01)
        for weight, state in resumed.optimizer.state.items() if record.step < len(resumed) else ():
            assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == weight.stride()


@pytest.mark.parametrize("damage", [lambda moment: moment.sum(), lambda moment: moment / 0])
def test_damaged_moments_are_refused(digits, tmp_path, damage):
    run, path = autoencoder_run(digits), tmp_path / "run.pt"
    next(iter(run))
    run.save(path)
    contents = torch.load(path, weights_only=True)
    first = contents["optimizer"]["state"][0]
    first["exp_avg"] = damage(first["exp_avg"])
    torch.save(contents, path)
    with pytest.raises(ValueError, match="expected a complete training run .*exp_avg of weight 0 is not finite, or of"):
        autoencoder_run(digits).resume(path)


def test_a_run_with_nan_does_not_replace_what_was_saved(digits, tmp_path):
    run, path = autoencoder_run(digits), tmp_path / "run.pt"
    run.save(path)
    saved = path.read_bytes()
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        run.save(path)
    assert path.read_bytes() == saved


def test_a_heads_run_is_refused_on_another_backbone(digits, tmp_path):
    features = small_encoder().encode_dataset(digits)

    def run_on(encoder):
        return core.train_last_layer(core.BayesianLastLayer(encoder.encoder, 16), features, CONFIG)

    run_on(small_encoder()).save(tmp_path / "head.pt")
    with pytest.raises(ValueError, match="to have data "):
        run_on(core.SimpleAutoencoder(16, device="cpu").eval()).resume(tmp_path / "head.pt")


def test_sizes_of_noise_are_compared_to_their_last_digit(digits, tmp_path):
    def run_with(noise):
        return core.train_autoencoder(core.SimpleAutoencoder(16, device="cpu"), digits, CONFIG, latent_noise=noise)

    run_with(1.0).save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"latent_noise 1\.0000004"):
        run_with(1.0000004).resume(tmp_path / "run.pt")


@pytest.mark.parametrize("stop_after", [1, 8])
def test_training_in_bfloat16_gives_the_model_back_in_its_order_of_memory(digits, stop_after):
    run = diffusion_run(digits, replace(CONFIG, bfloat16=True))
    before = [weight.stride() for weight in run.model.parameters()]
    for record in run:
        if record.step == stop_after:
            break
    assert [weight.stride() for weight in run.model.parameters()] == before
    assert any(weight.ndim == 4 and not weight.is_contiguous() for weight in run.model.parameters())
