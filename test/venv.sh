#!/usr/bin/env bash
# Prints the Python of a virtual environment with the kfp SDK, in the cache; makes it where it is not there.
#
#   test/venv.sh             the SDK that the corpus is compiled with
#   test/venv.sh VERSION     prints instead the folder of another version of it, to be put on PYTHONPATH: the
#                            SDK, and of what it pins the libraries that it cannot do without in that version.
#                            The rest it finds in the environment: some megabytes instead of a hundred.
#
# Exit code 3: the SDK is not at hand and could not be installed.
set -euo pipefail

version=2.17.0
other=${1:-}
cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
venv=$cache/venv/kfp-$version
python=$venv/bin/python3

# install NAME COMMAND… runs the command that makes the cache's folder NAME, once, whoever else asks for it.
install() {
  local folder=$cache/venv/$1
  if [[ -e $folder/.complete ]]; then return; fi
  mkdir -p "$cache/venv"
  exec 9>"$folder.lock"
  flock 9
  if [[ ! -e $folder/.complete ]]; then
    rm -rf "$folder"
    "${@:2}"
    touch "$folder/.complete"
  fi
  exec 9>&-
}

make_venv() {
  command -v python3 >/dev/null || { echo "python3 is not installed; install the packages python3 and python3-venv" >&2; exit 3; }
  python3 -m venv "$venv" || { echo "python3 has no venv; install the package python3-venv" >&2; exit 3; }
  "$python" -m pip install --quiet "kfp==$version" "kfp-kubernetes==$version" >&2 ||
    { echo "kfp $version could not be installed; is a Python package index reachable?" >&2; exit 3; }
}

make_other() {
  local folder=$cache/venv/kfp-$other-only needs
  local pip=("$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --ignore-requires-python)
  "${pip[@]}" --target "$folder" "kfp==$other" >&2 &&
    needs=$("$python" - "$folder" <<'P'
import importlib.metadata, re, sys
[kfp] = importlib.metadata.distributions(name='kfp', path=[sys.argv[1]])
for need in kfp.requires:
    match = re.match(r'(kfp-pipeline-spec|requests-toolbelt|urllib3)\s*\(?([^;)]*)', need)
    if match:
        print(match[1] + match[2].strip())
    # Formats compiled for protobuf 3 are read by nothing newer.
    if re.match(r'protobuf\s*\(?<4', need):
        print('protobuf<4', 'googleapis-common-protos<1.57', sep='\n')
P
    ) && mapfile -t needs <<<"$needs" && "${pip[@]}" --target "$folder/pinned" "${needs[@]}" >&2 &&
    # pip gives a folder to the first package that has files in it, and both have some in kfp.
    cp -a "$folder/pinned/." "$folder" && rm -rf "$folder/pinned" ||
    { echo "kfp $other could not be installed; is a Python package index reachable?" >&2; exit 3; }
}

install "kfp-$version" make_venv
if [[ -z $other ]]; then
  echo "$python"
else
  install "kfp-$other-only" make_other
  echo "$cache/venv/kfp-$other-only"
fi
