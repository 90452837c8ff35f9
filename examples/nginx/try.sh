#!/bin/sh
# An nginx balances over two local servers that stand for VMs, as `vmsvc feed nginx` keeps it right. Run it in
# the project's root. ../local-vms.sh tells what it needs, beside an nginx.
here=$(dirname "$0")
. "$here/../web-vms.sh"
PATH=$PATH:/usr/sbin    # Where Debian has it.
command -v nginx >/dev/null || { echo "there is no nginx: apt-get install nginx" >&2; exit 1; }
mkdir "$folder/vmsvc"
at_free_ports "$here/nginx.conf" >"$folder/nginx.conf"
nginx="nginx -p $folder -c nginx.conf -e stderr"
background "$bin/vmsvc" feed nginx web=shop/web --server "127.0.0.1:$xds" --directory "$folder/vmsvc" \
    --test-command "$nginx -t" --reload-command "$nginx -s reload" --reload-interval-s 0.5
# The feed writes a file before it knows any server; nginx does not start without.
background sh -c "until [ -e '$folder/vmsvc/web.upstream.conf' ]; do sleep 0.1; done; exec $nginx"
follow
