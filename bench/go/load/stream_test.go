package main

import (
	"reflect"
	"testing"

	"vmsvc-grpc/bench/go/internal/dataset"
)

// snapshot and delta are what a right server says of service 0; a delta leads from the step
// before, or from an earlier one.
func snapshot(step uint32) *update {
	u, err := wholeState(small, 0, state(step))
	if err != nil {
		panic(err)
	}
	return u
}

func delta(steps ...uint32) *update {
	u := &update{kind: change}
	for _, step := range steps {
		_, e := small.At(small.Seq(0, dataset.Endpoint{Step: step}))
		u.removed = append(u.removed, small.Latest(e.VM, step-1))
		u.set = append(u.set, e)
		u.step = step
	}
	return u
}

func TestWhatAStreamHoldsAndCounts(t *testing.T) {
	removed := delta(2)
	removed.set, removed.step = nil, 0
	for name, c := range map[string]struct {
		told     []*update
		expected measured
		holds    int // The step of the state that it holds then; -1 if of none.
	}{
		"each change": {
			told:     []*update{snapshot(0), delta(1), delta(2)},
			expected: measured{arrivals: []arrival{{1, 1, 0}, {2, 2, 0}}},
			holds:    2,
		},
		"the first state, whatever it is, is no change": {
			told:  []*update{snapshot(7)},
			holds: 7,
		},
		"a later state instead of changes": {
			told:     []*update{snapshot(0), delta(1), snapshot(5), delta(6)},
			expected: measured{arrivals: []arrival{{1, 1, 0}, {2, 5, 0}, {6, 6, 0}}},
			holds:    6,
		},
		"one delta for several changes": {
			told:     []*update{snapshot(0), delta(1, 2)},
			expected: measured{arrivals: []arrival{{1, 2, 0}}},
			holds:    2,
		},
		"the same state again": {
			told:  []*update{snapshot(4), snapshot(4), {kind: same}},
			holds: 4,
		},
		"a delta is missing": {
			told:     []*update{snapshot(0), delta(2)},
			expected: measured{lost: 1, arrivals: []arrival{{1, 2, 0}}},
			holds:    -1,
		},
		"a delta is missing, and what it held was replaced since": {
			told:     []*update{snapshot(0), delta(2), delta(3), delta(4)},
			expected: measured{lost: 1, arrivals: []arrival{{1, 2, 0}, {3, 3, 0}, {4, 4, 0}}},
			holds:    4,
		},
		"an older endpoint": {
			told:     []*update{snapshot(4), delta(1)},
			expected: measured{outOfOrder: 1},
			holds:    3,
		},
		"an older state": {
			told:     []*update{snapshot(4), snapshot(2)},
			expected: measured{outOfOrder: 2},
			holds:    2,
		},
		"an endpoint that is gone": {
			told:  []*update{snapshot(1), removed},
			holds: -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &stream{}
			for _, u := range c.told {
				if err := s.apply(u, 0); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(s.measured, c.expected) {
				t.Errorf("%+v and not %+v", s.measured, c.expected)
			}
			for step := range uint32(10) {
				if holds := int(step) == c.holds; s.holds(small, step) != holds {
					t.Errorf("it holds step %d: %v", step, !holds)
				}
			}
		})
	}
}

func TestAnUpdateOfWhatAStreamDoesNotHoldIsRefused(t *testing.T) {
	for name, told := range map[string][]*update{
		"a delta first":    {delta(1)},
		"current first":    {{kind: same}},
		"another revision": {snapshot(0), {kind: same, revision: "other"}},
		"another service":  {{kind: whole, service: 1, set: state(0)}},
	} {
		s := &stream{}
		var err error
		for _, u := range told {
			err = s.apply(u, 0)
		}
		if err == nil {
			t.Errorf("%s is not", name)
		}
	}
}
