#!/usr/bin/env bash
# Installs and starts a Docker engine where none answers. An engine that answers is never touched.
#
#   test/engine.sh           install (Debian and Ubuntu, as root) and start
#   test/engine.sh --check   only say whether an engine answers
#
# Exit codes: 0 an engine answers, 1 it could not be started, 3 something is missing that only the
# user can provide (said on stderr).
set -euo pipefail

cache=${SKIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-dev}
log=$cache/engine/dockerd.log
deadline=${SKIFF_ENGINE_DEADLINE:-60} # seconds a starting engine may take; a cold disk needs about 10

say() { printf 'engine: %s\n' "$*" >&2; }
missing() { say "$*"; exit 3; }

# `docker info` alone may exit 0 without a server; the server's version cannot be had without one.
answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

report() { say "Docker $(docker version --format '{{.Server.Version}}') answers"; }

if command -v docker >/dev/null && answers; then report; exit 0; fi
if [[ ${1:-} == --check ]]; then
  missing "no Docker engine answers; 'make engine' as root on Debian or Ubuntu installs and starts one"
fi
if [[ -n ${DOCKER_HOST:-} && ${DOCKER_HOST} != unix:///var/run/docker.sock ]]; then
  missing "DOCKER_HOST is $DOCKER_HOST and nothing answers there; start that engine, or unset DOCKER_HOST"
fi
if [[ $(id -u) != 0 ]]; then
  missing "no Docker engine answers and this is not root; run 'sudo make engine', or start Docker and join its group"
fi

mkdir -p "$cache/engine"
# Two callers at once would start two engines: the second waits here and finds the first one's.
exec 9>"$cache/engine/lock"
flock 9
if command -v docker >/dev/null && answers; then report; exit 0; fi

install_packages() {
  command -v apt-get >/dev/null ||
    missing "dockerd is not installed and this is not Debian or Ubuntu; install Docker Engine 20.10 or newer by hand"
  export DEBIAN_FRONTEND=noninteractive
  say "installing docker.io with apt"
  apt-get update -qq >&2 || say "apt-get update failed; trying with the lists at hand"
  local packages=(docker.io iptables ca-certificates)
  # From Debian 13 on the client is a package of its own.
  if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
  apt-get install -y -qq --no-install-recommends "${packages[@]}" 9>&- >&2 ||
    missing "apt-get could not install ${packages[*]}; see its message above"
}

# A bare container or a minimal VM may come without the cgroup hierarchy that dockerd needs.
mount_cgroups() {
  if mountpoint -q /sys/fs/cgroup && [[ -n $(ls -A /sys/fs/cgroup) ]]; then return; fi
  say "mounting cgroups"
  mkdir -p /sys/fs/cgroup
  if grep -qw cgroup2 /proc/filesystems && ! grep -q ':[a-z]' /proc/self/cgroup &&
    mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null; then return; fi
  mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup ||
    { say "cannot mount cgroups; starting the engine without"; return; }
  local controller
  while read -r controller; do
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null ||
      rmdir "/sys/fs/cgroup/$controller"
  done < <(awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups)
  mkdir -p /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd 2>/dev/null || rmdir /sys/fs/cgroup/systemd
}

# Prints the dockerd options that fit the firewall of this machine.
network_options() {
  if iptables -w -t nat -L >/dev/null 2>&1; then return; fi
  # Some kernels know only the legacy tables while Debian's default iptables speaks nftables.
  if command -v iptables-legacy >/dev/null && iptables-legacy -w -t nat -L >/dev/null 2>&1; then
    update-alternatives --set iptables "$(command -v iptables-legacy)" >/dev/null 2>&1 && return
  fi
  say "iptables does not work here; containers will have no way out to the network"
  printf '%s\n' --iptables=false --ip6tables=false --ip-masq=false
}

# Starts dockerd with the given options; waits for its word that it listens. Returns 1 when it died.
start() {
  : >"$log"
  setsid --fork dockerd "$@" </dev/null >>"$log" 2>&1 9>&-
  local line reader tail_pid
  exec {reader}< <(exec timeout "$deadline" tail -n +1 -f -s 0.2 "$log" 9>&-)
  tail_pid=$!
  while read -r line <&"$reader"; do
    case $line in
    *"API listen on"*) break ;;
    *"failed to start daemon"* | *"failed to start containerd"* | *"unable to configure"*) break ;;
    esac
  done
  kill "$tail_pid" 2>/dev/null || true
  exec {reader}<&-
  answers
}

command -v dockerd >/dev/null && command -v docker >/dev/null || install_packages
if answers; then report; exit 0; fi # the package's own service may have started by now

mount_cgroups
mapfile -t options < <(network_options)
say "starting dockerd, log in $log"
if start "${options[@]}"; then report; exit 0; fi
# What most often fails in a nested machine is the bridge, then the storage driver.
for more in "--storage-driver=vfs" "--bridge=none --iptables=false --ip6tables=false"; do
  say "it did not start: $(grep -m1 -i -E 'failed to start|error' "$log" | tail -c 300); trying with $more"
  # shellcheck disable=SC2086 # the options are meant to be split
  if start "${options[@]}" $more; then report; exit 0; fi
done
say "dockerd did not start; the last lines of $log:"
tail -n 15 "$log" >&2
exit 1
