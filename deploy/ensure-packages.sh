#!/usr/bin/env bash
# Installs the Debian packages named as arguments where they are missing. Without root or
# apt-get it only prints which are: what needs them is skipped then, or fails with its own
# message.
#
#   KEEP_SERVICES  1: services that come with the packages are started, now and at boot
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
  echo "ensure-packages: this is not Debian; tests may need the commands of: $*" >&2
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
available=()
for package in "${missing[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then
    available+=("$package")
  else # Ubuntu, for example, has Chromium as a snap only
    echo "ensure-packages: there is no package $package here; what needs it is skipped, or fails with its own message" >&2
  fi
done
missing=("${available[@]}")
if [ "${#missing[@]}" = 0 ]; then
  exit 0
fi

install() { apt-get install -y -qq --no-install-recommends "$@" >&2; }

if [ "${KEEP_SERVICES:-}" = 1 ]; then
  install "${missing[@]}"
  exit 0
fi
# Only the commands are needed: a service that comes with them (Prometheus) is neither
# started now nor at the next boot. One that was here before stays as it is.
policy=/usr/sbin/policy-rc.d # what packages ask before they start a service
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\n# Put here by ensure-packages.sh while it installs packages.\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
install "${missing[@]}"
files=$(dpkg-query -L "${missing[@]}")
for script in $(sed -n 's,^/etc/init\.d/\([^/]*\)$,\1,p' <<<"$files"); do
  update-rc.d "$script" disable
done
if command -v systemctl >/dev/null; then
  for unit in $(sed -n 's,^\(/usr\)\?/lib/systemd/system/\([^/@]*\.service\)$,\2,p' <<<"$files"); do
    systemctl --quiet disable "$unit"
  done
fi
