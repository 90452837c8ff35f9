#!/bin/sh
# debian.sh PROGRAM PACKAGE...: has Debian's packages for a program that tests run, unless it is there.
set -eu

program=$1
shift
if command -v "$program" >/dev/null; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "make test runs $program, and finds none: install it (Debian: sudo apt-get install $*)" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" >/dev/null
