"""SIGKILL and Ctrl-C at any moment: nothing is lost, and the resumed run ends with the weights of one left alone."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import LONG_RUN, ROOT, SMALL, SMALL_RUN, all_equal, finished, saved_weights, start
from filelock import FileLock, Timeout

long = pytest.mark.long
TRAIN = f"""
import os, sys, torch, diffae_core as core
torch.manual_seed(0)
autoencoder, model = core.SimpleAutoencoder(16, device="cpu"), core.DiffusionModel(**{SMALL})
digits = core.load_sample("train").subset(slice(0, 64))
run = core.train_diffusion(model, digits, autoencoder, core.TrainingConfig(epochs=50, batch_size=16))
if os.path.exists(sys.argv[1]):
    run.resume(sys.argv[1])
print("ready", flush=True)
for record in run:
    run.save(sys.argv[1])
model.save_checkpoint(sys.argv[2])
"""


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=long)])
def test_a_training_that_saves_at_every_step(count, tmp_path):
    dice, found, number = random.Random(0), Counter(), 0

    def begin(name):
        command = [sys.executable, "-c", TRAIN, tmp_path / f"{name}_run.pt", tmp_path / f"{name}.pt"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    finished(begin("whole"))
    expected = saved_weights(tmp_path / "whole.pt")
    while found["killed"] < count or not found["ended"]:
        process = begin(f"run{number}")
        assert process.stdout.readline() == "ready\n", f"could not be resumed: {process.communicate()[1]}"
        try:
            process.communicate(timeout=dice.uniform(0.0, 0.8) if found["killed"] < count else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found["killed"] += 1
            found["of these while saving"] += len(list(tmp_path.glob(f".run{number}_run-*")))
            continue
        assert process.returncode == 0 and all_equal(saved_weights(tmp_path / f"run{number}.pt"), expected)
        found["ended"] += 1
        number += 1
    print(dict(found))


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be stopped"


def test_the_script_stopped_by_hand_then_killed_and_resumed(tmp_path):
    """And while it runs, no other may write to its folder."""
    (tmp_path / "alone").mkdir()
    alone, output = start(tmp_path / "alone", *LONG_RUN), tmp_path / "output"
    state, model = output / "diffusion_training.pt", output / "diffusion_model.pt"
    process = start(tmp_path, *LONG_RUN)
    wait_for(state.exists, process)
    with pytest.raises(Timeout):
        FileLock(output / ".lock").acquire(timeout=0)
    process.send_signal(signal.SIGINT)
    _, error = finished(process, code=1)
    assert "--resume goes on from there" in error and not model.exists()

    _, error = finished(start(tmp_path, *LONG_RUN), code=1)
    assert "add --resume to go on with it, or delete it" in error
    written, process = state.stat().st_mtime_ns, start(tmp_path, *LONG_RUN, "--resume")
    wait_for(lambda: state.stat().st_mtime_ns != written, process)
    process.kill()
    finished(process, code=-signal.SIGKILL)
    assert not model.exists()

    for name in (
        ".diffusion_training-x7_k2abc.pt",
        ".diffusion_model-x7_k2abc.pt",
        ".conditioned_samples-x7_k2abc.png",
    ):
        (output / name).write_bytes(b"half a file")  # as of a kill while saving
    finished(start(tmp_path, *LONG_RUN, "--resume"))
    finished(alone)
    assert all_equal(saved_weights(model), saved_weights(tmp_path / "alone" / "output" / "diffusion_model.pt"))
    assert not state.exists() and not list(output.glob(".*-*"))


FOUR_MODELS = [
    *SMALL_RUN,
    "--batch-size",
    "16",
    "--epochs",
    "15",
    "--autoencoder-epochs",
    "60",
    "--prior-epochs",
    "300",
]
FOUR_MODELS += ["--train-classifier", "--quality-digits", "10", "--resume"]


@long
def test_the_whole_recipe_killed_50_times(tmp_path):
    """Autoencoder, DDIM and prior have 600 steps each, saved every 200; the classifier has 30 and begins anew."""
    dice, found, number = random.Random(0), Counter(), 0

    def begin(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return start(tmp_path / name, *FOUR_MODELS)

    def files(name):
        return {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*")}

    def weights(name):
        return {path.name: saved_weights(path) for path in (tmp_path / name / "output").glob("[!.]*.pt")}

    began = time.perf_counter()
    finished(begin("whole"))
    seconds, expected = time.perf_counter() - began, weights("whole")
    while found["killed"] < 50 or not found["ended"]:
        process = begin(f"run{number}")
        try:
            process.communicate(timeout=dice.uniform(0, seconds) if found["killed"] < 50 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found["killed"] += 1
            found["with a half-trained model"] += any((tmp_path / f"run{number}/output").glob("[!.]*_training.pt"))
            continue
        assert process.returncode == 0 and files(f"run{number}") == files("whole")
        assert all(all_equal(found, expected[name]) for name, found in weights(f"run{number}").items())
        found["ended"] += 1
        number += 1
    print(dict(found))


@long
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    """In folders of their own they end with the same weights; in one folder the second is refused."""
    names = ("one", "two")
    for name in names:
        (tmp_path / name).mkdir()
    processes = [start(tmp_path / name, *FOUR_MODELS) for name in names]
    wait_for((tmp_path / "one" / "output" / "autoencoder_weights.pt").exists, processes[0])
    _, error = finished(start(tmp_path / "one", *FOUR_MODELS), code=1)
    assert "another run writes to" in error
    for process in processes:
        finished(process)
    assert all_equal(*(saved_weights(tmp_path / name / "output" / "latent_prior.pt") for name in names))
