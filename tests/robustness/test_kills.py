"""SIGKILL and Ctrl-C at any moment: nothing is lost, and the resumed run ends with the weights of one left alone."""

import multiprocessing
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from common import report
from conftest import NO_PRIOR, SMALL_RUN, all_equal, finished, saved_weights, start
from filelock import FileLock, Timeout
from runs import run_script, train

long = pytest.mark.long
processes = multiprocessing.get_context("forkserver")  # one process imports torch, once; each run is forked from it
processes.set_forkserver_preload(["diffae_core", "train_ddim_mnist"])


def begin(run, folder: Path, *arguments: str):
    folder.mkdir(exist_ok=True)
    process = processes.Process(target=run, args=(folder, *arguments))
    process.start()
    return process


def ended(process) -> int:
    """Its exit status, once it has come to its end."""
    process.join()
    return process.exitcode


def wait_for(condition, running) -> None:
    while not condition():
        assert running(), "it ended before it could be stopped"
        time.sleep(0.005)


def result(folder: Path) -> dict:
    """The names of all files that are not hidden, and the weights in those that hold a model."""
    paths = folder.rglob("[!.]*.*")
    return {path.name: saved_weights(path) if path.suffix == ".pt" else None for path in paths}


def kill(count: int, tmp_path: Path, *run) -> Counter:
    """Kill a run at random moments and begin it again, until so many kills are done and a run has ended well."""
    assert ended(begin(Path.exists, tmp_path)) == 0  # now torch is imported: what follows can be timed
    dice, found, number, began = random.Random(0), Counter(), 0, time.perf_counter()
    assert ended(begin(run[0], tmp_path / "whole", *run[1:])) == 0
    seconds, expected = time.perf_counter() - began, result(tmp_path / "whole")
    while found["killed"] < count or not found["ended"]:
        folder = tmp_path / f"run{number}"
        process = begin(run[0], folder, *run[1:])
        process.join(dice.uniform(0, seconds) if found["killed"] < count else None)
        if process.is_alive():
            process.kill()
            process.join()
            found["killed"] += 1
            found["half-trained"] += any(folder.rglob("[!.]*_training.pt"))
            found["while saving"] += any(folder.rglob(".*.diffae-????????.*"))
            continue
        assert process.exitcode == 0, "could not be resumed"
        weights = result(folder)
        assert weights.keys() == expected.keys()
        assert all(all_equal(weights[name], of_whole) for name, of_whole in expected.items() if of_whole)
        found["ended"] += 1
        number += 1
    return found


OUTCOME = (
    "{half-trained} with a half-trained model to go on with, {while saving} while a file was written; runs that "
    "came to their end: {ended}, all with the files and weights of a run left alone"
)


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=long)])
def test_a_training_that_saves_at_every_step(count, tmp_path):
    found = kill(count, tmp_path, train)
    report("kills", "SIGKILL, a training that saves at every step", count, OUTCOME.format(**found))


FOUR_MODELS = [*SMALL_RUN, "--train-digits", "320", "--autoencoder-epochs", "12", "--epochs", "3", "--batch-size", "16"]
FOUR_MODELS += ["--prior-epochs", "60", "--train-classifier", "--quality-digits", "10", "--resume"]


@long
def test_the_whole_recipe(tmp_path):
    """Autoencoder, DDIM and prior have 60 steps each, saved every 20; the classifier has 12 and begins anew."""
    found = kill(20, tmp_path, run_script, *FOUR_MODELS)
    report("kills", "SIGKILL, the script, which trains four models", 20, OUTCOME.format(**found))


@long
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    folders = tmp_path / "one", tmp_path / "two"
    pair = [begin(run_script, folder, *FOUR_MODELS) for folder in folders]
    assert [ended(process) for process in pair] == [0, 0]
    one, two = map(result, folders)
    assert one.keys() == two.keys() and all(all_equal(one[name], two[name]) for name in one if one[name])
    report("kills", "the script twice at once, in two folders", 2, "the same files and weights")


def test_the_script_stopped_by_hand_then_killed_and_resumed(tmp_path):
    """And while it runs, no other may write to its folder."""
    arguments = [*NO_PRIOR, "--train-digits", "96", "--batch-size", "16", "--epochs", "40"]  # 240 steps
    alone, output = begin(run_script, tmp_path / "alone", *arguments), tmp_path / "output"
    state, model = output / "diffusion_training.pt", output / "diffusion_model.pt"
    process = start(tmp_path, *arguments)
    wait_for((output / "samples" / "epoch_005.png").exists, lambda: process.poll() is None)
    with pytest.raises(Timeout):
        FileLock(output / ".lock").acquire(timeout=0)
    process.send_signal(signal.SIGINT)
    _, error = finished(process, code=1)
    assert "--resume goes on from there" in error and not model.exists()

    assert ended(begin(run_script, tmp_path, *arguments)) == 1
    assert "add --resume to go on with it, or delete it" in (tmp_path / "messages.txt").read_text()
    written, process = state.stat().st_mtime_ns, begin(run_script, tmp_path, *arguments, "--resume")
    wait_for(lambda: state.stat().st_mtime_ns != written, process.is_alive)
    process.kill()
    assert ended(process) == -signal.SIGKILL and not model.exists()

    for name in ("diffusion_training.diffae-01234567.pt", "diffusion_model.diffae-89abcdef.pt"):
        (output / f".{name}").write_bytes(b"half a file")  # as of a kill while saving
    assert ended(begin(run_script, tmp_path, *arguments, "--resume")) == ended(alone) == 0
    assert all_equal(saved_weights(model), saved_weights(tmp_path / "alone" / "output" / "diffusion_model.pt"))
    assert not state.exists() and not list(output.glob(".*-*"))
