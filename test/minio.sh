#!/usr/bin/env bash
# Prints the MinIO server that the tests run, in the cache; builds it from its Go module where it is not there.
#
#   test/minio.sh           build it once (some minutes), print its file
#   test/minio.sh --check   exit 3 where it is not there, build nothing
#
# Exit code 3: it is not at hand and could not be built.
set -euo pipefail

version=v0.0.0-20260212201848-7aac2a2c5b7c
cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
dir=$cache/tools/minio-$version

if [[ ! -x $dir/minio ]]; then
  if [[ ${1:-} == --check ]]; then
    echo "there is no MinIO in $dir; make minio builds it" >&2
    exit 3
  fi
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi
if [[ ! -x $dir/minio ]]; then
  echo "building MinIO $version into $dir, once (some minutes)" >&2
  (cd "$dir" && GOFLAGS='' CGO_ENABLED=0 GOBIN="$dir" go install -trimpath -ldflags '-s -w' "github.com/minio/minio@$version") >&2 ||
    { echo "MinIO could not be built; is a Go module proxy reachable?" >&2; exit 3; }
fi
echo "$dir/minio"
