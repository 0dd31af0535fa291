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

compose() { deploy/compose.sh -p "$project" -f deploy/compose.yaml --profile demo "$@"; }

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

# Ports that live shorter than a scan interval are seen, but not by /proc alone.
default_hold=50
if [ "${PORTWATCHER_SOURCE:-}" = proc ] || [ "${USE_PROC:-0}" = 1 ]; then default_hold=1500; fi

# settings DEFAULT_PORT: reads and checks the variables of the test targets.
settings() {
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

# workload ARGUMENT...: runs the workload in the demo container.
workload() {
  local demo
  demo=$(container demo)
  docker exec "$demo" /workload "$@"
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

# wait_report CONTAINER TEXT: until the log holds the text, for at most 15 s.
wait_report() {
  local end=$((SECONDS + 15))
  # Not grep -q: it would leave the pipe early, which pipefail takes for a failure.
  until docker logs "$1" 2>/dev/null | grep -F -- "$2" >/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      docker logs --tail 20 "$1" >&2
      fail "portwatcher has not reported $2 within 15 s; its last lines are above"
    fi
    sleep 0.3
  done
}

up() {
  local name web
  follows || true # a wrong value stops here, before anything starts
  number DEMO_PORT "$demo_port" 1 65535
  number WATCHER_PORT "$watcher_port" 1 65535
  compose up -d --no-build --remove-orphans ||
    fail "the containers did not start, for the reason above. If port $demo_port or $watcher_port is in use: make run DEMO_PORT=18081 WATCHER_PORT=9889"
  name=$(container portwatcher)
  web=$(container demo-web)
  wait_ready "$name"
  wait_report "$name" "$web"
  echo "portwatcher is ready: container $name"
  echo "What listens where, live: http://127.0.0.1:$watcher_port"
  echo "The demo containers open and close ports by themselves; http://127.0.0.1:$demo_port is one of them."
  echo "Try: make test-http, make test-tcp-burst, make kill-port PORT=8080, make verify-suite"
  echo "Ctrl-C ends this log only; make stop ends the containers, make clean removes everything."
  echo
  logs
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
  compose --profile monitoring down --remove-orphans -t 10 "$@"
}

clean() {
  local image
  stop --volumes
  docker version >/dev/null 2>&1 || return 0
  for image in "$portwatcher_image" "$workload_image"; do
    if docker image inspect "$image" >/dev/null 2>&1; then docker rmi "$image"; fi
  done
  # Earlier builds, which lost their name to a later one.
  docker images -q --filter dangling=true --filter label=org.opencontainers.image.vendor=portwatcher |
    xargs -r docker rmi
}

# verify NAME WORKLOAD [FLAG...]: one check, one line.
verify() {
  local name=$1 run=$2
  shift 2
  build/workload verify-suite --portwatcher "$watcher" --container "$demo" --name "$name" --run "$run" "$@" || failed=$((failed + 1))
}

verify_suite() {
  local watcher demo failed=0
  settings 21000
  [ -x build/workload ] || fail "build/workload is missing: run make build"
  watcher=$(container portwatcher)
  demo=$(container demo)
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
  logs) logs ;;
  stop) stop ;;
  clean) clean ;;
  verify-suite) verify_suite ;;
  test-http)
    settings 8081
    workload http --port "$port" --for "${hold}ms"
    ;;
  test-udp)
    settings 5300
    workload listen --udp "0.0.0.0:$port" --for "${hold}ms"
    ;;
  test-tcp-transient | test-udp-transient)
    settings 21000
    protocol=${1#test-}
    workload transient --protocol "${protocol%-transient}" --port "$port" --hold "${hold}ms"
    ;;
  test-tcp-burst | test-udp-burst)
    settings 20000
    protocol=${1#test-}
    workload burst --protocol "${protocol%-burst}" --count "$count" --base-port "$base" --hold "${hold}ms" --interval "${interval}s"
    ;;
  kill-port)
    settings 8080
    workload kill-port --protocol tcp --port "$port"
    ;;
  *) fail "demo.sh: unknown command '${1:-}'; make help lists the targets" ;;
esac
