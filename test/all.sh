#!/usr/bin/env bash
# Everything that `make test` runs. As root on Debian or Ubuntu it installs what the tests need; elsewhere
# it runs what can run, says exactly what is missing, and fails at the end, so that a green result always
# means that all of it ran.
#
#   SKIFF_TEST_DOCKER=0   leave out the tests that need a Docker engine
#   TESTFLAGS=…           more flags for go test (-v, -run …)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export SKIFF_CACHE=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
missing=()
failed=()
SECONDS=0

section() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
# step NAME COMMAND… runs it under its name and remembers a failure.
step() {
  local name=$1
  shift
  section "$name"
  "$@" || failed+=("$name")
}

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# need COMMAND PACKAGES… installs the packages where the command is not at hand and that is allowed.
need() {
  local command=$1
  shift
  if command -v "$command" >/dev/null; then return; fi
  if can_install; then
    DEBIAN_FRONTEND=noninteractive apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" && return
  fi
  missing+=("$command (Debian packages: $*)")
  return 1
}

if ! command -v go >/dev/null; then
  echo "Go is not installed; version $(awk '$1 == "go" { print $2 }' go.mod) or newer is needed" >&2
  exit 3
fi

section "what the tests need"
flags=(-timeout 60m)
# The race detector links C; without a compiler the tests run all the same and the verdict says so.
if need gcc gcc libc6-dev; then flags+=(-race); fi
need python3 python3 python3-venv
python3 -c 'import venv, ensurepip' 2>/dev/null || { can_install && apt-get install -y -qq python3-venv; } ||
  missing+=("Python's venv module (Debian package: python3-venv)")
test/minio.sh >/dev/null || missing+=("a MinIO server, built from its Go module (said above)")
if [[ ${SKIFF_TEST_DOCKER:-1} == 1 ]]; then
  if test/engine.sh && test/images/build.sh; then
    flags+=(-tags docker)
    need docker-registry docker-registry # a private registry, for credentials
  else
    missing+=("a Docker engine with the test images (said above); SKIFF_TEST_DOCKER=0 leaves those tests out")
  fi
fi

step "build" make --no-print-directory build
step "lint" make --no-print-directory lint

section "corpus"
test/corpus/compile.sh --check
case $? in
0) ;;
3) missing+=("the kfp SDK, to prove that the compiled corpus is what its sources say (said above)") ;;
*) failed+=("corpus") ;;
esac

# The wheelhouse serves the process runtime as it serves the images: the same packages, no index.
if wheels=$(test/images/build.sh --wheels); then export SKIFF_TEST_WHEELS=$wheels; fi
# shellcheck disable=SC2086 # TESTFLAGS holds several
step "go test ${flags[*]}" go test "${flags[@]}" ${TESTFLAGS:-} ./...

section "verdict"
for what in "${missing[@]}"; do echo "missing: $what"; done
for what in "${failed[@]}"; do echo "failed: $what"; done
if ((${#failed[@]})); then exit 1; fi
if ((${#missing[@]})); then exit 3; fi
echo "all passed"
