#!/bin/sh
# A HAProxy balances over two local servers that stand for VMs, as `vmsvc feed haproxy` has it. Run it in
# the project's root. ../local-vms.sh tells what it needs beside HAProxy.
here=$(dirname "$0")
PATH=$PATH:/usr/sbin
command -v haproxy >/dev/null || { echo "there is no haproxy: make balancers brings it" >&2; exit 1; }

machine() {  # machine NAME ADDRESS: a web server that answers with its name
    mkdir "$folder/$1" && echo "$1" >"$folder/$1/index.html"
    background "$bin/python" -m http.server "$port" --bind "$2" -d "$folder/$1"
}

. "$here/../local-vms.sh"
at_free_ports "$here/haproxy.cfg" | sed "s|/run/haproxy|$folder|; s|/var/lib/haproxy|$folder|" >"$folder/haproxy.cfg"
background haproxy -f "$folder/haproxy.cfg"
background "$bin/vmsvc" feed haproxy web=shop/web sticky=shop/web --server "127.0.0.1:$xds" \
    --runtime "$folder/admin.sock" --server-options 'check inter 2s' --haproxy-state-file "$folder/servers"

answers() { for _ in 1 2 3 4 5 6 7 8 9 10; do curl -sf "http://127.0.0.1:$inlet/" || echo none; done; }
follow
curl -sf -o "$folder/answer" -H 'Host: sticky.example' "http://127.0.0.1:$inlet/" || failed "no slot answers"
echo "a slot answers, too"
