package vmsvc

import (
	"slices"
	"strings"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Readiness chooses which endpoints an answer has.
type Readiness int

const (
	// ReadyOnly is for endpoints that traffic may be sent to.
	ReadyOnly Readiness = iota
	// All is for all endpoints, each with its Ready flag.
	All
)

func (r Readiness) number() vmsvcv1.Readiness {
	if r == All {
		return vmsvcv1.Readiness_READINESS_ALL
	}
	return vmsvcv1.Readiness_READINESS_READY_ONLY
}

// Port is one port of a service. Port is that of the cluster address, TargetPort that of an
// endpoint's address. Protocol is "TCP", "UDP" or "SCTP".
type Port struct {
	Name       string `json:"name"`
	Port       uint32 `json:"port"`
	TargetPort uint32 `json:"target_port"`
	Protocol   string `json:"protocol"`
}

// Endpoint is one address of one VM, unique within a service by Address and VMUID. Zone is empty if
// the VM has none.
type Endpoint struct {
	Address string `json:"address"`
	Ready   bool   `json:"ready"`
	VMName  string `json:"vm_name"`
	VMUID   string `json:"vm_uid"`
	Zone    string `json:"zone"`
}

type endpointKey struct{ address, vmUID string }

func (e Endpoint) key() endpointKey { return endpointKey{e.Address, e.VMUID} }

// AbsenceReason says why a service has no endpoints. A newer server may have others than these.
type AbsenceReason string

const (
	// NotFound is for a service that does not exist, or is being deleted.
	NotFound AbsenceReason = "NOT_FOUND"
	// Refused is for a service whose specification is not valid.
	Refused AbsenceReason = "REFUSED"
	// UnknownReason is for what a newer server knows and this client does not.
	UnknownReason AbsenceReason = "UNKNOWN"
)

// Absence says why a service is absent; Message is for a person.
type Absence struct {
	Reason  AbsenceReason `json:"reason"`
	Message string        `json:"message"`
}

// ServiceState is the whole state of one service at one moment. Share it, but do not change it.
//
// Endpoints are sorted by address, then by VM uid; every endpoint serves every port. Both are empty
// if the service is absent. Version rises with each change, and only the server process that sent it
// can compare it; Revision is a digest of the content.
type ServiceState struct {
	Service   string     `json:"service"`
	Ports     []Port     `json:"ports"`
	Endpoints []Endpoint `json:"endpoints"`
	// Absence is nil if the service exists and is served.
	Absence  *Absence `json:"absence"`
	Version  uint64   `json:"version"`
	Revision string   `json:"revision"`
}

// Present says whether the service exists and is served.
func (s ServiceState) Present() bool { return s.Absence == nil }

// Equal says whether two states have the same content: versions and revisions do not count.
func (s ServiceState) Equal(other ServiceState) bool {
	if s.Present() != other.Present() || (s.Absence != nil && *s.Absence != *other.Absence) {
		return false
	}
	return s.Service == other.Service && slices.Equal(s.Ports, other.Ports) &&
		slices.Equal(s.Endpoints, other.Endpoints)
}

// "Is being deleted" and "there is none" are the same to a client.
func (s ServiceState) deleted() bool { return s.Absence != nil && s.Absence.Reason == NotFound }

func ports(messages []*vmsvcv1.Port) []Port {
	read := make([]Port, 0, len(messages))
	for _, m := range messages {
		read = append(read, Port{m.GetName(), m.GetPort(), m.GetTargetPort(), m.GetProtocol()})
	}
	return read
}

func endpoint(m *vmsvcv1.Endpoint) Endpoint {
	return Endpoint{m.GetAddress(), m.GetReady(), m.GetVmName(), m.GetVmUid(), m.GetZone()}
}

// present is the state of a service that is served; its endpoints are sorted here, as what follows
// rests on that.
func present(m *vmsvcv1.EndpointSet) ServiceState {
	endpoints := make([]Endpoint, 0, len(m.GetEndpoints()))
	for _, each := range m.GetEndpoints() {
		endpoints = append(endpoints, endpoint(each))
	}
	return ServiceState{
		Service: m.GetService(), Ports: ports(m.GetPorts()), Endpoints: sorted(endpoints),
		Version: m.GetVersion(), Revision: m.GetRevision(),
	}
}

func absent(service string, reason AbsenceReason, message string) ServiceState {
	return ServiceState{
		Service: service, Ports: []Port{}, Endpoints: []Endpoint{}, Absence: &Absence{reason, message},
	}
}

func absenceReason(number vmsvcv1.Absent_Reason) AbsenceReason {
	switch number {
	case vmsvcv1.Absent_REASON_NOT_FOUND:
		return NotFound
	case vmsvcv1.Absent_REASON_REFUSED:
		return Refused
	default:
		return UnknownReason
	}
}

// sorted has each endpoint once: of two with one key, the later one.
func sorted(endpoints []Endpoint) []Endpoint {
	slices.SortStableFunc(endpoints, byKey)
	once := endpoints[:0]
	for _, each := range endpoints {
		if last := len(once) - 1; last >= 0 && byKey(once[last], each) == 0 {
			once[last] = each
		} else {
			once = append(once, each)
		}
	}
	return once
}

func byKey(a, b Endpoint) int {
	if order := strings.Compare(a.Address, b.Address); order != 0 {
		return order
	}
	return strings.Compare(a.VMUID, b.VMUID)
}
