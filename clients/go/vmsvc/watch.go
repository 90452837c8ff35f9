package vmsvc

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Watch follows services, and reconnects for ever. Read it by [Watch.States] or [Watch.Events], by one
// loop at a time; Held and Synced may be asked by anybody meanwhile.
//
// It yields a service's state when it is first known and after each change, but not after a reconnect
// that changed nothing. It reads from the server only when its reader asks, so that a slow reader gets
// the newest state and not each one in between. It needs no goroutine of its own.
//
// Leaving the loop ends the stream; reading on resumes it, and repeats nothing that is still true.
type Watch struct {
	client  *Client
	reading sync.Mutex

	mu      sync.Mutex
	session session
}

// Held is the newest state of each service, by name; kept while there is no connection. It is a copy, made
// at each call: of a watch of many services, read the events instead.
func (w *Watch) Held() map[string]ServiceState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.session.state.held)
}

// Synced says whether Held is complete and up to date, as far as it has been read.
func (w *Watch) Synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session.state.synced
}

// States yields each service's state, at first and after each change. An error is the last that it
// yields: that of ctx once it is done, [ErrClosed], or an [*Error] where trying again cannot help
// (InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented).
func (w *Watch) States(ctx context.Context) iter.Seq2[ServiceState, error] {
	return func(yield func(ServiceState, error) bool) {
		for event, err := range w.Events(ctx) {
			if err != nil {
				yield(ServiceState{}, err)
				return
			}
			if state, ok := event.(ServiceState); ok && !yield(state, nil) {
				return
			}
		}
	}
}

// Events yields the same states, and between them [Synced] and [Disconnected].
func (w *Watch) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !w.reading.TryLock() {
			yield(nil, errors.New("the watch is being read already"))
			return
		}
		defer w.reading.Unlock()
		defer w.locked(w.session.left)
		w.follow(ctx, yield)
	}
}

// errLeft says that the reader has left its loop.
var errLeft = errors.New("the reader has left")

func (w *Watch) follow(ctx context.Context, yield func(Event, error) bool) {
	for w.yieldPending(yield) {
		err := w.await(ctx)
		if err == nil {
			if err = w.stream(ctx, yield); err == errLeft {
				return
			}
			err = w.ended(ctx, err)
		}
		if err != nil {
			yield(nil, err)
			return
		}
	}
}

// await waits until the next stream may be opened. Its error is that of ctx.
func (w *Watch) await(ctx context.Context) error {
	timer := time.NewTimer(time.Until(w.session.retryAt))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.client.closed: // The next stream fails at once, and says so.
	case <-timer.C:
	}
	return context.Cause(ctx)
}

// stream opens one and reads it to its end; it returns how that was, or errLeft.
func (w *Watch) stream(ctx context.Context, yield func(Event, error) bool) error {
	// gRPC keeps a stream until its context is done.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var request *vmsvcv1.WatchEndpointsRequest
	w.locked(func() { request = w.session.state.begin() })
	stream, err := w.client.stub.WatchEndpoints(ctx, request)
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		var broken *Error
		w.locked(func() { broken = w.session.receive(message, time.Now()) })
		if broken != nil {
			return broken
		}
		if !w.yieldPending(yield) {
			return errLeft
		}
	}
}

// ended is for a stream that ended with err; it returns why there is no next one.
func (w *Watch) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var told *Error
	if !errors.As(err, &told) {
		if errors.Is(err, io.EOF) {
			told = endedWithOK(w.client.server)
		} else {
			told = w.client.failure(err)
		}
	}
	w.locked(func() { err = w.session.ended(told, time.Now(), rand.Float64()) })
	return err
}

// yieldPending yields the events that there are; false if the reader has left.
func (w *Watch) yieldPending(yield func(Event, error) bool) bool {
	for {
		var event Event
		w.locked(func() { event = w.session.next() })
		if event == nil {
			return true
		}
		if !yield(event, nil) {
			return false
		}
	}
}

func (w *Watch) locked(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}
