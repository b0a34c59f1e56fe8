#!/usr/bin/env bash
# Everything on one CUDA machine, in under ten minutes: `bash tests/gpu.sh [OUTPUT FOLDER]`, in an environment with the
# extra "test". Needs no network where DIFFAE_DATA_DIR holds MNIST; the embedded sample stands in for it elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-output/gpu}
mkdir -p "$folder"
python -c 'import torch; assert torch.cuda.is_available(), "expected a CUDA device: on a machine without one, run make test"'
python -m pytest tests -n 8 --dist worksteal --ignore tests/test_notebooks.py --ignore tests/test_browser.py \
  --ignore tests/test_site.py --ignore tests/robustness 2>&1 | tail -n 20 | tee "$folder/tests.txt"
python train_ddim_mnist.py --train-digits 20000 --epochs 2 --autoencoder-epochs 1 --prior-epochs 5 \
  --output-dir "$folder/trained" 2>&1 | tee "$folder/script.txt"
python benchmarks/gpu.py | tee "$folder/sampling.md"
