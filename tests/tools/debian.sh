#!/bin/sh
# debian.sh PROGRAM PACKAGE...: has Debian's packages for a program that tests run, unless it is there.
set -eu

program=$1
shift
# Where Debian has servers, which only root's PATH names.
PATH=$PATH:/usr/sbin
if command -v "$program" >/dev/null; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "make test runs $program, and finds none: install it (Debian: sudo apt-get install $*)" >&2
  exit 1
fi
# A package's own service would start, and take ports of this machine: tests run the program themselves.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
