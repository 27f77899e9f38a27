#!/usr/bin/env bash
# Builds skiff and runs a whole training pipeline with it, from nothing: `make demo`.
# Needs Go, Python 3 with venv and a reachable Python package index; no container engine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

state=${SKIFF_STATE_DIR:-$PWD/.demo}
pipeline=examples/train-compare/pipeline.yaml

stop() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# What is missing is said before anything is built, all of it at once.
missing=()
command -v go >/dev/null || missing+=("Go is not installed; version $(awk '$1 == "go" { print $2 }' go.mod) or newer, see https://go.dev/dl")
if ! command -v python3 >/dev/null; then
  missing+=("Python 3 is not installed; on Debian and Ubuntu: apt-get install python3 python3-venv")
elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  missing+=("Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv")
fi
if ((${#missing[@]})); then stop "${missing[@]/%/$'\n'}"; fi

make --no-print-directory build

# The process runtime runs each step as a process of this machine, in a Python environment of its own.
echo
echo "\$ bin/skiff run $pipeline --runtime process --state-dir $state --follow"
status=0
bin/skiff run "$pipeline" --runtime process --state-dir "$state" --follow || status=$?
((status == 0)) || stop "the run ended with exit code $status; bin/skiff doctor --state-dir $state says what this machine lacks"

cat <<END

The state folder is $state
Where to look next:
  bin/skiff get runs       --state-dir $state           # the run; -o json for everything
  bin/skiff get tasks      --state-dir $state           # its steps
  bin/skiff get artifacts  --state-dir $state           # the models and metrics it made
  bin/skiff run examples/loop/pipeline.yaml --follow    # the next example; examples/README.md lists them
  bin/skiff up                                          # a daemon that keeps running; bin/skiff doctor shows what it can use
END
