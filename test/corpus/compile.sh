#!/usr/bin/env bash
# Compiles the corpus and the examples with the kfp SDK, in a virtual environment in the cache.
#
#   test/corpus/compile.sh           write the compiled files
#   test/corpus/compile.sh --check   exit 1 where a committed file is not what its source compiles to
#
# Exit code 3: the SDK is not at hand and could not be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=$(test/venv.sh)
PYTHONDONTWRITEBYTECODE=1 exec "$python" test/corpus/compile.py "$@"
