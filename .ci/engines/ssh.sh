#!/usr/bin/env bash
# Makes sure that OpenSSH's client and server are installed, for tests, which start servers of their own, and that there
# is an ordinary user to log in as. Needs root on Debian; idempotent. No server is left running.
set -euo pipefail

say() { echo "ssh.sh: $*" >&2; }

user=${HERMES_TEST_SSH_USER:-hermes-ssh}

missing() {
  for program in ssh ssh-keygen /usr/sbin/sshd; do
    command -v "$program" >/dev/null || return 0
  done
  return 1
}

if missing; then
  say "installing openssh-server"
  # The package would start a server that listens to everybody.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get -o DPkg::Lock::Timeout=600 -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install --yes --no-install-recommends \
    openssh-client openssh-server >/dev/null
fi
say "$(ssh -V 2>&1)"

if ! id "$user" >/dev/null 2>&1; then
  say "adding the user $user"
  # A password that nobody has, in place of a lock, which would keep keys out too.
  useradd --create-home --shell /bin/bash --password '*' "$user"
fi
