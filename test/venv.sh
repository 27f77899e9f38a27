#!/usr/bin/env bash
# Prints the Python of a virtual environment with the kfp SDK, in the cache; makes it where it is not there.
#
# Exit code 3: the SDK is not at hand and could not be installed.
set -euo pipefail

version=2.17.0
cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
venv=$cache/venv/kfp-$version

if [[ ! -e $venv/.complete ]]; then
  command -v python3 >/dev/null || { echo "python3 is not installed; install the packages python3 and python3-venv" >&2; exit 3; }
  mkdir -p "$cache/venv"
  exec 9>"$venv.lock"
  flock 9
fi
if [[ ! -e $venv/.complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "python3 has no venv; install the package python3-venv" >&2; exit 3; }
  "$venv/bin/python3" -m pip install --quiet "kfp==$version" "kfp-kubernetes==$version" >&2 ||
    { echo "kfp $version could not be installed; is a Python package index reachable?" >&2; exit 3; }
  touch "$venv/.complete"
fi
echo "$venv/bin/python3"
