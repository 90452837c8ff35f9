package main

import (
	"reflect"
	"testing"
)

func TestWhatArrivalsSayOfChanges(t *testing.T) {
	// Changes 10 to 15 of both services: steps 3 to 5 of each, applied 100 ns apart.
	applied := []int64{1000, 1100, 1200, 1300, 1400, 1500}
	first := small.FirstChange() + 4
	for name, c := range map[string]struct {
		service  int
		arrivals []arrival
		expected deliveries
	}{
		"each is told": {
			service:  1,
			arrivals: []arrival{{3, 3, 1110}, {4, 4, 1320}, {5, 5, 1530}},
			expected: deliveries{
				delays: []int64{10, 20, 30}, lags: []int64{10, 20, 30},
				last: []int64{0, 10, 0, 20, 0, 30},
			},
		},
		"the last stands for all": {
			arrivals: []arrival{{3, 5, 1407}},
			expected: deliveries{
				delays: []int64{7}, lags: []int64{407}, last: []int64{0, 0, 0, 0, 7, 0}, skipped: 2,
			},
		},
		"the last of two streams counts": {
			arrivals: []arrival{{3, 3, 1050}, {3, 3, 1020}},
			expected: deliveries{
				delays: []int64{50, 20}, lags: []int64{50, 20}, last: []int64{50, 0, 0, 0, 0, 0},
			},
		},
		"those before are not asked for": {
			arrivals: []arrival{{1, 2, 500}, {1, 3, 1001}},
			expected: deliveries{
				delays: []int64{1}, lags: []int64{1}, last: []int64{1, 0, 0, 0, 0, 0},
			},
		},
		"those after only tell what was skipped": {
			arrivals: []arrival{{5, 7, 2000}, {8, 8, 2100}},
			expected: deliveries{last: make([]int64, 6), skipped: 1},
		},
	} {
		d := deliveries{set: small, first: first, applied: applied, last: make([]int64, len(applied))}
		for _, a := range c.arrivals {
			d.add(c.service, a)
		}
		c.expected.set, c.expected.first, c.expected.applied = small, first, applied
		if !reflect.DeepEqual(d, c.expected) {
			t.Errorf("%s: %+v and not %+v", name, d, c.expected)
		}
	}
}

func TestPercentilesAreOfTheTimesThemselves(t *testing.T) {
	of := percentiles([]int64{4e6, 1e6, 3e6, 2e6})
	for percent, expected := range map[float64]float64{0: 1, 50: 2, 51: 3, 75: 3, 99: 4, 100: 4} {
		if ms := of(percent); *ms != expected {
			t.Errorf("p%v is %v and not %v", percent, *ms, expected)
		}
	}
	if percentiles(nil)(50) != nil {
		t.Error("there are some of nothing")
	}
}
