#!/usr/bin/env bash
# Sees to it that the Debian packages named as arguments are installed. Without
# root or apt-get it only says which are missing: what needs them is skipped
# then, or fails with its own message.
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
  echo "ensure-packages: this is not Debian; tests may want the commands of: $*" >&2
  exit 0
fi
missing=()
for package in "$@"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  if [ "$status" != installed ]; then missing+=("$package"); fi
done
if [ "${#missing[@]}" = 0 ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "ensure-packages: missing, and not root: apt-get install ${missing[*]}" >&2
  exit 0
fi
echo "ensure-packages: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
