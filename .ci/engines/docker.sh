#!/usr/bin/env bash
# Makes sure that a Docker engine answers and has an image to build on, for tests. Needs root on Debian; idempotent.
#
# Installs docker.io where there is no dockerd, starts one where none answers, and makes the image of
# $HERMES_TEST_DOCKER_BASE (hermes-base:<codename>) with debootstrap where it is missing: no image registry is asked.
set -euo pipefail

say() { echo "docker.sh: $*" >&2; }

. /etc/os-release
base=${HERMES_TEST_DOCKER_BASE:-hermes-base:$VERSION_CODENAME}
log=${TMPDIR:-/tmp}/hermes-dockerd.log
packages=(docker.io iptables debootstrap busybox-static)

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'install ok' || missing+=("$package")
done
if answers && command -v debootstrap >/dev/null && command -v busybox >/dev/null; then
  missing=()
fi
if ((${#missing[@]})); then
  say "installing ${missing[*]}"
  apt-get -o DPkg::Lock::Timeout=600 -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install --yes --no-install-recommends \
    "${missing[@]}" >/dev/null
fi

if answers; then
  say "an engine answers: $(docker version --format '{{.Server.Version}}')"
else
  say "starting dockerd; it logs to $log"
  setsid nohup dockerd >"$log" 2>&1 </dev/null &
  for _ in $(seq 120); do
    answers && break
    sleep 0.5
  done
  if ! answers; then
    say "dockerd did not come up:"
    tail -5 "$log" >&2
    exit 1
  fi
fi

if docker image inspect "$base" >/dev/null 2>&1; then
  say "the image $base is there"
else
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' "Codename: $VERSION_CODENAME" | head -1)
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  say "making the image $base from $mirror, about a minute"
  debootstrap --variant=minbase --include=ca-certificates,busybox-static "$VERSION_CODENAME" "$root" "$mirror" >"$log.debootstrap"
  tar -C "$root" -c . | docker import - "$base" >/dev/null
  say "made the image $base"
fi
