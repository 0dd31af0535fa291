#!/bin/sh
# Checks that `go` is there and new enough for go.mod; prints what to install if
# not. A Go from 1.21 on fetches the version that go.mod names by itself.
cd "$(dirname "$0")/.." || exit 1
wanted=$(awk '$1 == "go" { print $2 }' go.mod)
if ! command -v go >/dev/null; then
  echo "ensure-go: the command go is missing: install Go $wanted or later from https://go.dev/dl/ and put it in PATH" >&2
  exit 1
fi
if ! found=$(go env GOVERSION 2>&1); then
  echo "ensure-go: go does not run here (needed: Go $wanted or later, https://go.dev/dl/): $found" >&2
  exit 1
fi
oldest=$(printf '%s\n%s\n' "$wanted" "${found#go}" | sort -V | head -n 1)
if [ "$oldest" != "$wanted" ] && [ "${found#go}" != "${wanted%.0}" ]; then
  echo "ensure-go: this is $found, needed is Go $wanted or later: see https://go.dev/dl/" >&2
  exit 1
fi
