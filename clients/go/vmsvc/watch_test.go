package vmsvc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/scripted"
	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/serving"
)

var atOnce = RetryPolicy{Initial: 20 * time.Millisecond, Max: 100 * time.Millisecond}

// reader reads a watch event by event, as a test goes on.
type reader struct {
	t    *testing.T
	next func() (Event, error, bool)
	stop func()
}

func read(t *testing.T, ctx context.Context, watch *Watch) *reader {
	t.Helper()
	next, stop := iter.Pull2(watch.Events(ctx))
	t.Cleanup(stop)
	return &reader{t, next, stop}
}

func (r *reader) event() Event {
	r.t.Helper()
	event, err, ok := r.next()
	if !ok || err != nil {
		r.t.Fatalf("the watch ended: %v", err)
	}
	return event
}

// want reads as many events as are wanted.
func (r *reader) want(all ...string) {
	r.t.Helper()
	for _, want := range all {
		if got := text(r.event()); got != want {
			r.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// ending reads on to the watch's error, which is the last that it yields.
func (r *reader) ending() error {
	r.t.Helper()
	for {
		if _, err, ok := r.next(); err != nil {
			if _, _, more := r.next(); more {
				r.t.Fatal("it goes on after an error")
			}
			return err
		} else if !ok {
			r.t.Fatal("it ended without an error")
		}
	}
}

// bounded is for all that a test does, several starts of the server included.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*scripted.Patience)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, config Config) *Client {
	t.Helper()
	if config.Retry == (RetryPolicy{}) {
		config.Retry = atOnce
	}
	made, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

// asking is a script that is played once the stream's request is seen to have these revisions.
func asking(t *testing.T, want map[string]string, then scripted.Script) scripted.Script {
	return func(s *scripted.Stream) error {
		if got := s.Revisions(); !maps.Equal(got, want) {
			t.Errorf("asked for %q, want %q", got, want)
		}
		return then(s)
	}
}

func TestWatchResumesAStreamThatIsLost(t *testing.T) {
	server := scripted.Serve(t, "")
	watch := client(t, Config{Server: server.Address}).Watch(shop)
	events := read(t, bounded(t), watch)
	server.Then(scripted.Sends(snapshot(web, 1, "a"), snapshot(db, 2, "b"), synced()))
	events.want("shop/web a", "shop/db b", "synced")
	if !watch.Synced() {
		t.Error("it is synced")
	}

	server.Stop()
	events.want("disconnected Unavailable")
	if held := watch.Held(); len(held) != 2 || watch.Synced() {
		t.Errorf("held %v, synced %v", held, watch.Synced())
	}
	again := scripted.Serve(t, server.Address)
	again.Then(asking(t, map[string]string{web: "a", db: "b"},
		scripted.Sends(current(web, 9, "a"), synced(), delta(web, 10, "+c"))))
	if got := text(events.reconnected()); got != "shop/db NOT_FOUND" {
		t.Errorf("got %q", got)
	}
	events.want("synced", "shop/web a c")
}

// reconnected is the next event of a stream: there may have been tries before the server was there.
func (r *reader) reconnected() Event {
	r.t.Helper()
	for {
		event := r.event()
		if told, ok := event.(Disconnected); !ok || told.Err.Code != codes.Unavailable {
			return event
		}
	}
}

func TestStreamThatEndsIsToldWithItsReason(t *testing.T) {
	asksToWait, err := status.New(codes.ResourceExhausted, "too many streams").WithDetails(
		&errdetails.RetryInfo{RetryDelay: durationpb.New(50 * time.Millisecond)},
	)
	if err != nil {
		t.Fatal(err)
	}
	server := scripted.Serve(t, "")
	server.Then(
		scripted.Ends(asksToWait.Err()),
		scripted.Ends(nil),
		scripted.Sends(delta(web, 2, "+a")), // Of nothing: our client ends this one.
		scripted.Sends(snapshot(web, 1, "a"), synced()),
	)
	events := read(t, bounded(t), client(t, Config{Server: server.Address}).Watch(one))
	told := events.event().(Disconnected)
	if told.Err.Code != codes.ResourceExhausted || told.RetryIn < 50*time.Millisecond ||
		!strings.HasSuffix(told.Err.Error(), "too many streams") {
		t.Errorf("got %+v", told)
	}
	events.want("disconnected OK", "disconnected Internal", "shop/web a", "synced")
}

func TestErrorThatEndsAWatch(t *testing.T) {
	for _, code := range []codes.Code{
		codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented,
	} {
		t.Run(code.String(), func(t *testing.T) {
			server := scripted.Serve(t, "")
			server.Then(
				scripted.Ends(status.Error(code, "no"), snapshot(web, 1, "a"), synced()),
				asking(t, map[string]string{web: "a"}, scripted.Sends(current(web, 1, "a"), synced())),
			)
			watch := client(t, Config{Server: server.Address}).Watch(one)
			events := read(t, bounded(t), watch)
			events.want("shop/web a", "synced")
			var told *Error
			if err := events.ending(); !errors.As(err, &told) || told.Code != code {
				t.Errorf("got %v", err)
			}
			// Rights may be granted: whoever reads on resumes.
			read(t, bounded(t), watch).want("synced")
		})
	}
}

func TestLeavingTheLoopEndsTheStreamAndReadingOnResumes(t *testing.T) {
	over := make(chan error, 1)
	server := scripted.Serve(t, "")
	server.Then(
		func(s *scripted.Stream) error {
			err := scripted.Sends(snapshot(web, 1, "a"), snapshot(db, 2), synced())(s)
			over <- err
			return err
		},
		asking(t, map[string]string{web: "a"},
			scripted.Sends(current(web, 1, "a"), snapshot(db, 2), synced())),
	)
	watch := client(t, Config{Server: server.Address}).Watch(shop)
	ctx := bounded(t)
	for state, err := range watch.States(ctx) {
		if err != nil || text(state) != "shop/web a" {
			t.Fatal(state, err)
		}
		for _, err := range watch.States(ctx) {
			if err == nil {
				t.Error("two loops read at once")
			}
		}
		break
	}
	if err := <-over; err == nil {
		t.Error("the stream goes on")
	}
	read(t, ctx, watch).want("shop/db", "synced")
}

func TestWatchEndsWithItsContextAndWithItsClient(t *testing.T) {
	because := errors.New("enough")
	for _, test := range []struct {
		name string
		lost bool
		end  func(context.CancelCauseFunc, *Client)
		want error
	}{
		{"the context, on a stream", false,
			func(cancel context.CancelCauseFunc, _ *Client) { cancel(because) }, because},
		{"the context, while it waits for the next one", true,
			func(cancel context.CancelCauseFunc, _ *Client) { cancel(because) }, because},
		{"the client, on a stream", false,
			func(_ context.CancelCauseFunc, c *Client) { _ = c.Close() }, ErrClosed},
		{"the client, while it waits for the next one", true,
			func(_ context.CancelCauseFunc, c *Client) { _ = c.Close() }, ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := scripted.Serve(t, "")
			config := Config{Server: server.Address, Retry: RetryPolicy{Initial: time.Hour, Max: time.Hour}}
			asked := client(t, config)
			ctx, cancel := context.WithCancelCause(bounded(t))
			defer cancel(nil)
			events := read(t, ctx, asked.Watch(one))
			if test.lost {
				server.Then(scripted.Ends(nil, synced()))
				events.want("synced", "disconnected OK")
			} else {
				server.Then(scripted.Sends(synced()))
				events.want("synced")
			}
			test.end(cancel, asked)
			if err := events.ending(); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestNothingIsLeftOfWatchesThatWereLeftNorOfClientsThatAreClosed(t *testing.T) {
	server := scripted.Serve(t, "")
	ctx := bounded(t)
	look := func(asked *Client) {
		server.Then(scripted.Sends(synced()))
		for event, err := range asked.Watch(one).Events(ctx) {
			if err != nil || event != (Synced{}) {
				t.Fatal(event, err)
			}
			break
		}
	}
	without := scripted.Goroutines()
	asked := client(t, Config{Server: server.Address})
	look(asked)
	with := scripted.Goroutines()
	for range 20 {
		look(asked)
	}
	if left := scripted.MoreThan(with); left != "" {
		t.Error(left)
	}
	_ = asked.Close()
	if left := scripted.MoreThan(without); left != "" {
		t.Error(left)
	}
}

func TestSlowReaderLeavesMostWithTheServer(t *testing.T) {
	const many = 20_000
	var sent atomic.Int64
	over := make(chan struct{})
	server := scripted.Serve(t, "")
	server.Then(func(s *scripted.Stream) error {
		defer close(over)
		for version := range uint64(many) {
			if err := s.Send(snapshot(web, version+1, fmt.Sprint("10.0.0.", version%250))); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	})
	events := read(t, bounded(t), client(t, Config{Server: server.Address}).Watch(one))
	events.event()
	// Until it stands still, as nobody reads.
	for last := int64(-1); last != sent.Load(); time.Sleep(300 * time.Millisecond) {
		last = sent.Load()
	}
	// Some 90 bytes each: a window here, and as much on the server's way out.
	if got := sent.Load(); got > many/8 {
		t.Errorf("a reader that stalls has taken %d of %d messages", got, many)
	}
	events.stop()
	<-over
}

func TestTokenIsReadAnewWhenItIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := scripted.Serve(t, "")
	server.Accept("first")
	write("first")
	// The token expires on the stream, whose end says so. By then there is another.
	expired := status.Error(codes.Unauthenticated, "the token has expired")
	next := make(chan string)
	expires := func(messages ...message) scripted.Script {
		return func(s *scripted.Stream) error {
			if err := s.Send(messages...); err != nil {
				return err
			}
			server.Accept(<-next)
			return expired
		}
	}
	server.Then(
		expires(snapshot(web, 1, "a"), synced()),
		asking(t, map[string]string{web: "a"}, expires(current(web, 1, "a"), synced())),
	)
	events := read(t, bounded(t), client(t, Config{Server: server.Address, Token: TokenFile(file)}).Watch(one))
	events.want("shop/web a", "synced")
	write("second")
	next <- "second"
	if told := events.event().(Disconnected); told.RetryIn != 0 {
		t.Errorf("it waits %v", told.RetryIn)
	}
	events.want("synced")
	next <- "third"
	events.want("disconnected Unauthenticated")
	if err := events.ending(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

// The real server from here on.

func TestWatchOfTheRealServer(t *testing.T) {
	manifests := t.TempDir()
	serving.Write(t, manifests, "web", serving.Service("http:80:8080"))
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "10.0.0.1", Zone: "z"}.Manifest())
	address := serving.Free(t)
	server := serving.Start(t, manifests, address)
	watch := client(t, Config{Server: address}).Watch(Scope{Services: []string{web, db}, Readiness: All})
	events := read(t, bounded(t), watch)
	first := []Event{events.event(), events.event(), events.event()}
	if first[2] != (Synced{}) {
		t.Errorf("got %q", texts(first))
	}
	held := watch.Held()
	if got := text(held[web]) + ", " + text(held[db]); got != "shop/web 10.0.0.1, shop/db NOT_FOUND" {
		t.Errorf("held %s", got)
	}
	want := Endpoint{Address: "10.0.0.1", Ready: true, VMName: "a", VMUID: "uid-a", Zone: "z"}
	if got := held[web].Endpoints; len(got) != 1 || got[0] != want {
		t.Errorf("got %v", got)
	}
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "10.0.0.2", NotReady: true}.Manifest())
	events.want("shop/web 10.0.0.1 (10.0.0.2)")
	// A server that comes back with the same has nothing to tell.
	server.Stop(t)
	events.want("disconnected Unavailable")
	serving.Start(t, manifests, address)
	if event := events.reconnected(); event != (Synced{}) {
		t.Errorf("got %q", text(event))
	}
	serving.Remove(t, manifests, "web")
	events.want("shop/web NOT_FOUND")
	serving.Write(t, manifests, "web", serving.Service("http:80:8080"))
	events.want("shop/web 10.0.0.1 (10.0.0.2)")
}
