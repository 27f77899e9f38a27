#!/bin/sh
# Measure and print the report; a whole run also writes docs/benchmarks.md.
# Arguments go to the program: -only store, -quick, -objects N, -dir FOLDER.
set -eu
cd "$(dirname "$0")/../.."
case " $* " in
*" -only"* | *" -quick"*) ;;
*) set -- -o docs/benchmarks.md "$@" ;;
esac
# Built first, so that the compiler's work is over when the measurements begin.
program=$(mktemp -d)
trap 'rm -rf "$program"' EXIT
go build -o "$program/bench" ./test/bench
"$program/bench" "$@"
