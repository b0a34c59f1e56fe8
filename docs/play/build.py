"""Build the page that runs the models in the browser: `python docs/play/build.py FOLDER [--serve]`.

The site (docs/conf.py) and `make play` both call it. ONNX Runtime Web comes from npm, pinned by package-lock.json.
"""

import argparse
import base64
import gzip
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

import diffae_core as core

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "output" / "play-cache"  # exported models, so that only new weights are exported again
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
LARGE = 1024  # weights: a tensor with fewer stays in 32 bits


def install_runtime() -> bool:
    """Get ONNX Runtime Web with npm; where that is impossible, say why in one line and return False."""
    npm = shutil.which("npm")
    if npm is None:
        print("docs/play is left out: it takes ONNX Runtime Web from npm, and there is no npm (install Node.js)")
        return False
    installed = HERE / "node_modules" / ".package-lock.json"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "npm.lock"):
        if installed.exists() and installed.stat().st_mtime >= (HERE / "package-lock.json").stat().st_mtime:
            return True
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        finished = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if finished.returncode:
        print(f"docs/play is left out: npm could not install ONNX Runtime Web: {finished.stderr.strip()[-300:]}")
    return not finished.returncode


def build(folder: Path) -> None:
    """Write the page with all that it loads into the folder, and print how many bytes that is."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in [*HERE.glob("*.html"), *HERE.glob("*.css"), *HERE.glob("*.js"), *exported_models().iterdir()]:
        shutil.copy(file, folder)
    shutil.copy(ROOT / "diffae_core" / "panels" / "canvas.js", folder)
    for name in RUNTIME:
        shutil.copy(HERE / "node_modules" / "onnxruntime-web" / "dist" / name, folder)
    (folder / "digits.json").write_text(json.dumps(test_digits()))
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != "sizes.json"}
    (folder / "sizes.json").write_text(json.dumps(sizes))
    served = sum(len(gzip.compress(file.read_bytes())) for file in folder.iterdir())
    print(f"docs/play: {sum(sizes.values()) / 1e6:.1f} MB, {served / 1e6:.1f} MB as served with gzip")


def test_digits() -> list[dict]:
    """The first two test digits of each class."""
    digits = core.load_sample("test")
    chosen = [int(index) for label in range(10) for index in (digits.labels == label).nonzero()[:2]]
    pixels = [base64.b64encode(bytes(digits.pixels[index].flatten().tolist())).decode() for index in chosen]
    return [{"label": int(digits.labels[index]), "pixels": text} for index, text in zip(chosen, pixels)]


def exported_models() -> Path:
    """The folder with the ONNX files of the shipped weights, in 16 bits; exported when weights or code are new."""
    package = ROOT / "diffae_core"
    sources = [
        Path(__file__),
        *package.glob("*.py"),
        *package.glob("evaluation/*.py"),
        *package.glob("pretrained/*.pt"),
    ]
    content = b"".join(file.read_bytes() for file in sorted(sources)) + torch.__version__.encode()
    folder = CACHE / f"models-{hashlib.sha256(content).hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "export.lock"):
        if not folder.exists():
            for old in CACHE.glob("models-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                export(Path(temporary) / "models")
                os.replace(Path(temporary) / "models", folder)
    return folder


def export(folder: Path) -> None:
    """Write encoder, U-Net, prior and classifier as ONNX files with 16-bit weights."""
    import onnx  # when it is needed: it comes with the extra "onnx"

    models = [kind.from_pretrained(device="cpu") for kind in (core.SimpleAutoencoder, core.DiffusionModel)]
    core.export_onnx(*models, core.LatentPrior.from_pretrained(device="cpu"), folder)
    (folder / "decoder.onnx").unlink()
    classifier = core.DigitClassifier.from_pretrained(device="cpu")
    torch.onnx.export(
        torch.nn.Sequential(classifier.features, classifier.classifier).eval(),
        (torch.zeros(2, 1, 28, 28),),
        folder / "classifier.onnx",
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
        verbose=False,
    )
    for file in folder.glob("*.onnx"):
        model = onnx.load(file)
        store_in_16_bits(model.graph)
        onnx.save(model, file)


def store_in_16_bits(graph) -> None:
    """Large weights become float16, each with a node that makes it float32 again when the page loads it."""
    import onnx

    for weights in graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype != "float32" or values.size < LARGE:
            continue
        name = weights.name
        weights.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}_16_bits"))
        graph.node.insert(0, onnx.helper.make_node("Cast", [weights.name], [name], to=onnx.TensorProto.FLOAT))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site; a page of it that is not built yet says how to build it."""

    error_message_format = "<p>%(code)d: %(message)s. The rest of the site is built by <code>make docs</code>.</p>"

    def log_message(self, *_) -> None:
        """Nothing: the terminal keeps the line that says where the page is."""


def serve(root: Path, path: str) -> None:
    """Serve a folder on this machine alone, until it is interrupted."""

    def handler(*arguments):
        return Handler(*arguments, directory=root)

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler)
    except OSError:  # taken
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(f"Open http://127.0.0.1:{server.server_port}/{path} (Ctrl+C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="the site's folder; the page goes to docs/play in it")
    parser.add_argument("--serve", action="store_true", help="serve it on 127.0.0.1")
    arguments = parser.parse_args()
    if not install_runtime():
        raise SystemExit(1)
    build(arguments.site / "docs" / "play")
    if arguments.serve:
        serve(arguments.site, "docs/play/")


if __name__ == "__main__":
    main()
