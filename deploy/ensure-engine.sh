#!/usr/bin/env bash
# Starts a Docker engine where none answers, and installs Compose where it is missing.
#
# Where an engine answers and Compose is there, this changes nothing. Else, on Debian or
# Ubuntu as root, it installs docker.io, docker-compose and iptables with apt-get and starts
# the engine. Anywhere else it prints what to install.
#
#   DOCKERD_LOG      log of an engine started without systemd
#                    (default /var/log/dockerd.log)
#   ENGINE_DEADLINE  seconds to wait for the engine (default 60)
set -euo pipefail

logfile=${DOCKERD_LOG:-/var/log/dockerd.log}
deadline=${ENGINE_DEADLINE:-60}
here=$(dirname "$0")

log() { printf 'ensure-engine: %s\n' "$*" >&2; }

fail() {
  log "$*"
  exit 1
}

answers() { command -v docker >/dev/null && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_compose() { "$here/compose.sh" version >/dev/null 2>&1; }

# may_install: Debian or one of its kin, and root.
may_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

install_packages() {
  # From Debian 13 on the command is a package of its own. Ubuntu has Compose as
  # docker-compose-v2.
  apt-get update -qq
  local compose=docker-compose
  apt-cache show docker-compose >/dev/null 2>&1 || compose=docker-compose-v2
  KEEP_SERVICES=1 "$here/ensure-packages.sh" docker.io docker-cli "$compose" iptables ca-certificates
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    log "starting docker.service"
    systemctl start docker.service || true # what went wrong is shown below
    return
  fi
  log "starting dockerd in the background, log in $logfile"
  # In a session of its own, so that it outlives this terminal.
  setsid dockerd >"$logfile" 2>&1 </dev/null &
}

show_log() {
  log "the last lines of its log:"
  if [ -d /run/systemd/system ]; then
    journalctl -u docker.service -n 20 --no-pager >&2 || true
  else
    tail -n 20 "$logfile" >&2 || true
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
has_compose || fail "Compose is missing after the installation: install docker-compose"
log "Docker engine $(docker version --format '{{.Server.Version}}') is ready"
