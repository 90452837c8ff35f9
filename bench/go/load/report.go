package main

import (
	"fmt"
	"math"
	"slices"
	"syscall"

	"vmsvc-grpc/bench/go/internal/dataset"
)

// report is the answer to report: what came since the last mark.
type report struct {
	Event string `json:"event"`
	// Everything that was received.
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
	// Messages that brought a change to a stream; and pairs of a stream and a change that it
	// was never told, as something newer came instead. Together, with those that are behind,
	// all pairs there are.
	Deliveries int `json:"deliveries"`
	Skipped    int `json:"skipped"`
	// From when a change was applied until a stream was told of it.
	DeliveryMS spread `json:"delivery_ms"`
	// The same, from the first of the changes that a message covers: how old was what the
	// stream held. More than the above where changes are skipped.
	LagMS spread `json:"lag_ms"`
	// From when a change was applied until the last of those streams that were told of it was.
	LastStreamMS spread `json:"last_stream_ms"`
	// What must not be: endpoints older than what the stream had been told of the same VM,
	// changes that a delta passed over, and streams of which the state is not the data set's.
	OutOfOrder int            `json:"out_of_order"`
	Lost       int            `json:"lost"`
	WrongState int            `json:"wrong_state"`
	Ended      map[string]int `json:"ended"`
	CPUS       float64        `json:"cpu_s"`
}

// spread is how times are spread, in milliseconds; null where there are none.
type spread struct {
	P50 *float64 `json:"p50"`
	P90 *float64 `json:"p90"`
	P99 *float64 `json:"p99"`
	Max *float64 `json:"max"`
}

// report measures the deliveries of some changes, of which the first has the seq `first`, from
// when each was applied. All changes before them have been made, and none after.
func (c *client) report(first uint32, applied []int64) (*report, error) {
	if first < c.set.FirstChange() {
		return nil, fmt.Errorf("seq %d is not that of a change", first)
	}
	r := &report{Event: "report", Ended: map[string]int{}, CPUS: cpuSeconds() - c.cpuMarked}
	d := deliveries{set: c.set, first: first, applied: applied, last: make([]int64, len(applied))}
	for _, s := range c.streams {
		s.mu.Lock()
		r.Messages += s.measured.messages
		r.Bytes += s.measured.bytes
		r.OutOfOrder += s.measured.outOfOrder
		r.Lost += s.measured.lost
		if s.opening.ended != "" {
			r.Ended[s.opening.ended]++
		}
		if c.reads(s) && !s.holds(c.set, d.end(s.service)) {
			r.WrongState++
		}
		for _, a := range s.measured.arrivals {
			d.add(s.service, a)
		}
		s.mu.Unlock()
	}
	r.Deliveries, r.Skipped = len(d.delays), d.skipped
	r.DeliveryMS, r.LagMS = spreadOf(d.delays), spreadOf(d.lags)
	told := slices.DeleteFunc(d.last, func(delay int64) bool { return delay == 0 })
	r.LastStreamMS = spreadOf(told)
	return r, nil
}

// deliveries is what came of some changes. Times are in nanoseconds.
type deliveries struct {
	set     dataset.Set
	first   uint32  // The seq of the first change.
	applied []int64 // When each was applied.

	delays, lags []int64
	last         []int64 // Of each change, the longest delay; 0 if no stream was told of it.
	skipped      int
}

// end is the step of a service after the changes.
func (d *deliveries) end(service int) uint32 {
	return d.set.StepBefore(service, d.first+uint32(len(d.applied)))
}

// add counts an arrival at a stream of a service, as far as it covers the changes.
func (d *deliveries) add(service int, a arrival) {
	from := max(a.first, d.set.StepBefore(service, d.first)+1)
	if to := min(a.last, d.end(service)); from > to {
		return
	} else if to < a.last {
		d.skipped += int(to - from + 1)
		return
	}
	d.skipped += int(a.last - from)
	told := d.change(service, a.last)
	delay := max(1, a.at-d.applied[told])
	d.delays = append(d.delays, delay)
	d.lags = append(d.lags, max(1, a.at-d.applied[d.change(service, from)]))
	d.last[told] = max(d.last[told], delay)
}

func (d *deliveries) change(service int, step uint32) int {
	return int(d.set.Seq(service, dataset.Endpoint{Step: step}) - d.first)
}

// holds tells whether the stream's state is that of a step. Its lock is held.
func (s *stream) holds(set dataset.Set, step uint32) bool {
	for vm, held := range s.held {
		if held != set.Latest(vm, step).Step {
			return false
		}
	}
	return s.held != nil
}

func spreadOf(ns []int64) spread {
	of := percentiles(ns)
	return spread{of(50), of(90), of(99), of(100)}
}

// percentiles gives those of some nanoseconds, which it sorts, in milliseconds: the least that
// so many percent do not exceed. Nil if there are none.
func percentiles(ns []int64) func(percent float64) *float64 {
	slices.Sort(ns)
	return func(percent float64) *float64 {
		if len(ns) == 0 {
			return nil
		}
		rank := int(math.Ceil(percent / 100 * float64(len(ns))))
		ms := float64(ns[max(rank, 1)-1]) / 1e6
		return &ms
	}
}

// cpuSeconds is what this process has used so far, in user and kernel mode.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // It cannot fail for the process itself.
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
