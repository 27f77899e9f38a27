#!/usr/bin/env bash
# Builds the images that the tests run, without an image registry, and tags them with the names that
# pipelines use: Debian by debootstrap, wheels by pip, both cached by their inputs.
#
#   test/images/build.sh            build what is missing, tag
#   test/images/build.sh --check    exit 3 where something is missing, build nothing
#   test/images/build.sh --wheels   print the wheelhouse's folder (PIP_FIND_LINKS for the process runtime)
#
# Exit codes: 0 all images are there, 1 a step failed, 3 something is missing that only the user can provide.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}/images
corpus=$root/../shared/conformance
suite=bookworm
packages=ca-certificates,python3,python3-pip,python3-venv,jq,busybox-static

say() { printf 'images: %s\n' "$*" >&2; }
missing() { say "$*"; exit 3; }
lines() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' "$1" | grep -v '^$'; }
hash() { sha256sum | cut -c1-16; }

arch=$(uname -m)
# The keys name everything that goes into each layer; this script's own steps count through `recipe`,
# which is raised when they change.
recipe=1
rootfs_key=$(printf '%s\n' "$recipe" "$suite" "$packages" "$arch" | hash)
wheels_key=$(cat <(printf '%s\n' "$recipe" "$arch") <(lines "$here/kfp-versions.txt") <(lines "$here/wheels.txt") | hash)
image_key=$(cat <(printf '%s\n' "$recipe" "$rootfs_key" "$wheels_key") "$here"/Dockerfile.* "$here/my_program" | hash)
rootfs=$cache/rootfs-$rootfs_key.tar
wheels=$cache/wheels-$wheels_key

# Prints "kind name:tag" for each name; names in the conformance folder that end like a listed one
# (another registry in front) are added.
names() {
  local kind name found
  lines "$here/names.txt" | tr -s ' '
  [[ -d $corpus ]] || return 0
  # Archives of the corpus hold copies of its YAML files, so plain files are enough.
  find "$corpus" -type f \( -name '*.yaml' -o -name '*.json' \) -print0 |
    xargs -0 sed -nE 's/^[[:space:]]*"?image"?: *["'\'']?([^"'\'' ,]+).*/\1/p' 2>/dev/null | sort -u |
    while read -r found; do
      [[ ${found##*/} == *:* || $found == *@* ]] || found+=:latest
      while read -r kind name; do
        if [[ $found == */"$name" ]]; then echo "$kind $found"; fi
      done < <(lines "$here/names.txt")
    done
}

# Prints the key that an image of ours was built with; nothing for any other.
key_of() { docker image inspect -f '{{index .Config.Labels "skiff.dev/image-key"}}' "$1" 2>/dev/null || true; }

# Prints the id of one of our images if it has the wanted key.
built() {
  if [[ $(key_of "$1") == "$image_key" ]]; then docker image inspect -f '{{.Id}}' "$1"; fi
}

# The three that follow run in subshells: each removes its own temporary folder, however it ends.
make_rootfs() (
  if [[ -s $rootfs ]]; then exit 0; fi
  [[ $(id -u) == 0 ]] || missing "building the test images takes root once (debootstrap); run 'sudo make images'"
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || missing "debootstrap is not installed; install it with your package manager"
    say "installing debootstrap"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || say "apt-get update failed; trying with the lists at hand"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap debian-archive-keyring >&2 ||
      missing "apt-get could not install debootstrap; see its message above"
  fi
  work=$(mktemp -d "$cache/rootfs.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  say "debootstrap $suite (about a minute)"
  debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" >"$cache/debootstrap.log" 2>&1 ||
    { tail -n 15 "$cache/debootstrap.log" >&2; say "debootstrap failed; whole log in $cache/debootstrap.log"; exit 1; }
  rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/var/log/* \
    "$work"/root/usr/share/{doc,man,locale}/* "$work"/root/tmp/* "$work"/root/etc/resolv.conf
  ln -sf python3 "$work/root/usr/bin/python"
  chmod 1777 "$work/root/tmp"
  tar -C "$work/root" --numeric-owner --one-file-system -cf "$rootfs.part" .
  mv "$rootfs.part" "$rootfs"
)

# A pip that can be used on this machine: the interpreter's own, or one in a virtual environment.
host_pip() {
  if python3 -m pip --version >/dev/null 2>&1; then echo python3; return; fi
  local venv=$cache/pip
  [[ -x $venv/bin/python3 ]] || python3 -m venv "$venv" >&2 ||
    missing "python3 has neither pip nor venv; install the package python3-venv"
  echo "$venv/bin/python3"
}

make_wheels() {
  if [[ -e $wheels/.complete ]]; then return; fi
  command -v python3 >/dev/null || missing "python3 is not installed; install the packages python3 and python3-venv"
  local python version platforms=()
  python=$(host_pip)
  say "downloading wheels"
  mkdir -p "$wheels.part"
  while read -r version; do
    # Old versions are published as source only; they hold no compiled code, so any Python can build them.
    "$python" -m pip wheel --quiet --no-deps --ignore-requires-python --wheel-dir "$wheels.part" "kfp==$version" >&2
  done < <(lines "$here/kfp-versions.txt")
  for version in 2014 _2_17 _2_24 _2_26 _2_27 _2_28 _2_31 _2_34 _2_35 _2_36 1 2010; do
    platforms+=(--platform "manylinux${version}_$arch")
  done
  lines "$here/wheels.txt" >"$cache/wheels.requirements"
  "$python" -m pip download --quiet --dest "$wheels.part" --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --abi abi3 --abi none "${platforms[@]}" -r "$cache/wheels.requirements" >&2
  touch "$wheels.part/.complete"
  rm -rf "$wheels"
  mv "$wheels.part" "$wheels"
}

# The legacy builder is what every engine from 20.10 on has without a plugin; newer clients may have dropped it.
# No step needs a network: packages come from the wheelhouse.
build() {
  set -- --network none "$@"
  DOCKER_BUILDKIT=0 docker build -q "$@" >/dev/null 2>"$cache/build.log" || docker build -q "$@" >/dev/null 2>>"$cache/build.log" ||
    { tail -n 20 "$cache/build.log" >&2; say "docker build failed; whole log in $cache/build.log"; return 1; }
}

# A Debian busybox alone in an image of 2 MB, for tests that need nothing but a shell.
make_busybox() (
  work=$(mktemp -d "$cache/busybox.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{bin,etc,root,tmp,proc,sys,dev,var}
  chmod 1777 "$work/tmp"
  tar -xOf "$rootfs" ./usr/bin/busybox >"$work/bin/busybox"
  chmod 755 "$work/bin/busybox"
  for applet in $("$work/bin/busybox" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$work/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$work/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$work/etc/group"
  tar -C "$work" --owner=0 --group=0 -c . |
    docker import --change 'CMD ["/bin/sh"]' --change 'ENV PATH=/bin' --change "LABEL skiff.dev/image-key=$image_key" - skiffdev/busybox:1 >/dev/null
)

# An image of nothing but a model, as registries keep them: the files that a tokenizer and its model come
# in, each a few bytes, and one of them a link as in a hub's cache.
make_modelcar() (
  work=$(mktemp -d "$cache/modelcar.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/models/blobs"
  for name in added_tokens config generation_config normalizer preprocessor_config special_tokens_map tokenizer \
    tokenizer_config vocab; do
    printf '{"file": "%s"}\n' "$name" >"$work/models/$name.json"
  done
  echo '#version: 0.2' >"$work/models/merges.txt"
  printf '\x02\0\0\0\0\0\0\0{}' >"$work/models/blobs/0"
  ln -s blobs/0 "$work/models/model.safetensors"
  tar -C "$work" --owner=0 --group=0 --sort=name --mtime=@0 -c models |
    docker import --change "LABEL skiff.dev/image-key=$image_key" - skiffdev/modelcar:1 >/dev/null
)

make_images() (
  make_rootfs
  make_wheels
  context=$(mktemp -d "$cache/context.XXXXXX")
  trap 'rm -rf "$context"' EXIT
  say "importing and building"
  docker import --change "LABEL skiff.dev/rootfs-key=$rootfs_key" "$rootfs" skiffdev/python:base >/dev/null
  cp -al "$wheels" "$context/wheels" 2>/dev/null || cp -a "$wheels" "$context/wheels"
  lines "$here/wheels.txt" >"$context/wheels.txt"
  install -m 755 "$here/my_program" "$context/my_program"
  build --label "skiff.dev/image-key=$image_key" --build-arg "KFP=$(lines "$here/kfp-versions.txt" | head -n 1)" \
    -f "$here/Dockerfile.python" -t skiffdev/python:3.11 "$context"
  rm -rf "${context:?}"/* # the next layer needs no context
  build --label "skiff.dev/image-key=$image_key" -f "$here/Dockerfile.shell" -t skiffdev/shell:1 "$context"
  make_busybox
  make_modelcar
)

# Gives each published name to its image. Listing once keeps a second run in milliseconds.
tag_names() {
  local kind name id now changed=0
  declare -A at want=([python]=$(built skiffdev/python:3.11) [shell]=$(built skiffdev/shell:1)
    [modelcar]=$(built skiffdev/modelcar:1))
  while read -r name id; do at[$name]=$id; done < <(docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}')
  while read -r kind name; do
    [[ ${name##*/} == *:* ]] || name+=:latest
    now=${at[$name]:-${at[${name#library/}]:-}}
    [[ $now == "${want[$kind]}" ]] && continue
    if [[ -n $now && -z $(key_of "$now") ]]; then
      say "$name was another image and becomes the development image; 'docker tag ${now:7:12} $name' takes that back"
    fi
    docker tag "${want[$kind]}" "$name"
    changed=$((changed + 1))
  done < <(names | sort -u)
  say "$(names | sort -u | wc -l) names stand ($changed new)"
}

complete() {
  local name
  for name in python:3.11 shell:1 busybox:1 modelcar:1; do
    [[ -n $(built "skiffdev/$name") ]] || return 1
  done
}

mkdir -p "$cache"
case ${1:-} in
--wheels)
  make_wheels
  echo "$wheels"
  exit 0
  ;;
--check)
  docker version >/dev/null 2>&1 || missing "no Docker engine answers; run 'make engine'"
  complete || missing "the test images are not built; run 'make images'"
  exit 0
  ;;
esac
docker version >/dev/null 2>&1 || missing "no Docker engine answers; run 'make engine'"
exec 9>"$cache/lock"
flock 9
# Not `complete || make_images`: that would switch errexit off inside.
if ! complete; then make_images; fi
tag_names
