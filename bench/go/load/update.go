package main

import (
	"fmt"
	"hash/maphash"
	"sync"

	"vmsvc-grpc/bench/go/internal/dataset"
)

// kind is what an update does to the state that a stream holds.
type kind int

const (
	whole  kind = iota // It is the state.
	change             // It leads to the state from the one before.
	same               // The state held is still true.
	synced             // Nothing: every first answer has come.
)

// update is what one message says of its service. All streams that receive the message share
// it.
type update struct {
	kind     kind
	service  int
	step     uint32 // The newest that it holds, unless it is `same`.
	revision string
	removed  []dataset.Endpoint
	set      []dataset.Endpoint // Of a whole state: every endpoint, in the order of VMs.
}

// wholeState is the update of a complete state, in any order. An error if the service never
// had such a state.
func wholeState(set dataset.Set, service int, endpoints []dataset.Endpoint) (*update, error) {
	u := &update{kind: whole, service: service, set: make([]dataset.Endpoint, set.Endpoints)}
	if len(endpoints) != set.Endpoints {
		return nil, fmt.Errorf("%d endpoints and not %d", len(endpoints), set.Endpoints)
	}
	for _, e := range endpoints {
		u.set[e.VM] = e
		u.step = max(u.step, e.Step)
	}
	for vm, e := range u.set {
		if e != set.Latest(vm, u.step) {
			return nil, fmt.Errorf("step %d with the endpoint of VM %d from %d", u.step, vm, e.Step)
		}
	}
	return u, nil
}

// generationMax is how many messages a generation of the memo holds. A server sends some
// tens of different ones at about the same time, each to thousands of streams.
const generationMax = 4096

// memo holds what messages mean, so that each is decoded once and not once a stream. It is
// asked with the whole content: nothing that a server says of itself, as a version is, stands
// for the content. What has not come for long is forgotten.
type memo struct {
	decode func(message []byte) (*update, error)
	seed   maphash.Seed

	mu         sync.RWMutex
	young, old map[uint64]decoded
}

type decoded struct {
	update *update
	err    error
}

func newMemo(decode func(message []byte) (*update, error)) *memo {
	return &memo{decode: decode, seed: maphash.MakeSeed(), young: map[uint64]decoded{}}
}

// update is what a message says, or why it is not of the data set.
func (m *memo) update(message []byte) (*update, error) {
	key := maphash.Bytes(m.seed, message)
	m.mu.RLock()
	known, ok := m.young[key]
	if !ok {
		known, ok = m.old[key]
	}
	m.mu.RUnlock()
	if !ok {
		known.update, known.err = m.decode(message)
		m.remember(key, known)
	}
	return known.update, known.err
}

func (m *memo) remember(key uint64, known decoded) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= generationMax {
		m.young, m.old = map[uint64]decoded{}, m.young
	}
	m.young[key] = known
}
