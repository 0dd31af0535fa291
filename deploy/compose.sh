#!/bin/sh
# Runs Compose, whichever form this machine has: `docker compose` (v2) or
# `docker-compose`.
if docker compose version >/dev/null 2>&1; then
  exec docker compose "$@"
elif command -v docker-compose >/dev/null; then
  exec docker-compose "$@"
fi
echo "compose.sh: neither 'docker compose' nor 'docker-compose' is here; run deploy/ensure-engine.sh" >&2
exit 1
