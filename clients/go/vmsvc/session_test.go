package vmsvc

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	start  = time.Unix(1_000_000, 0)
	policy = RetryPolicy{Initial: time.Second}.withDefaults()
)

func failed(code codes.Code) *Error { return failure("server:1", status.Error(code, "gone")) }

// complete is a session whose first stream is complete.
func complete(t *testing.T, scope Scope) *session {
	t.Helper()
	s := &session{state: newWatchState(scope), server: "server:1", retry: newRetry(policy)}
	s.state.begin()
	for _, each := range []message{snapshot(web, 1, "a"), synced()} {
		if err := s.receive(each, start); err != nil {
			t.Fatal(err)
		}
	}
	s.pending = nil
	return s
}

func TestLostStreamIsToldAndTheNextOneResumes(t *testing.T) {
	s := complete(t, one)
	gone := failed(codes.Unavailable)
	if err := s.ended(gone, start, 0.5); err != nil {
		t.Fatal(err)
	}
	if want := []Event{Disconnected{gone, 500 * time.Millisecond}}; !slices.Equal(s.pending, want) {
		t.Errorf("got %v", s.pending)
	}
	if s.retryAt != start.Add(500*time.Millisecond) || s.state.synced {
		t.Errorf("retry at %v, synced %v", s.retryAt, s.state.synced)
	}
	if got := asked(s.state.begin()); !maps.Equal(got, map[string]string{web: "a"}) {
		t.Errorf("asked for %q", got)
	}
}

func TestReaderThatHasLeftIsNotToldOfItsStreamLater(t *testing.T) {
	s := complete(t, Scope{Namespaces: []string{"shop"}})
	s.state.begin()
	if err := s.receive(synced(), start); err != nil {
		t.Fatal(err)
	}
	s.left()
	// That it is gone has not been told yet; that all is known was true of the stream before.
	if gone, ok := s.next().(ServiceState); !ok || gone.Service != web || gone.Present() {
		t.Errorf("got %v", gone)
	}
	if more := s.next(); more != nil || s.state.synced {
		t.Errorf("got %v, synced %v", more, s.state.synced)
	}
}

func TestWhatEndsAWatch(t *testing.T) {
	closed := &Error{Code: codes.Canceled, cause: ErrClosed}
	for _, test := range []struct {
		err   *Error
		final bool
	}{
		{failed(codes.InvalidArgument), true},
		{failed(codes.PermissionDenied), true},
		{failed(codes.Unauthenticated), true},
		{failed(codes.Unimplemented), true},
		{failed(codes.NotFound), true},
		{failed(codes.FailedPrecondition), true},
		{closed, true},
		{endedWithOK("server:1"), false},
		{failed(codes.Unavailable), false},
		{failed(codes.ResourceExhausted), false},
		{failed(codes.Canceled), false},
		{failed(codes.Internal), false},
		{violation(web, "?"), false},
	} {
		s := complete(t, one)
		err := s.ended(test.err, start, 0.5)
		if final := err != nil; final != test.final || final == (len(s.pending) == 1) {
			t.Errorf("%v: final %v, told %v", test.err.Code, final, texts(s.pending))
		}
	}
}

func TestViolationAsksForAllAnew(t *testing.T) {
	s := complete(t, shop)
	if err := s.ended(violation(web, "?"), start, 0.5); err != nil {
		t.Fatal(err)
	}
	if got := asked(s.state.begin()); len(got) != 0 {
		t.Errorf("asked for %q", got)
	}
}

func TestMoreServicesHeldThanARequestMayNameAreAskedForAnewAndOnce(t *testing.T) {
	s := complete(t, Scope{AllServices: true})
	if err := s.ended(failed(codes.Unavailable), start, 0); err != nil || len(s.state.begin().Services) != 1 {
		t.Fatal(err)
	}
	if err := s.ended(failed(codes.InvalidArgument), start, 0); err != nil || len(s.state.begin().Services) != 0 {
		t.Fatal(err)
	}
	if err := s.ended(failed(codes.InvalidArgument), start, 0); err == nil {
		t.Error("it is tried again")
	}
}

func TestTokenIsRenewedAtOnceAndOnce(t *testing.T) {
	s := complete(t, one)
	s.renewable = true
	expired := failed(codes.Unauthenticated)
	for range 2 {
		if err := s.ended(expired, start, 0.5); err != nil || s.retryAt != start {
			t.Fatalf("%v, retry at %v", err, s.retryAt)
		}
		s.state.begin()
		if err := s.receive(current(web, 1, "a"), start); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.ended(expired, start, 0.5); err != nil {
		t.Fatal(err)
	}
	if err := s.ended(expired, start, 0.5); err == nil {
		t.Error("a token that is no use is tried for ever")
	}
}

func TestDelays(t *testing.T) {
	second := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	asking := &Error{Code: codes.Unavailable, RetryAfter: second(3)}
	asksTooMuch := &Error{Code: codes.Unavailable, RetryAfter: time.Hour}
	asksForThePast := &Error{Code: codes.Unavailable, RetryAfter: -time.Hour}
	gone := failed(codes.Unavailable)
	for _, test := range []struct {
		name   string
		errors []*Error
		// How long the stream before the last failure was good; 0 if it was not.
		good time.Duration
		want float64
	}{
		{"the first is a part of the initial one", []*Error{gone}, 0, 0.5},
		{"it doubles", []*Error{gone, gone, gone}, 0, 2},
		{"up to a bound", slices.Repeat([]*Error{gone}, 2000), 0, 5},
		{"a stream that was good resets it", []*Error{gone, gone, gone}, second(10), 0.5},
		{"one that was good for a moment does not", []*Error{gone, gone, gone}, second(9), 2},
		{"what the server asks for comes first", []*Error{asking}, 0, 3.5},
		{"up to a bound, too", []*Error{asksTooMuch}, 0, 60.5},
		{"and not before now", []*Error{asksForThePast}, 0, 0.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRetry(policy)
			now, got := start, time.Duration(0)
			for i, err := range test.errors {
				if i == len(test.errors)-1 && test.good > 0 {
					r.synced(now)
					now = now.Add(test.good)
				}
				got = r.delay(err, now, 0.5)
			}
			if math.Abs(got.Seconds()-test.want) > 1e-9 {
				t.Errorf("got %v, want %v s", got, test.want)
			}
		})
	}
}

func TestDelaysWithoutABoundStayDelays(t *testing.T) {
	r := newRetry(RetryPolicy{Max: math.MaxInt64}.withDefaults())
	for range 100 {
		if got := r.delay(failed(codes.Unavailable), start, 0.5); got <= 0 {
			t.Fatalf("got %v", got)
		}
	}
}
