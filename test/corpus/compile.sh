#!/usr/bin/env bash
# Compiles the corpus and the examples with the kfp SDK, in a virtual environment in the cache; the folder sdk
# with each of the SDK's versions that the images hold.
#
#   test/corpus/compile.sh           write the compiled files
#   test/corpus/compile.sh --check   exit 1 where a committed file is not what its source compiles to
#
# Exit code 3: the SDK is not at hand and could not be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=$(test/venv.sh)
export PYTHONDONTWRITEBYTECODE=1
verdict=0
"$python" test/corpus/compile.py "$@" || verdict=$?
# The first version in the list is the one of the environment.
for version in $(sed -e 's/#.*//' test/images/kfp-versions.txt | tail -n +3); do
  folder=$(test/venv.sh "$version")
  PYTHONPATH=$folder "$python" test/corpus/compile.py "$@" test/corpus/sdk || verdict=$?
done
exit "$verdict"
