package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"vmsvc-grpc/bench/go/internal/rawcodec"
)

// gone marks an endpoint that was removed, beside the step that it had.
const gone = 1 << 31

// Between two tries to open a stream: a random time, below one that doubles with each try.
const (
	backoffFirst = 50 * time.Millisecond
	backoffMax   = time.Second
)

// stream is one call at a time, and what it was told. It holds a copy of the state, as the
// steps of the endpoints, so that thousands cost little.
type stream struct {
	service int
	stalls  bool // It reads the first answers, and no more until all are resumed.

	mu       sync.Mutex
	held     []uint32 // The step of each VM's endpoint; nil before the first state.
	step     uint32   // The newest that it was told.
	revision string
	opening  opening
	measured measured
}

// opening is how it went to open a stream.
type opening struct {
	ready  time.Time // When the first answers were complete; zero if they are not.
	errors []string  // Of each try that failed.
	ended  string    // Why it ended after it was ready; empty if it has not.
}

// measured is what came since the last mark.
type measured struct {
	messages, bytes int
	outOfOrder      int // Endpoints that were older than what the stream had been told before.
	lost            int // Changes that a delta passed over.
	arrivals        []arrival
}

// arrival is a message that brought a stream to a later step.
type arrival struct {
	first, last uint32 // The steps that it covers: those between are told by the last alone.
	at          int64  // Unix nanoseconds.
}

// run opens the stream on a connection and follows it until it ends. What fails before the
// first answers is tried again. `opened` is called once: when the first answers are complete,
// or when `ctx` ends before that.
func (s *stream) run(ctx context.Context, c *client, conn *grpc.ClientConn, opened func()) {
	opened = sync.OnceFunc(opened)
	defer opened()
	for backoff := backoffFirst; ; backoff = min(2*backoff, backoffMax) {
		err := s.follow(ctx, c, conn, opened)
		if ctx.Err() != nil || s.ended(err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(backoff)):
		}
	}
}

// ended notes why a call ended, and tells whether the stream has with it.
func (s *stream) ended(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opening.ready.IsZero() {
		s.opening.errors = append(s.opening.errors, text(err))
		return false
	}
	s.opening.ended = text(err)
	return true
}

// over tells whether the stream has ended for good.
func (s *stream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opening.ended != ""
}

// follow is one call: it returns when that ends.
func (s *stream) follow(
	ctx context.Context, c *client, conn *grpc.ClientConn, opened func(),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	method, desc := c.protocol.call()
	call, err := conn.NewStream(ctx, &desc, method, grpc.ForceCodecV2(rawcodec.Codec{}))
	if err != nil {
		return err
	}
	if err := send(call, c.protocol.request(s.service, s.offered(c.resuming))); err != nil {
		return err
	}
	for {
		told, answer, err := s.receive(c.protocol, call)
		if err != nil {
			return err
		}
		if answer != nil {
			if err := send(call, answer); err != nil {
				return err
			}
		}
		if told != nil && c.protocol.completes(told) {
			opened()
			if s.stalls && !c.stall(ctx) {
				return ctx.Err()
			}
		}
	}
}

// offered is the revision to send: the one held if the stream resumes.
func (s *stream) offered(resuming bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !resuming {
		return ""
	}
	return s.revision
}

// send leaves it to the next receive to say why the call has ended, if it has.
func send(call grpc.ClientStream, message []byte) error {
	if err := call.SendMsg(message); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receive waits for a message and takes in what it says.
func (s *stream) receive(p protocol, call grpc.ClientStream) (*update, []byte, error) {
	var message mem.Buffer
	if err := call.RecvMsg(&message); err != nil {
		return nil, nil, err
	}
	at := time.Now()
	defer message.Free()
	return s.take(p, message.ReadOnlyData(), at)
}

// take takes in what a message says that came at a time. The message is not kept.
func (s *stream) take(p protocol, message []byte, at time.Time) (*update, []byte, error) {
	told, answer, err := p.read(s.service, message)
	if err != nil {
		return nil, nil, fmt.Errorf("not of the data set: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measured.messages++
	s.measured.bytes += len(message)
	if told == nil {
		return nil, answer, nil
	}
	if p.completes(told) && s.opening.ready.IsZero() {
		s.opening.ready = at
	}
	return told, answer, s.apply(told, at.UnixNano())
}

// apply brings the state held up to date. An error if the update does not belong to it.
func (s *stream) apply(u *update, at int64) error {
	if u.kind == synced {
		return nil
	}
	if u.service != s.service {
		return fmt.Errorf("an update of service %d to the stream of %d", u.service, s.service)
	}
	before := s.step
	switch {
	case u.kind == same && u.revision == s.revision && s.held != nil:
		return nil
	case u.kind == whole:
		if s.held == nil {
			s.held, before = make([]uint32, len(u.set)), u.step
		}
	case u.kind == change && s.held != nil:
		s.remove(u)
		if u.step > s.step {
			s.measured.lost += max(0, min(int(u.step-s.step), len(s.held))-len(u.set))
		}
	default:
		return errors.New("an update of a state that the stream does not hold")
	}
	for _, e := range u.set {
		if e.Step < s.held[e.VM]&^gone {
			s.measured.outOfOrder++
		}
		s.held[e.VM] = e.Step
	}
	s.revision, s.step = u.revision, max(s.step, u.step)
	if u.step > before {
		s.measured.arrivals = append(s.measured.arrivals, arrival{before + 1, u.step, at})
	}
	return nil
}

func (s *stream) remove(u *update) {
	for _, e := range u.removed {
		if s.held[e.VM] == e.Step {
			s.held[e.VM] |= gone
		}
	}
}
