#!/usr/bin/env bash
# Tests, ladder and a whole search on a GPU, within ten minutes: bash benchmarks/gpu.sh [--out DIR] [--parts ...]
# Needs torch, timm and pyarrow. WHEELS names a folder of wheels to install first, where the machine has no network.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "${TMPDIR:-/tmp}/idat-tune-wheels" "$WHEELS"/*.whl
    export PYTHONPATH="${TMPDIR:-/tmp}/idat-tune-wheels${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$python" -m benchmarks.gpu "$@"
