#!/bin/sh
# gRPC's own xDS client asks two local servers that stand for VMs, as vmsvc-grpc tells it. Run it in
# the project's root; a command after it is the client to run instead of the one in Python, as in
# `sh examples/grpc/try.sh node examples/grpc/client.js`. ../local-vms.sh tells what it needs.
here=$(dirname "$0")

machine() { background "$bin/python" "$here/server.py" "$1" "$2:$port" "$folder/asked"; }

. "$here/../local-vms.sh"
[ $# -gt 0 ] || set -- "$bin/python" "$here/client.py"
client=$*
at_free_ports "$here/bootstrap.conf" >"$folder/bootstrap.conf"
export GRPC_XDS_BOOTSTRAP="$folder/bootstrap.conf"

answers() {  # Each run is a process, which begins its round robin anywhere.
    : >"$folder/asked"
    for _ in 1 2 3 4; do $client >>"$folder/log" 2>&1 || echo none; done
    cat "$folder/asked"
}
follow
