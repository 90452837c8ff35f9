package main

import (
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"vmsvc-grpc/bench/go/internal/api"
	"vmsvc-grpc/bench/go/internal/dataset"
)

// protocol is how a stream asks for its service, and what the messages that it gets say. One
// serves all streams.
type protocol interface {
	// call is the path of the call, and whether requests may follow the first.
	call() (method string, desc grpc.StreamDesc)
	// request opens a stream; with a revision, as one who holds the state of it.
	request(service int, revision string) []byte
	// read gives what a message says, nil if nothing, and what is to be sent for it, nil if
	// nothing. The message is not kept.
	read(service int, message []byte) (told *update, answer []byte, err error)
	// completes tells whether an update is the last of the first answers.
	completes(*update) bool
}

// vmsvc is WatchEndpoints of our own API.
type vmsvc struct {
	set  dataset.Set
	memo *memo
}

func newVMSVC(set dataset.Set) vmsvc {
	v := vmsvc{set: set}
	v.memo = newMemo(v.decode)
	return v
}

func (vmsvc) call() (string, grpc.StreamDesc) {
	return "/" + api.Service + "/" + api.Watch, grpc.StreamDesc{ServerStreams: true}
}

func (vmsvc) request(service int, revision string) []byte {
	watched := api.Watched{Service: dataset.ServiceName(service), Revision: revision}
	return api.EncodeRequest(watched)
}

func (v vmsvc) read(_ int, message []byte) (*update, []byte, error) {
	told, err := v.memo.update(message)
	return told, nil, err
}

func (vmsvc) completes(u *update) bool { return u.kind == synced }

var port = api.Port{
	Name: dataset.PortName, Port: dataset.Port,
	TargetPort: dataset.TargetPort, Protocol: dataset.Protocol,
}

func (v vmsvc) decode(message []byte) (*update, error) {
	event, err := api.Decode(message)
	if err != nil {
		return nil, err
	}
	if event.Kind == api.Synced {
		return &update{kind: synced}, nil
	}
	var service int
	if _, err := fmt.Sscanf(event.Service, dataset.Namespace+"/s%d", &service); err != nil {
		return nil, fmt.Errorf("an event of %q: %w", event.Service, err)
	}
	u, err := v.event(service, event)
	if err != nil {
		return nil, fmt.Errorf("version %d of %s: %w", event.Version, event.Service, err)
	}
	u.revision = event.Revision
	return u, nil
}

func (v vmsvc) event(service int, event *api.Event) (*update, error) {
	set, err := v.endpoints(service, event.Endpoints)
	if err != nil {
		return nil, err
	}
	switch event.Kind {
	case api.Snapshot:
		if len(event.Ports) != 1 || event.Ports[0] != port {
			return nil, fmt.Errorf("ports %v", event.Ports)
		}
		return wholeState(v.set, service, set)
	case api.Delta:
		u := &update{kind: change, service: service, set: set}
		for _, e := range set {
			u.step = max(u.step, e.Step)
		}
		for _, key := range event.Removed {
			e, err := v.endpoint(service, key)
			if err != nil {
				return nil, err
			}
			u.removed = append(u.removed, e)
		}
		return u, nil
	case api.Current:
		return &update{kind: same, service: service}, nil
	default:
		return nil, errors.New("it is absent")
	}
}

func (v vmsvc) endpoints(service int, told []api.Endpoint) ([]dataset.Endpoint, error) {
	endpoints := make([]dataset.Endpoint, 0, len(told))
	for _, t := range told {
		e, err := v.endpoint(service, t)
		if err != nil {
			return nil, err
		}
		if !t.Ready || t.VMName != dataset.VMName(service, e.VM) || t.Zone != dataset.Zone {
			return nil, fmt.Errorf("endpoint %+v", t)
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// endpoint is that of an address and a VM's uid, which must belong together.
func (v vmsvc) endpoint(service int, key api.Endpoint) (dataset.Endpoint, error) {
	seq, err := dataset.ParseAddress(key.Address)
	if err != nil {
		return dataset.Endpoint{}, err
	}
	owner, e := v.set.At(seq)
	if owner != service || key.VMUID != dataset.VMUID(service, e.VM) {
		return e, fmt.Errorf("%s of VM %s, which is that of %s",
			key.Address, key.VMUID, dataset.VMName(owner, e.VM))
	}
	return e, nil
}
