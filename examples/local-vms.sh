# Local servers that stand for the VMs of shop/web, and vmsvc-grpc, which serves their manifests.
# Examples read this in the project's root, after `make test` or `make serve` made .venv. All ports are
# free ones, so that they run beside `make serve`, and beside each other. On 127.0.0.2 and 127.0.0.3
# (Linux has them) the servers listen on $port.
set -eu
bin=${BIN:-.venv/bin}
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pids") 2>/dev/null; wait; rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
mkdir "$folder/manifests"

free_port() {  # One that nobody listens on now, neither here nor on the addresses of the servers.
    "$bin/python" -c 'import socket
while True:
    held = [socket.socket() for _ in range(3)]
    try:
        held[0].bind(("127.0.0.1", 0))
        port = held[0].getsockname()[1]
        for number, each in enumerate(held[1:], 2):
            each.bind((f"127.0.0.{number}", port))
    except OSError:
        continue
    break
print(port)'
}
port=$(free_port)
xds=$(free_port)
inlet=$(free_port)   # Where an example itself listens.

at_free_ports() {  # at_free_ports FILE: with the ports that an example writes out replaced
    sed -e "s/50051/$xds/; s/10000/$inlet/" "$1"
}

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
	  ports: [{name: main, protocol: TCP, port: 80, targetPort: $port}]
EOF
for number in 2 3; do
    machine "vm-$number" "127.0.0.$number"      # Whoever reads this says how one is started.
    vm "vm-$number" "127.0.0.$number"
done
background "$bin/vmsvc-grpc" serve --manifests "$folder/manifests" --allow-loopback \
    --listen "127.0.0.1:$xds" --http-listen 127.0.0.1:0

failed() { echo "$1; what was said:" >&2 && cat "$folder/log" >&2 && exit 1; }

until_answer() {  # until_answer PATTERN: who answers, as `answers` tells it, sorted, joined
    for _ in $(seq 300); do
        for pid in $(cat "$folder/pids"); do kill -0 "$pid" || failed "a program has ended"; done
        got=$(answers | sort -u | tr '\n' ' ')
        [ "$got" = "$1 " ] && echo "answered by: $got" && return
        sleep 0.1
    done
    failed "still answered by: $got"
}

follow() {  # A VM is deleted and created, and traffic follows.
    until_answer "vm-2 vm-3"
    echo "vm-3 is deleted"
    rm "$folder/manifests/vm-3.yaml"
    until_answer "vm-2"
    echo "vm-3 is created"
    vm vm-3 127.0.0.3
    until_answer "vm-2 vm-3"
}
