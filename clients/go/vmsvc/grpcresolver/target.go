package grpcresolver

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/resolver"
)

// Scheme is that of targets: vmsvc.
const Scheme = "vmsvc"

// wanted is what a target asks for. server is empty where it names none; port is a name or number,
// empty where it names none.
type wanted struct{ server, service, port string }

const label = `[a-z0-9](?:[-a-z0-9]*[a-z0-9])?`

var endpointOfTarget = regexp.MustCompile(`^(` + label + `/` + label + `)(?::(` + label + `))?$`)

// read is what a target asks for. An error says how it has to look.
func read(target resolver.Target) (wanted, error) {
	found := endpointOfTarget.FindStringSubmatch(target.Endpoint())
	odd := target.URL.User != nil || target.URL.RawQuery != "" || target.URL.Fragment != ""
	if found == nil || odd {
		return wanted{}, fmt.Errorf(
			"target %q is not vmsvc://SERVER/NAMESPACE/NAME:PORT; write for instance vmsvc:///shop/web:http",
			target.URL.Redacted(),
		)
	}
	return wanted{server: target.URL.Host, service: found[1], port: found[2]}, nil
}

// authority is the name by which calls address the service, that of its Service in Kubernetes:
// shop/web is web.shop.svc.
func (w wanted) authority() string {
	namespace, name, _ := strings.Cut(w.service, "/")
	return name + "." + namespace + ".svc"
}
