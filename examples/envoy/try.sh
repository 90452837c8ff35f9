#!/bin/sh
# An Envoy balances over two local servers that stand for VMs, as vmsvc-grpc tells it. Run it in the
# project's root. ../local-vms.sh tells what it needs.
here=$(dirname "$0")
. "$here/../web-vms.sh"
[ -x "$bin/envoy" ] || { echo "there is no $bin/envoy: make .venv brings it" >&2; exit 1; }
background "$bin/envoy" --config-yaml "$(at_free_ports "$here/bootstrap.conf")" --use-dynamic-base-id \
    --log-level warning
follow
