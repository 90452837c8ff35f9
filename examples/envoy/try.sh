#!/bin/sh
# An Envoy balances over two local servers that stand for VMs, as vmsvc-grpc tells it.
# Run it in the project's root, after `make test` or `make serve` made .venv. It needs the
# ports 50051, 8080 and 10000, and on 127.0.0.2 and 127.0.0.3 port 9376 (Linux has them).
set -eu
bin=${BIN:-.venv/bin}
here=$(dirname "$0")
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pids") 2>/dev/null; wait; rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
mkdir "$folder/manifests"

background() { "$@" >>"$folder/log" 2>&1 & echo $! >>"$folder/pids"; }

vm() {  # vm NAME ADDRESS: a manifest is renamed into place, so that it is taken whole
    cat >"$folder/new" <<-EOF
	apiVersion: vmoperator.vmware.com/v1alpha5
	kind: VirtualMachine
	metadata: {name: $1, namespace: shop, labels: {app: web}}
	status: {network: {primaryIP4: $2}}
	EOF
    mv "$folder/new" "$folder/manifests/$1.yaml"
}

cat >"$folder/manifests/web.yaml" <<-EOF
	apiVersion: vmoperator.vmware.com/v1alpha5
	kind: VirtualMachineService
	metadata: {name: web, namespace: shop}
	spec:
	  type: ClusterIP
	  selector: {app: web}
	  ports: [{name: http, protocol: TCP, port: 80, targetPort: 9376}]
EOF
for number in 2 3; do
    mkdir "$folder/vm-$number" && echo "vm-$number" >"$folder/vm-$number/index.html"
    background "$bin/python" -m http.server 9376 --bind "127.0.0.$number" -d "$folder/vm-$number"
    vm "vm-$number" "127.0.0.$number"
done
background "$bin/vmsvc-grpc" serve --manifests "$folder/manifests" --allow-loopback
background "$bin/envoy" --config-yaml "$(cat "$here/bootstrap.conf")" --use-dynamic-base-id \
    --log-level warning

ask() { curl -sf http://127.0.0.1:10000/; }
until_answer() {  # until_answer PATTERN: what ten requests are answered with, sorted, joined
    for _ in $(seq 300); do
        got=$(for _ in 1 2 3 4 5 6 7 8 9 10; do ask || echo none; done | sort -u | tr '\n' ' ')
        [ "$got" = "$1 " ] && echo "answered by: $got" && return
        sleep 0.1
    done
    echo "still answered by: $got" >&2 && exit 1
}

until_answer "vm-2 vm-3"
echo "vm-3 is deleted"
rm "$folder/manifests/vm-3.yaml"
until_answer "vm-2"
echo "vm-3 is created"
vm vm-3 127.0.0.3
until_answer "vm-2 vm-3"
