#!/usr/bin/env bash
# Everything on one CUDA machine, in under ten minutes: `bash tests/gpu.sh [OUTPUT FOLDER]`, in an environment with the
# extra "test" (PYTHON: the interpreter, by default `python`). No network; DIFFAE_DATA_DIR must name a folder with MNIST.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-output/gpu}
python=${PYTHON:-python}
failed=""
mkdir -p "$folder"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

part() { # NAME SECONDS COMMAND...: a part that fails does not stop the others
  echo "== $1"
  timeout "$2" "${@:3}" 2>&1 | tee "$folder/$1.txt" || failed="$failed $1"
}

$python -c 'import torch; assert torch.cuda.is_available(), "expected a CUDA device: without one, run make test"' || exit
$python -c 'import diffae_core as core; found = len(core.load_mnist("train")); assert found >= 20_000, \
  f"expected MNIST, got a sample of {found} digits: set DIFFAE_DATA_DIR to a folder with MNIST"' || exit
part sampling 120 $python benchmarks/gpu.py
part training 180 $python train_ddim_mnist.py --train-digits 20000 --epochs 2 --autoencoder-epochs 1 --prior-epochs 5 \
  --output-dir "$(mktemp -d)"
part tests 280 env DIFFAE_TEST_DEVICE=cuda:0 OMP_NUM_THREADS=1 $python -m pytest tests -n auto --dist worksteal \
  --ignore tests/test_notebooks.py --ignore tests/test_browser.py --ignore tests/test_site.py \
  --ignore tests/test_play.py --ignore tests/robustness --continue-on-collection-errors
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
