#!/usr/bin/env bash
# Compiles the corpus and the examples with the kfp SDK, in a virtual environment in the cache.
#
#   test/corpus/compile.sh           write the compiled files
#   test/corpus/compile.sh --check   exit 1 where a committed file is not what its source compiles to
#
# Exit code 3: the SDK is not at hand and could not be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=2.17.0
cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
venv=$cache/venv/kfp-$version

if [[ ! -e $venv/.complete ]]; then
  command -v python3 >/dev/null || { echo "python3 is not installed; install the packages python3 and python3-venv" >&2; exit 3; }
  rm -rf "$venv"
  mkdir -p "$cache/venv"
  python3 -m venv "$venv" || { echo "python3 has no venv; install the package python3-venv" >&2; exit 3; }
  "$venv/bin/python3" -m pip install --quiet "kfp==$version" "kfp-kubernetes==$version" ||
    { echo "kfp $version could not be installed; is a Python package index reachable?" >&2; exit 3; }
  touch "$venv/.complete"
fi
PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python3" test/corpus/compile.py "$@"
