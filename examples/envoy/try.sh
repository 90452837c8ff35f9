#!/bin/sh
# An Envoy balances over two local servers that stand for VMs, as vmsvc-grpc tells it. Run it in the
# project's root. ../local-vms.sh tells what it needs.
here=$(dirname "$0")

machine() {  # machine NAME ADDRESS: a web server that answers with its name
    mkdir "$folder/$1" && echo "$1" >"$folder/$1/index.html"
    background "$bin/python" -m http.server "$port" --bind "$2" -d "$folder/$1"
}

. "$here/../local-vms.sh"
[ -x "$bin/envoy" ] || { echo "there is no $bin/envoy: make .venv brings it" >&2; exit 1; }
background "$bin/envoy" --config-yaml "$(at_free_ports "$here/bootstrap.conf")" --use-dynamic-base-id \
    --log-level warning

answers() { for _ in 1 2 3 4 5 6 7 8 9 10; do curl -sf "http://127.0.0.1:$inlet/" || echo none; done; }
follow
