#!/usr/bin/env bash
# Sees to it that a Docker engine answers and that Compose is there.
#
# Where an engine answers and Compose is there, this changes nothing. Else, on
# Debian or Ubuntu as root, it installs docker.io, docker-compose and iptables
# with apt-get and starts the engine. Anywhere else it says what to install.
#
#   DOCKERD_LOG      log of an engine started without systemd
#                    (default /var/log/dockerd.log)
#   ENGINE_DEADLINE  seconds to wait for the engine (default 60)
set -euo pipefail

log=${DOCKERD_LOG:-/var/log/dockerd.log}
deadline=${ENGINE_DEADLINE:-60}
here=$(dirname "$0")

say() { printf 'ensure-engine: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

answers() { command -v docker >/dev/null && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_compose() { "$here/compose.sh" version >/dev/null 2>&1; }

# may_install: Debian or one of its kin, and root.
may_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

install_packages() {
  say "installing docker.io, docker-compose and iptables with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # In Debian 13 the command is a package of its own; older ones lack it.
  local packages=(docker.io iptables ca-certificates)
  if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
  if apt-cache show docker-compose >/dev/null 2>&1; then
    packages+=(docker-compose)
  else
    packages+=(docker-compose-v2) # Ubuntu
  fi
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    say "starting docker.service"
    systemctl start docker.service || true # what went wrong is shown below
    return
  fi
  say "starting dockerd in the background, log in $log"
  # In a session of its own, so that it outlives this terminal.
  setsid dockerd >"$log" 2>&1 </dev/null &
}

show_log() {
  say "the last lines of its log:"
  if [ -d /run/systemd/system ]; then
    journalctl -u docker.service -n 20 --no-pager >&2 || true
  else
    tail -n 20 "$log" >&2 || true
  fi
}

wait_for_engine() {
  local end=$((SECONDS + deadline))
  until answers; do
    if [ "$SECONDS" -ge "$end" ]; then
      show_log
      fail "the Docker engine does not answer after $deadline s"
    fi
    sleep 0.5
  done
}

case $deadline in
  '' | *[!0-9]*) fail "ENGINE_DEADLINE=$deadline: want a number of seconds" ;;
esac

if answers && has_compose; then
  exit 0
fi
if answers; then
  fail "Compose is missing: install the package docker-compose (Debian), docker-compose-v2 (Ubuntu) or docker-compose-plugin (Docker's own)"
fi
if [ -n "${DOCKER_HOST:-}" ]; then
  fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: start it there, or unset DOCKER_HOST"
fi
if [ "$(id -u)" != 0 ] && [ -S /var/run/docker.sock ]; then
  fail "the engine behind /var/run/docker.sock does not answer user $(id -un): run as root, or as a member of the group docker"
fi
if ! may_install; then
  fail "no Docker engine answers: install Docker Engine 20.10 or later and Compose 1.28 or later, start them, and run this again (as root on Debian or Ubuntu this is done for you)"
fi
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null || ! has_compose; then
  install_packages
fi
if ! answers; then
  start_engine
  wait_for_engine
fi
has_compose || fail "Compose is still missing: install docker-compose"
say "Docker engine $(docker version --format '{{.Server.Version}}') is ready"
