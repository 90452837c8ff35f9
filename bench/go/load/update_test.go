package main

import (
	"encoding/binary"
	"testing"

	"vmsvc-grpc/bench/go/internal/dataset"
)

var small = dataset.Set{Services: 2, Endpoints: 3}

// state is the endpoints of a service of the small set in a step, in the order of VMs.
func state(step uint32) []dataset.Endpoint {
	var endpoints []dataset.Endpoint
	for vm := range small.Endpoints {
		endpoints = append(endpoints, small.Latest(vm, step))
	}
	return endpoints
}

func TestAStateIsKnownByItsNewestEndpointInAnyOrder(t *testing.T) {
	for step := range uint32(10) {
		endpoints := state(step)
		endpoints[0], endpoints[2] = endpoints[2], endpoints[0]
		u, err := wholeState(small, 1, endpoints)
		if err != nil || u.step != step || u.set[0].VM != 0 || u.set[2].VM != 2 {
			t.Errorf("step %d: %+v (%v)", step, u, err)
		}
	}
}

func TestAStateThatTheServiceNeverHadIsRefused(t *testing.T) {
	stale := state(5)
	stale[0].Step = 1
	twice := state(5)
	twice[1] = twice[0]
	for name, endpoints := range map[string][]dataset.Endpoint{
		"stale": stale, "twice": twice, "few": state(5)[1:], "none": nil,
	} {
		if u, err := wholeState(small, 1, endpoints); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

func TestAMessageIsDecodedOnceForAllStreams(t *testing.T) {
	decoded := 0
	m := newMemo(func([]byte) (*update, error) {
		decoded++
		return &update{}, nil
	})
	first, _ := m.update([]byte("a"))
	again, _ := m.update([]byte("a"))
	other, _ := m.update([]byte("b"))
	if first != again || first == other || decoded != 2 {
		t.Errorf("%d times", decoded)
	}
}

func TestTheMemoIsBounded(t *testing.T) {
	m := newMemo(func([]byte) (*update, error) { return &update{}, nil })
	for n := range uint32(5 * generationMax) {
		m.update(binary.BigEndian.AppendUint32(nil, n))
	}
	if held := len(m.young) + len(m.old); held > 2*generationMax {
		t.Errorf("it holds %d", held)
	}
}
