#!/usr/bin/env bash
# The linters, and the house rules that no linter knows. Called by `make lint`, which gives GOLANGCI.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
step() { printf 'lint: %s\n' "$1"; }
fail() { printf 'lint: %s\n' "$*" >&2; failed=1; }

mapfile -t go_files < <(git ls-files -co --exclude-standard -- '*.go')

step gofmt
unformatted=$(gofmt -l "${go_files[@]}")
[[ -z $unformatted ]] || fail "gofmt -w these files:" $unformatted

step "go vet"
go vet -tags docker ./... || fail "go vet found faults"

step golangci-lint
"${GOLANGCI:?run it by make lint}" run --allow-parallel-runners ./... || fail "golangci-lint found faults"

step "house rules"
for f in "${go_files[@]}"; do
  if grep -qm1 '^// Code generated .* DO NOT EDIT\.$' "$f"; then continue; fi
  n=$(wc -l <"$f")
  ((n <= 600)) || fail "$f has $n lines; 600 is the limit, split it by concern"
done
grep -nE '\b(TODO|FIXME|XXX)\b' "${go_files[@]}" && fail "do it, or leave it out"
for f in $(git ls-files -co --exclude-standard -- '*.sh' .ci/run); do
  bash -n "$f" || fail "$f does not parse"
  [[ -x $f ]] || fail "$f is not executable"
done
for f in $(git ls-files -co --exclude-standard -- '*.py'); do
  python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$f" || fail "$f does not parse"
done
exit "$failed"
