#!/usr/bin/env bash
# The demo: starts and stops it, opens ports in it, and checks that portwatcher
# reported them. Called by make; `make help` lists what there is.
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

# monitoring_volumes: those of the profile that is not the demo's.
monitoring_volumes() {
  docker volume ls -q --filter "label=com.docker.compose.project=$project" | grep -E '_(prometheus|grafana)-data$' || true
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

# settings DEFAULT_PORT: reads and checks the variables of the test targets, and
# finds the containers.
settings() {
  local default_hold=50
  watcher=$(container portwatcher)
  demo=$(container demo)
  # Ports that live shorter than a scan interval are seen, but not by /proc alone.
  if docker exec "$watcher" /portwatcher config 2>/dev/null | grep '^source: proc ' >/dev/null; then default_hold=1500; fi
  port=${PORT:-$1}
  count=${BURST_COUNT:-20}
  base=${BASE_PORT:-20000}
  hold=${HOLD_MS:-$default_hold}
  interval=${INTERVAL_S:-0.01}
  number PORT "$port" 1 65535
  number BURST_COUNT "$count" 1 10000
  number BASE_PORT "$base" 1 65535
  number HOLD_MS "$hold" 0 3600000
  if ((base + count - 1 > 65535)); then
    printf 'BASE_PORT=%s BURST_COUNT=%s: the last port would be over 65535\n' "$base" "$count" >&2
    exit 2
  fi
  if ! [[ $interval =~ ^[0-9]{1,4}(\.[0-9]{1,6})?$ ]]; then
    printf 'INTERVAL_S=%s: want seconds such as 0.05, at most 9999\n' "$interval" >&2
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

# max_lines is how many lines of portwatcher's answer are shown.
max_lines=40

# answer SINCE FIRST LAST: what portwatcher said since a time of the demo
# container's ports from FIRST to LAST, in either format.
answer() {
  docker logs --since "$1" "$watcher" 2>/dev/null | awk -v demo="$demo" -v first="$2" -v last="$3" '
    index($0, demo) && (match($0, /[0-9]+\/(tcp|udp) on /) || match($0, /"port":[0-9]+/)) {
      number = substr($0, RSTART, RLENGTH)
      gsub(/[^0-9]/, "", number)
      if (number + 0 >= first && number + 0 <= last) print
    }'
}

# try FIRST LAST LINES ARGUMENT...: runs the workload in the demo container, and
# shows what portwatcher says of the ports from FIRST to LAST, as soon as these
# are so many lines.
try() {
  local first=$1 last=$2 lines=$3 since end said count=0
  shift 3
  since=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
  docker exec "$demo" /workload "$@" >/dev/null
  end=$((SECONDS + 5))
  while said=$(answer "$since" "$first" "$last") && count=$(grep -c . <<<"$said" || true) && [ "$count" -lt "$lines" ]; do
    if [ "$SECONDS" -ge "$end" ]; then break; fi
    sleep 0.2
  done
  echo "In the container $demo: workload $*"
  echo "portwatcher (docker logs $watcher) says of it:"
  if [ "$count" -gt 0 ]; then head -n "$max_lines" <<<"$said"; fi
  if [ "$count" -gt "$max_lines" ]; then echo "... and $((count - max_lines)) lines more"; fi
  if [ "$count" -lt "$lines" ]; then
    echo "These are $count of $lines lines after 5 s. A port that is not selected is not reported; by /proc alone, one that lives shorter than a scan interval (HOLD_MS=$hold) is missed."
  fi
}

# wait_ready CONTAINER: until portwatcher says that it is ready.
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

# started COMMAND...: starts containers, and says what to do where that fails.
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
  follows || true # a wrong value stops here, before anything starts
  number DEMO_PORT "$demo_port" 1 65535
  before=$(monitoring_volumes)
  started composed demo up -d --no-build --remove-orphans
  # docker-compose 1.29 makes the volumes of profiles that are not in use too.
  if [ -z "$before" ]; then monitoring_volumes | xargs -r docker volume rm >/dev/null; fi
  echo "portwatcher is ready: container $(container portwatcher)"
  echo "What listens where, live: http://127.0.0.1:$watcher_port"
  echo "The demo containers open and close ports by themselves; http://127.0.0.1:$demo_port is one of them."
  echo "Try: make test-http, make test-tcp-burst, make kill-port PORT=8080, make verify-suite"
  echo "Ctrl-C ends this log only; make stop ends the containers, make clean removes everything."
  echo
  logs
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
    echo "no Docker engine answers: there is nothing of it to stop or remove"
    return
  fi
  composed demo --profile monitoring down --remove-orphans -t 10 "$@"
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

# verify NAME WORKLOAD [FLAG...]: one check, one line.
verify() {
  local name=$1 run=$2
  shift 2
  build/workload verify-suite --portwatcher "$watcher" --container "$demo" --name "$name" --run "$run" "$@" || failed=$((failed + 1))
}

verify_suite() {
  local failed=0
  settings 21000
  [ -x build/workload ] || fail "build/workload is missing: run make build"
  local burst="--count $count --base-port $base --hold ${hold}ms --interval ${interval}s"
  verify test-http "http --port $((port + 1)) --for ${hold}ms"
  verify test-udp "listen --udp 0.0.0.0:$((port + 2)) --for ${hold}ms"
  verify test-tcp-burst "burst --protocol tcp $burst"
  verify test-udp-burst "burst --protocol udp $burst"
  verify test-tcp-transient "transient --protocol tcp --port $port --hold ${hold}ms"
  verify test-udp-transient "transient --protocol udp --port $port --hold ${hold}ms"
  verify kill-port "http --port $((port + 3))" --kill-port
  if [ "$failed" -gt 0 ]; then
    fail "verify-suite: $failed of 7 failed; portwatcher's own log: make logs FOLLOW=0"
  fi
  echo "verify-suite: 7 of 7 passed"
}

case ${1:-} in
  up) up ;;
  monitoring) monitoring ;;
  logs) logs ;;
  stop) stop ;;
  clean) clean ;;
  verify-suite) verify_suite ;;
  test-http)
    settings 8081
    try "$port" "$port" 2 http --port "$port" --for "${hold}ms"
    ;;
  test-udp)
    settings 5300
    try "$port" "$port" 2 listen --udp "0.0.0.0:$port" --for "${hold}ms"
    ;;
  test-tcp-transient | test-udp-transient)
    settings 21000
    protocol=${1#test-}
    try "$port" "$port" 2 transient --protocol "${protocol%-transient}" --port "$port" --hold "${hold}ms"
    ;;
  test-tcp-burst | test-udp-burst)
    settings 20000
    protocol=${1#test-}
    try "$base" "$((base + count - 1))" "$((2 * count))" \
      burst --protocol "${protocol%-burst}" --count "$count" --base-port "$base" --hold "${hold}ms" --interval "${interval}s"
    ;;
  kill-port)
    settings 8080
    try "$port" "$port" 1 kill-port --protocol tcp --port "$port"
    ;;
  *) fail "demo.sh: unknown command '${1:-}'; make help lists the targets" ;;
esac
