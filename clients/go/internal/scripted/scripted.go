// Package scripted is a server that does what a test says: what the real one cannot be made to do on
// request.
package scripted

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Patience is how long a test waits for what must come. A machine under load is slow, not wrong.
const Patience = 30 * time.Second

// Server serves vmsvc.v1 on a port of loopback until it is stopped, or its test ends.
type Server struct {
	vmsvcv1.UnimplementedEndpointServiceServer

	Address string
	// Answer answers a unary call, by its request.
	Answer func(request any) (any, error)

	grpc    *grpc.Server
	scripts chan Script

	mu       sync.Mutex
	accepted string
}

// Script is what happens on a stream; it ends as the script does, with OK if that is nil.
type Script func(*Stream) error

// Sends is a stream that sends these, and stays until its client is gone.
func Sends(messages ...*vmsvcv1.WatchEndpointsResponse) Script {
	return func(s *Stream) error {
		if err := s.Send(messages...); err != nil {
			return err
		}
		return s.Stay()
	}
}

// Ends is a stream that sends these, and ends with err.
func Ends(err error, messages ...*vmsvcv1.WatchEndpointsResponse) Script {
	return func(s *Stream) error {
		if err := s.Send(messages...); err != nil {
			return err
		}
		return err
	}
}

// Stream is one call of WatchEndpoints, as the server sees it.
type Stream struct {
	Request *vmsvcv1.WatchEndpointsRequest

	stream grpc.ServerStreamingServer[vmsvcv1.WatchEndpointsResponse]
}

// Goroutines is how many there are once they stand still: what was closed may take a moment to end.
func Goroutines() int {
	now, still := runtime.NumGoroutine(), 0
	for still < 20 {
		time.Sleep(5 * time.Millisecond)
		before := now
		if now = runtime.NumGoroutine(); now == before {
			still++
		} else {
			still = 0
		}
	}
	return now
}

// MoreThan is how many goroutines there are if there are more than before for as long as a test waits,
// with where each of them is; nothing if they have ended.
func MoreThan(before int) string {
	for deadline := time.Now().Add(Patience); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			return fmt.Sprintf("%d goroutines, %d before:\n%s",
				runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ""
}

// Serve begins to, on a free port or on the address given.
func Serve(t testing.TB, address string, options ...grpc.ServerOption) *Server {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Address: listener.Addr().String(),
		scripts: make(chan Script, 1000),
		grpc:    grpc.NewServer(options...),
	}
	vmsvcv1.RegisterEndpointServiceServer(s.grpc, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.grpc.Serve(listener)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return s
}

// Stop breaks every connection off, and listens no more.
func (s *Server) Stop() { s.grpc.Stop() }

// Accept has calls show this token, and no other.
func (s *Server) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted = token
}

// Then has the next streams that clients open follow these scripts, one each. A stream for which there
// is none waits for it.
func (s *Server) Then(scripts ...Script) {
	for _, each := range scripts {
		s.scripts <- each
	}
}

// Revisions are the services that the stream's request names, each with the revision sent.
func (s *Stream) Revisions() map[string]string {
	revisions := map[string]string{}
	for _, each := range s.Request.GetServices() {
		revisions[each.GetService()] = each.GetRevision()
	}
	return revisions
}

// Send sends messages, and waits while the client takes none. An error says that it is gone.
func (s *Stream) Send(messages ...*vmsvcv1.WatchEndpointsResponse) error {
	for _, each := range messages {
		if err := s.stream.Send(each); err != nil {
			return err
		}
	}
	return nil
}

// Stay waits until the client is gone.
func (s *Stream) Stay() error {
	<-s.stream.Context().Done()
	return s.stream.Context().Err()
}

// WatchEndpoints is of the API.
func (s *Server) WatchEndpoints(
	request *vmsvcv1.WatchEndpointsRequest,
	stream grpc.ServerStreamingServer[vmsvcv1.WatchEndpointsResponse],
) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	select {
	case script := <-s.scripts:
		return script(&Stream{request, stream})
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// ResolveEndpoints is of the API.
func (s *Server) ResolveEndpoints(
	ctx context.Context, request *vmsvcv1.ResolveEndpointsRequest,
) (*vmsvcv1.ResolveEndpointsResponse, error) {
	return answer[*vmsvcv1.ResolveEndpointsResponse](ctx, s, request)
}

// ListServices is of the API.
func (s *Server) ListServices(
	ctx context.Context, request *vmsvcv1.ListServicesRequest,
) (*vmsvcv1.ListServicesResponse, error) {
	return answer[*vmsvcv1.ListServicesResponse](ctx, s, request)
}

// ExplainEndpoints is of the API.
func (s *Server) ExplainEndpoints(
	ctx context.Context, request *vmsvcv1.ExplainEndpointsRequest,
) (*vmsvcv1.ExplainEndpointsResponse, error) {
	return answer[*vmsvcv1.ExplainEndpointsResponse](ctx, s, request)
}

func answer[Response any](ctx context.Context, s *Server, request any) (Response, error) {
	var none Response
	if err := s.check(ctx); err != nil {
		return none, err
	}
	response, err := s.Answer(request)
	if err != nil {
		return none, err
	}
	return response.(Response), nil
}

func (s *Server) check(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), " and ")
	if s.accepted != "" && shown != "Bearer "+s.accepted {
		return status.Errorf(codes.Unauthenticated, "who are you? %q", shown)
	}
	return nil
}
