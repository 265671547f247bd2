#!/usr/bin/env bash
# Makes this machine ready for the tests on Apptainer; run as root, and again at no cost.
#
# Apptainer itself, an ordinary user to run it, and one small Debian image, as a folder and as a .sif file, in a cache
# outside of the repository (HERMES_ENGINES_CACHE names another).
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${HERMES_ENGINES_CACHE:-/var/cache/hermes-engines}/apptainer
user=hermes-apptainer
install=../shared/tools/install-apptainer.sh

if [ "$(id -u)" != 0 ]; then
  echo "run this as root: it installs programs and makes the user $user" >&2
  exit 1
fi

. /etc/os-release
missing=()
for package in debootstrap util-linux bubblewrap busybox-static; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'install ok' || missing+=("$package")
done
if [ "${#missing[@]}" != 0 ]; then
  apt-get -o DPkg::Lock::Timeout=600 -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install -y --no-install-recommends \
    "${missing[@]}" >/dev/null
fi
if ! apptainer --version >/dev/null 2>&1; then
  if [ ! -x "$install" ]; then
    echo "apptainer is missing: install Apptainer 1.4 or newer (on Debian from sid)" >&2
    exit 1
  fi
  "$install"
fi

id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
for file in /etc/subuid /etc/subgid; do
  grep -q "^$user:" "$file" 2>/dev/null || echo "$user:100000:65536" >>"$file"
done
if [ -e /dev/fuse ]; then
  chmod 666 /dev/fuse
fi

mkdir -p "$cache"
chmod 755 "$cache" "$(dirname "$cache")"
exec 9>"$cache/.lock"
flock 9
if [ ! -d "$cache/base" ]; then
  # The mirror that this machine installs from.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' "Codename: $VERSION_CODENAME" | head -n 1)
  rm -rf "$cache/base.partial"
  debootstrap --variant=minbase --include=python3 "$VERSION_CODENAME" "$cache/base.partial" "$mirror" \
    >"$cache/debootstrap.log"
  rm -rf "$cache"/base.partial/var/cache/apt/archives/*.deb "$cache"/base.partial/var/lib/apt/lists/*
  mv "$cache/base.partial" "$cache/base"
fi
if [ ! -e "$cache/base.sif" ]; then
  rm -f "$cache/base.partial.sif"
  apptainer --silent build "$cache/base.partial.sif" "$cache/base"
  chmod 644 "$cache/base.partial.sif"
  mv "$cache/base.partial.sif" "$cache/base.sif"
fi
echo "apptainer: $(apptainer --version), user $user, image $cache/base.sif"
