"""The script as a person runs it: from scratch, again, with the shipped weights, with options that make no sense.

tests/test_own_data.py runs it on other pictures; tests/robustness has kills, full disks, a second run.
"""

import errno
import logging
import os
import re
import runpy
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import NO_PRIOR, SMALL_RUN, all_equal, finished, saved_weights, start

import diffae_core as core
import train_ddim_mnist as script

FIVE_EPOCHS = [*SMALL_RUN, "--prior-epochs", "1", "--epochs", "5"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Let script.main run here, on the embedded sample, and take back what it does to signals and log messages."""
    handler, log = signal.getsignal(signal.SIGINT), logging.getLogger("diffae_core")
    level = log.level
    monkeypatch.setattr(core, "load_mnist", lambda split: core.load_sample("test" if split == "test" else "train"))
    yield
    signal.signal(signal.SIGINT, handler)
    log.setLevel(level)


@pytest.fixture
def main(tmp_path):
    return lambda *arguments: script.main(["--output-dir", str(tmp_path / "output"), *map(str, arguments)])


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} - {".lock"}


def test_from_scratch_then_again_from_what_was_written(tmp_path, main, caplog):
    out, error = finished(start(tmp_path, *FIVE_EPOCHS, env=os.environ | {"DIFFAE_DATA_DIR": __file__}))  # the sample
    made = files_in(tmp_path / "output") - {"diffae_settings.json"}
    assert made == {
        "autoencoder_weights.pt",
        "diffusion_model.pt",
        "latent_prior.pt",
        "samples/epoch_005.png",
        "conditioned_samples.png",
        "diffusion_autoencoder_demo.png",
        "one_as_all.png",
        "from_scratch.png",
        "animation.gif",
    }
    assert all(name in out for name in made) and "\r" not in error
    first, *progress = [line for line in error.splitlines() if not line.startswith("MNIST could not be")]
    assert re.match(r"cpu, 640 training digits, about \d+ minutes? on 2 cores, into .*output$", first)
    assert all(re.match(r"(autoencoder|diffusion|prior): step \d+ of \d+, loss \d\.\d+$", line) for line in progress)

    before = {path: path.read_bytes() for path in (tmp_path / "output").glob("*.pt")}
    main(*FIVE_EPOCHS)
    assert caplog.text.count("found, so not trained") == 3
    assert files_in(tmp_path / "output") == {*made, "diffae_settings.json"}
    assert {path: path.read_bytes() for path in (tmp_path / "output").glob("*.pt")} == before

    with pytest.raises(ValueError, match=r"diffusion_model\.pt with widths \(8, 8\), .* got \(8, 16\): use its value"):
        main(*FIVE_EPOCHS, "--widths", "8", "8")
    with pytest.raises(
        ValueError, match=r"autoencoder_weights\.pt with latent_dim 8, .* got 16: use its value, or another --output"
    ):
        main(*FIVE_EPOCHS, "--latent-dim", "8")
    (tmp_path / "output" / "autoencoder_weights.pt").unlink()
    (tmp_path / "output" / "diffae_settings.json").unlink()  # so that the script cannot know that the seed was another
    with pytest.raises(
        ValueError, match="expected the autoencoder that this DiffusionModel was trained with.*train the Diff"
    ):
        main(*FIVE_EPOCHS, "--seed", "1")


def test_the_same_seed_gives_the_same_weights(tmp_path):
    runs = []
    for name, seed in (("one", "0"), ("again", "0"), ("other", "1")):
        script.main(["--output-dir", str(tmp_path / name), *NO_PRIOR, "--epochs", "0.5", "--seed", seed])
        runs.append(saved_weights(tmp_path / name / "diffusion_model.pt"))
    assert all_equal(runs[0], runs[1]) and not all_equal(runs[0], runs[2])


def test_a_folder_of_other_settings_or_pictures_is_refused(tmp_path, main):
    """Finished or not, with --resume or without; what differs is said in one line."""
    options = [*NO_PRIOR, "--train-digits", "96", "--epochs", "1"]
    main(*options)
    main(*options, "--num-steps", "3", "--prior-epochs", "0.5")  # a model that was not there is added
    before = {path: path.read_bytes() for path in (tmp_path / "output").rglob("*.*")}
    np.savez(tmp_path / "own.npz", images=core.load_sample("test").pixels[:120, 0].numpy())
    for others, difference in (
        (["--epochs", "2"], r"with diffusion epochs 1\.0, not 2\.0: use the same settings, or another folder$"),
        (["--seed", "1"], "with seed 0, not 1: use the same"),
        (["--data", str(tmp_path / "own.npz")], r"with pictures \w+, not \w+: use the same"),
        (["--prior-epochs", "0.6"], r"with prior epochs 0\.5, not 0\.6: "),
        (["--max-latent-noise", "1", "--resume"], r"with max latent noise 2, not 1\.0: "),
    ):
        with pytest.raises(ValueError, match=f"the models in .*output were trained {difference}"):
            main(*options, *others)
    assert {path: path.read_bytes() for path in (tmp_path / "output").rglob("*.*")} == before
    (tmp_path / "output" / "diffae_settings.json").write_text("[1]")
    with pytest.raises(
        ValueError, match=r"settings of the models at .*settings\.json, got another file .*move it away"
    ):
        main(*options)


def test_other_peoples_files_stay_and_a_dead_link_is_no_hindrance(tmp_path, main, capsys):
    output = tmp_path / "output"
    names = [".release-please-manifest.json", ".secrets-baseline.json", ".backup-20261128.tar.gz", "notes.txt"]
    for name in (
        *names,
        "settings.json",
        "best.pt",
        "sub/.docker-override.yml",
        "sub/.model.diffae-01234567.pt",
        ".a.diffae-notes.pt",
    ):
        (output / name).parent.mkdir(exist_ok=True, parents=True)
        (output / name).write_text("another's")
    (output / "dead.txt").symlink_to(tmp_path / "nowhere")
    for place in (output, output / "samples"):
        place.mkdir(exist_ok=True)
        (place / ".epoch_005.diffae-89abcdef.png").write_bytes(b"half a file of a killed run")
    before = files_in(output)
    main(*NO_PRIOR, "--train-digits", "64", "--epochs", "1")
    assert (output / "settings.json").read_text() == (output / "best.pt").read_text() == "another's"
    assert (output / "diffae_settings.json").exists()
    left_overs = {".epoch_005.diffae-89abcdef.png", "samples/.epoch_005.diffae-89abcdef.png"}
    assert before - files_in(output) == left_overs and (output / "dead.txt").is_symlink()
    assert "notes.txt" not in capsys.readouterr().out


def test_nothing_is_written_among_the_pictures(tmp_path, main):
    with pytest.raises(ValueError, match="expected --output-dir outside of the pictures"):
        main(*SMALL_RUN, "--data", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_in_a_thread_which_gets_no_signals(tmp_path):
    arguments = ["--output-dir", str(tmp_path), *NO_PRIOR, "--train-digits", "64", "--epochs", "1"]
    with ThreadPoolExecutor(1) as executor:
        executor.submit(script.main, arguments).result()
    assert (tmp_path / "diffusion_model.pt").exists()


def test_a_file_system_without_locks(main, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    main(*NO_PRIOR, "--train-digits", "64", "--epochs", "1")
    assert "cannot be locked" in caplog.text


def test_the_demo_as_a_command(tmp_path, monkeypatch, capsys):
    """What it writes is tested with the script."""
    monkeypatch.chdir(tmp_path)
    for argument, code in (("--help", 0), ("--colour", 2)):
        monkeypatch.setattr("sys.argv", ["diffae_core", argument])
        with pytest.raises(SystemExit) as ending:
            runpy.run_module("diffae_core", run_name="__main__")
        assert ending.value.code == code and not list(tmp_path.iterdir())
    monkeypatch.setattr("sys.argv", ["diffae_core", "pictures"])
    monkeypatch.setattr(core.Demo, "save", lambda self, folder: [folder / "a.png"])
    runpy.run_module("diffae_core", run_name="__main__")
    assert capsys.readouterr().out.endswith("pictures/a.png\n")


def test_the_shipped_weights(tmp_path, main, capsys):
    main("--pretrained", "--quality-digits", "30", "--num-steps", "3")
    table, out = (tmp_path / "output" / "quality.md").read_text(), capsys.readouterr().out
    assert table in out and "nan" not in table and "latent + 2 std: FD ratio" in table
    assert "diffusion_autoencoder_demo.png" in out and not list((tmp_path / "output").glob("*.pt"))
    message = r"expected autoencoder_weights\.pt with latent_dim 16, .* got 256: leave out --pretrained"
    with pytest.raises(ValueError, match=message):
        main("--pretrained", "--latent-dim", "16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *((["--epochs", value], "expected epochs") for value in ("-1", "0", "nan", "inf")),
        (["--autoencoder-epochs", "nan"], "expected epochs"),
        (["--prior-epochs", "-1"], "expected epochs"),
        (["--feature-embedding-dim", "5"], "feature_embedding_dim .* a multiple of 4, got 5"),
        (["--time-embedding-dim", "3"], "time_embedding_dim .* a multiple of 2, got 3"),
        (["--widths", "8", "0"], "each of widths"),
        (["--block-depth", "0"], "block_depth"),
        (["--latent-dim", "0"], "latent_dim"),
        (["--max-latent-noise", "nan"], "latent.noise"),
        (["--max-latent-noise", "-1"], "latent.noise"),
        (["--batch-size", "0"], "batch_size"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--seed", "-1"], "seed"),
        (["--num-steps", "0"], "num_steps"),
        (["--train-digits", "-5"], "train.digits"),
        (["--device", "abacus"], "expected a device from"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--image-size", "32"], "expected --data with --image-size 32"),
        (
            ["--output-dir", __file__],
            "expected the output folder .*test_script.py, got a file or a dead link: choose another",
        ),
    ],
)
def test_options_are_checked_before_anything_is_trained(main, monkeypatch, options, message):
    monkeypatch.setattr(core, "train_autoencoder", lambda *_: pytest.fail("it was trained"))
    with pytest.raises((ValueError, OSError), match=message):
        main(*SMALL_RUN, *options)


def test_a_training_that_diverges_stops_and_says_what_to_do(main, monkeypatch):
    train = core.train_diffusion

    def diverging(*given):
        run = train(*given)
        loss, run.batch_loss = run.batch_loss, lambda *batch: float("nan") * loss(*batch)
        return run

    monkeypatch.setattr(core, "train_diffusion", diverging)
    with pytest.raises(
        ValueError, match=r"the loss of the diffusion is nan at step 10: start again .* lower --learning-rate"
    ):
        main(*NO_PRIOR, "--epochs", "1")


def test_an_error_is_one_line(tmp_path):
    (tmp_path / "output").write_text("a file where the folder should be")
    _, error = finished(start(tmp_path, "--pretrained"), code=1)
    assert error.startswith("error: ") and error.count("\n") == 1
