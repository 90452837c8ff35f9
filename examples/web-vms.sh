# As local-vms.sh: the servers that stand for VMs are web servers that answer with their names, and are asked
# through whoever listens on 127.0.0.1:$inlet.
machine() {
    mkdir "$folder/$1" && echo "$1" >"$folder/$1/index.html"
    background "$bin/python" -m http.server "$port" --bind "$2" -d "$folder/$1"
}

answers() { for _ in 1 2 3 4 5 6 7 8 9 10; do curl -sf "http://127.0.0.1:$inlet/" || echo none; done; }

. "$here/../local-vms.sh"
