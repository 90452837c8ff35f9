package vmsvc

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Event is what a watch yields: a [ServiceState] after a change, or [Synced] or [Disconnected], which
// say whether states are up to date.
type Event interface{ event() }

// Synced says that all states are up to date: every service of the watch has been answered.
type Synced struct{}

// Disconnected says that the stream is lost. The states stay, and may be out of date until Synced. The
// next stream is opened RetryIn from now.
type Disconnected struct {
	Err     *Error
	RetryIn time.Duration
}

func (ServiceState) event() {}
func (Synced) event()       {}
func (Disconnected) event() {}

// session is one watch over all its streams, without I/O: what to ask, what to yield, when to retry.
type session struct {
	state *watchState
	// pending are the events not yet yielded, in order.
	pending []Event
	// retryAt is when the next stream may be opened.
	retryAt time.Time
	server  string
	retry   retry
	// renewable: the next stream may be opened with another token than the last one; renewed: that is
	// so by now, and nothing has come since.
	renewable, renewed bool
}

// next takes the next event that is pending; nil if none is.
func (s *session) next() Event {
	if len(s.pending) == 0 {
		return nil
	}
	event := s.pending[0]
	s.pending = s.pending[1:]
	return event
}

// receive takes in a message. Give the stream up if it returns an error.
func (s *session) receive(message *vmsvcv1.WatchEndpointsResponse, now time.Time) *Error {
	s.renewed = false
	events, err := s.state.receive(message)
	if err != nil {
		return err
	}
	s.pending = append(s.pending, events...)
	if s.state.synced {
		s.retry.synced(now)
	}
	return nil
}

// ended is for a stream that ended with err. It returns err where trying again cannot help. chance is
// uniform in [0, 1).
func (s *session) ended(err *Error, now time.Time, chance float64) error {
	if err.Code == codes.Unauthenticated && s.renewable && !s.renewed {
		// It has expired, or been replaced: try at once, and once, with the one of now.
		s.renewed = true
		s.state.lost(true)
		s.retryAt = now
		s.pending = append(s.pending, Disconnected{err, 0})
		return nil
	}
	// More services may be held than a request may name: ask for all anew.
	namesTooMany := err.Code == codes.InvalidArgument && s.state.canAskLess()
	if (final(err.Code) || errors.Is(err, ErrClosed)) && !namesTooMany {
		s.state.lost(true)
		return err
	}
	s.state.lost(!namesTooMany && !err.protocol)
	delay := s.retry.delay(err, now, chance)
	s.retryAt = now.Add(delay)
	s.pending = append(s.pending, Disconnected{err, delay})
	return nil
}

// left is for a reader that has left, and its stream with it. States that are pending stay so, as the
// next stream does not repeat them; what is pending of the stream itself is not true any more.
func (s *session) left() {
	s.state.lost(true)
	s.pending = slices.DeleteFunc(s.pending, func(event Event) bool {
		_, state := event.(ServiceState)
		return !state
	})
}
