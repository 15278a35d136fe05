#!/usr/bin/env bash
# Ladder, trials, a whole search and tests on a GPU: bash benchmarks/gpu.sh [--out DIR] [--parts ...] [--minutes 9.5]
# What found no time says so; --parts search,tests does the two longest in a call of their own.
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
