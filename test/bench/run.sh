#!/bin/sh
# Measure, print the report and write docs/benchmarks.md. Arguments go to the
# program: -only store, -quick, -dir FOLDER.
set -eu
cd "$(dirname "$0")/../.."
exec go run ./test/bench -o docs/benchmarks.md "$@"
