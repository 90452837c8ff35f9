package grpcresolver

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
)

// outcome is what a service's state means to gRPC: endpoints, or else a reason why there are none.
type outcome struct {
	endpoints []backend
	reason    string
}

// backend is a VM, and where it listens: its addresses with the port, in the order of the state.
type backend struct {
	vmsvc.Endpoint
	addresses []string
}

func (o outcome) equal(other outcome) bool {
	return o.reason == other.reason && slices.EqualFunc(o.endpoints, other.endpoints, func(a, b backend) bool {
		return a.Endpoint == b.Endpoint && slices.Equal(a.addresses, b.addresses)
	})
}

// of is the outcome of a state for the port that a target names.
func of(state vmsvc.ServiceState, named string) outcome {
	if !state.Present() {
		return outcome{reason: state.Absence.Message}
	}
	port, err := chosen(state, named)
	if err != nil {
		return outcome{reason: err.Error()}
	}
	backends := ready(state.Endpoints, port.TargetPort)
	switch {
	case len(backends) > 0:
		return outcome{endpoints: backends}
	case len(state.Endpoints) > 0:
		return outcome{reason: fmt.Sprintf(
			"service %s has no endpoint that is ready, of %d", state.Service, len(state.Endpoints))}
	default:
		return outcome{reason: fmt.Sprintf("service %s has no endpoints", state.Service)}
	}
}

// chosen is the TCP port that a target names; gRPC speaks no other protocol. A name comes before a
// number, as a name may look like one.
func chosen(state vmsvc.ServiceState, named string) (vmsvc.Port, error) {
	var ports []vmsvc.Port
	var names []string
	for _, port := range state.Ports {
		if port.Protocol == "TCP" {
			ports = append(ports, port)
			names = append(names, cmp.Or(port.Name, strconv.Itoa(int(port.Port))))
		}
	}
	switch {
	case named == "" && len(ports) == 1:
		return ports[0], nil
	case len(ports) == 0:
		return vmsvc.Port{}, fmt.Errorf("service %s has no TCP port", state.Service)
	case named == "":
		return vmsvc.Port{}, fmt.Errorf("service %s has several TCP ports (%s); name one: vmsvc:///%s:%s",
			state.Service, strings.Join(names, ", "), state.Service, names[0])
	}
	for _, is := range []func(vmsvc.Port) bool{
		func(p vmsvc.Port) bool { return p.Name == named },
		func(p vmsvc.Port) bool { return strconv.Itoa(int(p.Port)) == named },
	} {
		if i := slices.IndexFunc(ports, is); i >= 0 {
			return ports[i], nil
		}
	}
	return vmsvc.Port{}, fmt.Errorf("service %s has no TCP port %q; it has %s",
		state.Service, named, strings.Join(names, ", "))
}

// ready are the VMs that may get calls, each with all of its addresses. An address that two VMs report is
// the first one's.
func ready(endpoints []vmsvc.Endpoint, port uint32) []backend {
	var backends []backend
	byVM := map[string]int{}
	seen := map[string]bool{}
	for _, each := range endpoints {
		address := net.JoinHostPort(each.Address, strconv.Itoa(int(port)))
		if !each.Ready || seen[address] {
			continue
		}
		seen[address] = true
		if i, ok := byVM[each.VMUID]; ok && each.VMUID != "" {
			backends[i].addresses = append(backends[i].addresses, address)
			continue
		}
		byVM[each.VMUID] = len(backends)
		backends = append(backends, backend{each, []string{address}})
	}
	return backends
}
