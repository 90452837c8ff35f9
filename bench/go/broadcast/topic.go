package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"vmsvc-grpc/bench/go/internal/api"
	"vmsvc-grpc/bench/go/internal/dataset"
)

// topic holds the newest state of one service, and tells those who follow it that there is a
// newer one.
type topic struct {
	set     dataset.Set
	service int
	newest  atomic.Pointer[publication]

	mu        sync.Mutex
	followers map[chan<- struct{}]struct{}
}

// publication is one state of a service as messages, which all streams share.
type publication struct {
	version  uint64
	revision string
	delta    []byte // From the version before.
	snapshot func() []byte
}

func newTopic(set dataset.Set, service int) *topic {
	t := &topic{set: set, service: service, followers: map[chan<- struct{}]struct{}{}}
	t.newest.Store(t.at(0))
	return t
}

// publish replaces the state by a later one.
func (t *topic) publish(step uint32) {
	t.newest.Store(t.at(step))
	t.mu.Lock()
	defer t.mu.Unlock()
	for wake := range t.followers {
		select {
		case wake <- struct{}{}:
		default: // It has not looked since it was woken last.
		}
	}
}

// follow has `wake`, of which the capacity is 1, filled at each publication from now on.
func (t *topic) follow(wake chan<- struct{}) (leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[wake] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.followers, wake)
	}
}

func (t *topic) at(step uint32) *publication {
	p := &publication{version: uint64(step) + 1, revision: revision(t.service, step)}
	p.snapshot = sync.OnceValue(func() []byte { return t.snapshot(p, step) })
	if step > 0 {
		p.delta = t.delta(p, step)
	}
	return p
}

func (t *topic) event(kind api.Kind, p *publication) api.Event {
	name := dataset.ServiceName(t.service)
	return api.Event{Kind: kind, Service: name, Version: p.version, Revision: p.revision}
}

func (t *topic) snapshot(p *publication, step uint32) []byte {
	event := t.event(api.Snapshot, p)
	event.Ports = []api.Port{{
		Name: dataset.PortName, Port: dataset.Port,
		TargetPort: dataset.TargetPort, Protocol: dataset.Protocol,
	}}
	for vm := range t.set.Endpoints {
		event.Endpoints = append(event.Endpoints, t.endpoint(t.set.Latest(vm, step)))
	}
	slices.SortFunc(event.Endpoints, func(a, b api.Endpoint) int {
		return strings.Compare(a.Address, b.Address)
	})
	return event.Encode()
}

func (t *topic) delta(p *publication, step uint32) []byte {
	_, changed := t.set.At(t.set.Seq(t.service, dataset.Endpoint{Step: step}))
	before := t.endpoint(t.set.Latest(changed.VM, step-1))
	event := t.event(api.Delta, p)
	event.Removed = []api.Endpoint{{Address: before.Address, VMUID: before.VMUID}}
	event.Endpoints = []api.Endpoint{t.endpoint(changed)}
	return event.Encode()
}

// current is made anew for each who asks: it is short, and few ask.
func (t *topic) current(p *publication) []byte {
	event := t.event(api.Current, p)
	return event.Encode()
}

func (t *topic) endpoint(e dataset.Endpoint) api.Endpoint {
	return api.Endpoint{
		Address: dataset.Address(t.set.Seq(t.service, e)),
		Ready:   true,
		VMName:  dataset.VMName(t.service, e.VM),
		VMUID:   dataset.VMUID(t.service, e.VM),
		Zone:    dataset.Zone,
	}
}

// revision is a digest of a state: as long as our server's, and of what the state follows from.
func revision(service int, step uint32) string {
	digest := sha256.Sum256(fmt.Appendf(nil, "%d %d", service, step))
	return hex.EncodeToString(digest[:16])
}
