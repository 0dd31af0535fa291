#!/usr/bin/env bash
# The demo: starts and stops it. Called by make; `make help` lists its targets.
# What opens ports in it, and compares what portwatcher reports, is integration/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

project=${COMPOSE_PROJECT_NAME:-portwatcher}
portwatcher_image=${WATCHER_IMAGE:-portwatcher:local}
demo_port=${DEMO_PORT:-18080}
watcher_port=${WATCHER_PORT:-9888}
workload_image=${WORKLOAD_IMAGE:-portwatcher-workload:local}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# A relative TOKEN_FILE begins at the root of the checkout, where make runs, and
# not at deploy/, as Compose has it.
if [ -n "${TOKEN_FILE:-}" ]; then
  case $TOKEN_FILE in /*) ;; *) TOKEN_FILE=$PWD/$TOKEN_FILE ;; esac
  export TOKEN_FILE PORTWATCHER_TOKEN_FILE=${PORTWATCHER_TOKEN_FILE:-/run/portwatcher/token}
fi

# composed PROFILE ARGUMENT...: runs Compose.
composed() {
  local profile=$1
  shift
  deploy/compose.sh -p "$project" -f deploy/compose.yaml --profile "$profile" "$@"
}

# monitoring_volumes: those of the profiles that are not the demo's.
monitoring_volumes() {
  docker volume ls -q --filter "label=com.docker.compose.project=$project" | grep -E '_(prometheus|grafana|alertmanager)-data$' || true
}

# container SERVICE: the name of the service's running container.
container() {
  local name
  name=$(docker ps --format '{{.Names}}' --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$1")
  name=${name%%$'\n'*} # the first, where the service was scaled
  [ -n "$name" ] || fail "the container $1 is not running: start it with make run (project $project)"
  printf '%s\n' "$name"
}

# number NAME VALUE LOW HIGH: stops unless VALUE is a whole number in the range.
number() {
  if ! [[ $2 =~ ^[0-9]{1,9}$ ]] || ((10#$2 < $3 || 10#$2 > $4)); then
    printf '%s=%s: want a whole number from %s to %s\n' "$1" "$2" "$3" "$4" >&2
    exit 2
  fi
}

# follows: whether to follow a log until Ctrl-C.
follows() {
  case ${FOLLOW:-auto} in
    auto) [ -t 1 ] ;;
    1) true ;;
    0) false ;;
    *)
      printf 'FOLLOW=%s: want 0 or 1\n' "$FOLLOW" >&2
      exit 2
      ;;
  esac
}

# wait_ready CONTAINER: waits until portwatcher is ready.
wait_ready() {
  local end=$((SECONDS + 60)) state
  until docker exec "$1" /portwatcher healthcheck >/dev/null 2>&1; do
    state=$(docker inspect -f '{{.State.Status}}' "$1")
    if [ "$SECONDS" -ge "$end" ] || [ "$state" != running ]; then
      docker logs --tail 20 "$1" >&2
      fail "portwatcher is not ready (container $1 is $state); its last lines are above"
    fi
    sleep 0.3
  done
}

# started COMMAND...: starts containers; where that fails, prints what to do.
started() {
  number WATCHER_PORT "$watcher_port" 1 65535
  if [ -n "${TOKEN_FILE:-}" ] && { [ ! -e "$TOKEN_FILE" ] || [ -d "$TOKEN_FILE" ]; }; then
    fail "TOKEN_FILE=$TOKEN_FILE: there is no such file"
  fi
  "$@" || fail "the containers did not start, for the reason above. If a port is in use: make run DEMO_PORT=18081 WATCHER_PORT=9889"
  wait_ready "$(container portwatcher)"
}

up() {
  local before
  follows || true # a wrong value ends this before anything starts
  number DEMO_PORT "$demo_port" 1 65535
  before=$(monitoring_volumes)
  export PORTWATCHER_CONFIG=${PORTWATCHER_CONFIG:-/run/portwatcher/alerts/demo.yaml}
  started composed demo up -d --no-build --remove-orphans
  # docker-compose 1.29 makes the volumes of profiles that are not in use too.
  if [ -z "$before" ]; then monitoring_volumes | xargs -r docker volume rm >/dev/null; fi
  echo "portwatcher is ready: container $(container portwatcher)"
  echo "What listens where, live: http://127.0.0.1:$watcher_port"
  echo "The demo containers open and close ports by themselves; http://127.0.0.1:$demo_port is one of them."
  echo "Try: make test-http, make test-tcp-burst, make kill-port PORT=8080, make verify-suite"
  alerted
  echo "Ctrl-C ends this log only; make stop ends the containers, make clean removes everything."
  echo
  logs
}

# alerted: prints what was sent, as soon as the demo's first alert was delivered.
alerted() {
  local end=$((SECONDS + 30)) name sent
  [ "$PORTWATCHER_CONFIG" = /run/portwatcher/alerts/demo.yaml ] || return 0
  name=$(container portwatcher)
  until sent=$(docker exec "$name" /portwatcher alerts list --status delivered --limit 3 2>/dev/null) && [[ $sent == *delivered* ]]; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "The demo's first alert was not delivered within 30 s: docker exec $name /portwatcher alerts list"
      return 0
    fi
    sleep 0.5
  done
  echo "Its alerts, which go to the container demo-inbox (docker exec $name /portwatcher alerts list):"
  printf '%s\n' "$sent"
}

# alerts: portwatcher with Alertmanager, whose image is fetched.
alerts() {
  number ALERTMANAGER_PORT "${ALERTMANAGER_PORT:-9093}" 1 65535
  export PORTWATCHER_CONFIG=${PORTWATCHER_CONFIG:-/run/portwatcher/alerts/alertmanager.yaml}
  started composed alerts up -d
  echo "portwatcher: http://127.0.0.1:$watcher_port/?view=alerts"
  echo "Alertmanager: http://127.0.0.1:${ALERTMANAGER_PORT:-9093}"
  echo "Try: docker exec $(container portwatcher) /portwatcher alerts test alertmanager"
  echo "make stop ends them and keeps their data, make clean removes everything."
}

# monitoring: portwatcher with Prometheus and Grafana, whose images are fetched.
monitoring() {
  number PROMETHEUS_PORT "${PROMETHEUS_PORT:-9090}" 1 65535
  number GRAFANA_PORT "${GRAFANA_PORT:-3000}" 1 65535
  started composed monitoring up -d
  echo "portwatcher: http://127.0.0.1:$watcher_port"
  echo "Prometheus: http://127.0.0.1:${PROMETHEUS_PORT:-9090}"
  echo "Grafana, with the dashboard: http://127.0.0.1:${GRAFANA_PORT:-3000}"
  echo "make stop ends them and keeps their data, make clean removes everything."
}

logs() {
  local name
  name=$(container portwatcher)
  if follows; then
    exec docker logs -f --tail 50 "$name"
  fi
  docker logs --tail 50 "$name"
}

stop() {
  if ! docker version >/dev/null 2>&1; then
    echo "no Docker engine answers: there is nothing to stop or remove"
    return
  fi
  composed demo --profile monitoring --profile alerts down --remove-orphans -t 10 "$@"
}

clean() {
  local image
  stop --volumes
  docker version >/dev/null 2>&1 || return 0
  for image in "$portwatcher_image" "$workload_image"; do
    if docker image inspect "$image" >/dev/null 2>&1; then
      docker rmi "$image" >/dev/null
      echo "Removed the image $image"
    fi
  done
  # Earlier builds, which lost their name to a later one.
  docker images -q --filter dangling=true --filter label=org.opencontainers.image.vendor=portwatcher |
    xargs -r docker rmi >/dev/null
}

case ${1:-} in
  up | monitoring | alerts | logs | stop | clean) "$1" ;;
  *) fail "demo.sh: unknown command '${1:-}'; make help lists the targets" ;;
esac
