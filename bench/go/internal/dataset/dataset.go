// Package dataset is the data that every server of the benchmark serves: what it is at the
// start, what each change makes of it, and what an address says of the change that made it.
//
// There are services s0, s1 … of the namespace bench, each of the same number of virtual
// machines with one endpoint. Every address is used once in a run: its low 24 bits are a
// sequence number ("seq"). The endpoints at the start have the first ones; then each change
// gives one endpoint the next. Change k is of service k mod S, so a service's own changes
// follow each other with a distance of S, and change its endpoints in turn.
//
// A service's state after n of its changes is called its step n. All that can be asked of a
// state follows from the step alone, so nothing here holds one.
package dataset

import (
	"fmt"
	"net/netip"
)

// What is equal for all services.
const (
	Namespace  = "bench"
	Zone       = "zone-a"
	PortName   = "http"
	Port       = 80
	TargetPort = 8080
	Protocol   = "TCP"
)

// TypeURL is the type of resource of xDS that the data is.
const TypeURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// SeqMax is how many addresses there are.
const SeqMax = 1 << 24

// Set is the shape of the data: how many services, and how many endpoints of each.
type Set struct {
	Services, Endpoints int
}

// Endpoint is one endpoint of a service, and the step that gave it the address it has; 0 if
// it has it from the start.
type Endpoint struct {
	VM   int
	Step uint32
}

// FirstChange is the seq of the first change: those below are of the start.
func (s Set) FirstChange() uint32 {
	return uint32(s.Services * s.Endpoints)
}

// Seq is that of the address which a service's endpoint has from a step of it on.
func (s Set) Seq(service int, e Endpoint) uint32 {
	if e.Step == 0 {
		return uint32(service*s.Endpoints + e.VM)
	}
	return s.FirstChange() + (e.Step-1)*uint32(s.Services) + uint32(service)
}

// At tells which endpoint of which service has the address of a seq.
func (s Set) At(seq uint32) (service int, e Endpoint) {
	if seq < s.FirstChange() {
		return int(seq) / s.Endpoints, Endpoint{VM: int(seq) % s.Endpoints}
	}
	change := int(seq - s.FirstChange())
	turn := change / s.Services
	return change % s.Services, Endpoint{VM: turn % s.Endpoints, Step: uint32(turn + 1)}
}

// Latest is a VM's endpoint as it is in a step of its service.
func (s Set) Latest(vm int, step uint32) Endpoint {
	if int(step) <= vm {
		return Endpoint{VM: vm}
	}
	since := (int(step) - 1 - vm) % s.Endpoints
	return Endpoint{VM: vm, Step: step - uint32(since)}
}

// StepBefore is the step of a service when everything below a seq has been applied.
func (s Set) StepBefore(service int, seq uint32) uint32 {
	changes := int(seq) - int(s.FirstChange()) - service
	if changes <= 0 {
		return 0
	}
	return uint32((changes + s.Services - 1) / s.Services)
}

// Address is that of a seq: 10 and its 24 bits.
func Address(seq uint32) string {
	return netip.AddrFrom4([4]byte{10, byte(seq >> 16), byte(seq >> 8), byte(seq)}).String()
}

// ParseAddress is the seq of an address. An error if it is none of ours.
func ParseAddress(text string) (uint32, error) {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return 0, err
	}
	if !address.Is4() || address.As4()[0] != 10 {
		return 0, fmt.Errorf("%s is no address of 10.0.0.0/8", text)
	}
	b := address.As4()
	return uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), nil
}

// ServiceName is how our API names a service.
func ServiceName(service int) string {
	return fmt.Sprintf("%s/s%d", Namespace, service)
}

// ClusterName is how xDS names a service's load assignment.
func ClusterName(service int) string {
	return fmt.Sprintf("s%d.%s:%d", service, Namespace, Port)
}

// VMName names one of a service's machines.
func VMName(service, vm int) string {
	return fmt.Sprintf("s%d-vm%d", service, vm)
}

// VMUID is its uid.
func VMUID(service, vm int) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%06x%06x", service, vm)
}
