package vmsvc

import (
	"fmt"
	"slices"
	"strings"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// nameShownMax has room for a namespace, "/", and the longest name of Kubernetes. Whatever breaks the
// contract may send more.
const nameShownMax = 63 + 1 + 253

// Scope says which services a watch is about: those named ("namespace/name"), those of namespaces,
// or all. One of the three has to be given; AllServices and Namespaces exclude each other.
type Scope struct {
	Services    []string
	Namespaces  []string
	AllServices bool
	Readiness   Readiness
}

// watchState is the state of one watch: messages in, each service's state out. No I/O, no clock.
//
// The states outlive the streams. The request of a new stream has the revisions held, so that the
// stream does not repeat what is still true. A deleted service is forgotten unless it was asked for
// by name, so that a watch does not grow with every service that ever was.
type watchState struct {
	scope  Scope
	named  map[string]bool
	held   map[string]ServiceState
	synced bool
	// The services answered on this stream, with the version to which a delta applies.
	sent map[string]answered
	// Whether the next request has the revisions held.
	resume bool
}

// answered is what a stream was sent last of a service; one that is absent has no version.
type answered struct {
	present bool
	version uint64
}

func newWatchState(scope Scope) *watchState {
	s := &watchState{scope: scope, named: map[string]bool{}, held: map[string]ServiceState{}, resume: true}
	for _, name := range scope.Services {
		s.named[name] = true
	}
	return s
}

// begin is the request of a new stream, which resumes from the states held.
func (s *watchState) begin() *vmsvcv1.WatchEndpointsRequest {
	s.sent = map[string]answered{}
	s.synced = false
	request := &vmsvcv1.WatchEndpointsRequest{
		Namespaces:  unique(s.scope.Namespaces),
		AllServices: s.scope.AllServices,
		Readiness:   s.scope.Readiness.number(),
	}
	names := unique(s.scope.Services)
	if s.resume {
		names = append(names, s.moreThanNamed()...)
	}
	for _, name := range names {
		watched := &vmsvcv1.WatchedService{Service: name}
		if s.resume {
			watched.Revision = s.held[name].Revision
		}
		request.Services = append(request.Services, watched)
	}
	return request
}

// moreThanNamed are the services held that were not asked for by name, sorted.
func (s *watchState) moreThanNamed() []string {
	var more []string
	for name := range s.held {
		if !s.named[name] {
			more = append(more, name)
		}
	}
	slices.Sort(more)
	return more
}

// canAskLess says whether this stream, whose request had more names than were asked for, got no
// message.
func (s *watchState) canAskLess() bool {
	return s.resume && len(s.sent) == 0 && len(s.moreThanNamed()) > 0
}

// lost is for a stream that ended. Without resume, the next one does not resume from what is held.
func (s *watchState) lost(resume bool) {
	s.synced = false
	s.resume = s.resume && resume
}

// receive takes in the stream's next message; the events that follow, in order, none if it changes
// nothing. An error of the protocol changes nothing, either.
func (s *watchState) receive(message *vmsvcv1.WatchEndpointsResponse) ([]Event, *Error) {
	if service, ok := about(message); ok && !s.asked(service) {
		return nil, violation(service, "it was not asked for")
	}
	switch event := message.GetEvent().(type) {
	case *vmsvcv1.WatchEndpointsResponse_Snapshot:
		return s.snapshot(event.Snapshot)
	case *vmsvcv1.WatchEndpointsResponse_Delta:
		return s.delta(event.Delta)
	case *vmsvcv1.WatchEndpointsResponse_Current:
		return s.current(event.Current)
	case *vmsvcv1.WatchEndpointsResponse_Absent:
		m := event.Absent
		return s.absent(absent(m.GetService(), absenceReason(m.GetReason()), m.GetMessage())), nil
	case *vmsvcv1.WatchEndpointsResponse_Synced:
		return s.allAnswered(), nil
	default:
		// A newer server sends a message that this client does not know.
		return nil, nil
	}
}

// about is the service that a message is about, if it is about one.
func about(message *vmsvcv1.WatchEndpointsResponse) (string, bool) {
	switch event := message.GetEvent().(type) {
	case *vmsvcv1.WatchEndpointsResponse_Snapshot:
		return event.Snapshot.GetService(), true
	case *vmsvcv1.WatchEndpointsResponse_Delta:
		return event.Delta.GetService(), true
	case *vmsvcv1.WatchEndpointsResponse_Current:
		return event.Current.GetService(), true
	case *vmsvcv1.WatchEndpointsResponse_Absent:
		return event.Absent.GetService(), true
	default:
		return "", false
	}
}

// asked says whether a service was asked for. To hold others would be to ask for them next time.
func (s *watchState) asked(service string) bool {
	namespace, _, _ := strings.Cut(service, "/")
	return s.scope.AllServices || s.named[service] || slices.Contains(s.scope.Namespaces, namespace)
}

func (s *watchState) snapshot(m *vmsvcv1.EndpointSet) ([]Event, *Error) {
	if err := s.rise(m.GetService(), m.GetVersion()); err != nil {
		return nil, err
	}
	return s.hold(present(m)), nil
}

func (s *watchState) delta(m *vmsvcv1.Delta) ([]Event, *Error) {
	service := m.GetService()
	held, ok := s.held[service]
	if !ok || !s.sent[service].present {
		return nil, violation(service, "a delta came before a state to apply it to")
	}
	endpoints, err := changed(held, m)
	if err != nil {
		return nil, err
	}
	if err := s.rise(service, m.GetVersion()); err != nil {
		return nil, err
	}
	after := ServiceState{
		Service: service, Ports: held.Ports, Endpoints: endpoints,
		Version: m.GetVersion(), Revision: m.GetRevision(),
	}
	if m.GetPortsChanged() {
		after.Ports = ports(m.GetPorts())
	}
	return s.hold(after), nil
}

// changed are the endpoints of a state after a delta: removals come first. All are sorted, so that what
// stays is copied run by run: a service of many endpoints changes often, and few of them at once.
func changed(held ServiceState, m *vmsvcv1.Delta) ([]Endpoint, *Error) {
	removed := make([]Endpoint, 0, len(m.GetRemoved()))
	for _, each := range m.GetRemoved() {
		removed = append(removed, Endpoint{Address: each.GetAddress(), VMUID: each.GetVmUid()})
	}
	upserted := make([]Endpoint, 0, len(m.GetUpserted()))
	for _, each := range m.GetUpserted() {
		upserted = append(upserted, endpoint(each))
	}
	slices.SortFunc(removed, byKey)
	kept, err := without(held, removed)
	if err != nil {
		return nil, err
	}
	return with(kept, sorted(upserted)), nil
}

func without(held ServiceState, removed []Endpoint) ([]Endpoint, *Error) {
	rest := held.Endpoints
	if len(removed) == 0 {
		return rest, nil
	}
	kept := make([]Endpoint, 0, len(rest))
	for _, each := range removed {
		at, found := slices.BinarySearchFunc(rest, each, byKey)
		if !found {
			return nil, violation(held.Service, fmt.Sprintf("a delta removes %s, which is not held", each.Address))
		}
		kept = append(kept, rest[:at]...)
		rest = rest[at+1:]
	}
	return append(kept, rest...), nil
}

func with(kept, upserted []Endpoint) []Endpoint {
	after := make([]Endpoint, 0, len(kept)+len(upserted))
	for _, each := range upserted {
		at, found := slices.BinarySearchFunc(kept, each, byKey)
		after = append(append(after, kept[:at]...), each)
		if found {
			at++
		}
		kept = kept[at:]
	}
	return append(after, kept...)
}

func (s *watchState) current(m *vmsvcv1.Current) ([]Event, *Error) {
	held, ok := s.held[m.GetService()]
	if !ok || !held.Present() || held.Revision != m.GetRevision() {
		return nil, violation(m.GetService(), "it is said to be as held, but that is not held")
	}
	if err := s.rise(m.GetService(), m.GetVersion()); err != nil {
		return nil, err
	}
	held.Version = m.GetVersion()
	return s.hold(held), nil
}

func (s *watchState) absent(state ServiceState) []Event {
	s.sent[state.Service] = answered{}
	if s.named[state.Service] || !state.deleted() {
		return s.hold(state)
	}
	if _, ok := s.held[state.Service]; !ok {
		return nil
	}
	delete(s.held, state.Service)
	return []Event{state}
}

func (s *watchState) allAnswered() []Event {
	var gone []string
	for name := range s.held {
		if _, ok := s.sent[name]; !ok {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	s.synced = true
	s.resume = true
	var events []Event
	for _, name := range gone {
		events = append(events, s.absent(absent(name, NotFound, "there is no VirtualMachineService "+name))...)
	}
	return append(events, Synced{})
}

func (s *watchState) rise(service string, version uint64) *Error {
	if before := s.sent[service]; before.present && version <= before.version {
		return violation(service, fmt.Sprintf("version %d came after %d", version, before.version))
	}
	s.sent[service] = answered{present: true, version: version}
	return nil
}

func (s *watchState) hold(state ServiceState) []Event {
	before, ok := s.held[state.Service]
	s.held[state.Service] = state
	if ok && (before.Equal(state) || before.deleted() && state.deleted()) {
		return nil
	}
	return []Event{state}
}

func violation(service, what string) *Error {
	if len(service) > nameShownMax {
		service = strings.ToValidUTF8(service[:nameShownMax], "") + "..."
	}
	return broken(fmt.Sprintf("service %s: %s", service, what))
}

// unique has each name once, in the order of their first.
func unique(names []string) []string {
	seen := make(map[string]bool, len(names))
	once := make([]string, 0, len(names))
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			once = append(once, name)
		}
	}
	return once
}
