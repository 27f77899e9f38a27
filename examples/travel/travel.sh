#!/usr/bin/env bash
# A run travels: it is made by one skiff, exported to a file, imported by another that knows nothing of it, and run
# again there; the last command compares the results bit for bit.
#
#   examples/travel/travel.sh [PIPELINE [flags of skiff run]]
#
# SKIFF names the program (bin/skiff), and both skiffs live in folders that are gone afterwards.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
skiff=${SKIFF:-$here/../../bin/skiff}
pipeline=${1:-$here/../train-compare/pipeline.yaml}
shift || true

work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

echo "1. run $pipeline in the first state"
id=$("$skiff" run "$pipeline" "$@" -o json --state-dir "$work/here" | sed -n 's/^  "run_id": "\(.*\)",$/\1/p')

echo "2. export run $id with its artifacts"
"$skiff" export run "$id" --artifacts -o "$work/run.tar.gz" --state-dir "$work/here"
tar -tzf "$work/run.tar.gz"

echo "3. import it into the second state"
"$skiff" import "$work/run.tar.gz" --state-dir "$work/there"
"$skiff" get runs --state-dir "$work/there"

echo "4. run it again there, and compare"
"$skiff" reproduce "$id" --state-dir "$work/there" "$@"
