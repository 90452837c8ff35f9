package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"vmsvc-grpc/bench/go/internal/dataset"
)

// settlePoll is how often it is looked whether the streams have settled.
const settlePoll = 5 * time.Millisecond

// client is all streams, on their connections.
type client struct {
	target      string
	from        string // The address that connections come from; empty: the system chooses.
	set         dataset.Set
	protocol    protocol
	connections int
	openTimeout time.Duration
	lean        bool                             // Streams are not those of grpc-go: see `lean`.
	transport   credentials.TransportCredentials // How connections are protected.
	tokens      bool                             // Each connection has a bearer token of its own.
	streams     []*stream
	resuming    bool          // Streams send the revision that they hold.
	resumed     chan struct{} // Closed when stalled streams are to read again.
	cpuMarked   float64       // Seconds of CPU at the last mark.
	close       func()        // Ends all streams and connections.
}

// opened is the answer to open and reopen.
type opened struct {
	Event    string         `json:"event"`
	Seconds  float64        `json:"seconds"`
	P50MS    *float64       `json:"p50_ms"`
	P99MS    *float64       `json:"p99_ms"`
	Failures int            `json:"failures"`
	Retries  int            `json:"retries"`
	Bytes    int            `json:"bytes"`
	Messages int            `json:"messages"`
	Errors   map[string]int `json:"errors"`
}

// open connects everything at once, and waits until each stream has its first answers or the
// time is up; a stream that has none by then is given up.
func (c *client) open() (opened, error) {
	if c.close != nil {
		return opened{}, errors.New("everything is open")
	}
	for _, s := range c.streams {
		s.opening, s.measured = opening{}, measured{}
	}
	var due sync.WaitGroup
	due.Add(len(c.streams))
	begin := c.called
	if c.lean {
		begin = c.followed
	}
	giveUp, err := begin(due.Done)
	if err != nil {
		return opened{}, err
	}
	start := time.Now()
	c.wait(&due)
	answer := opened{Event: "open", Seconds: time.Since(start).Seconds(), Errors: map[string]int{}}
	var took []int64
	for n, s := range c.streams {
		s.mu.Lock()
		answer.Messages += s.measured.messages
		answer.Bytes += s.measured.bytes
		answer.Retries += len(s.opening.errors)
		for _, text := range s.opening.errors {
			answer.Errors[text]++
		}
		if s.opening.ready.IsZero() {
			answer.Failures++
			s.opening.ended = "not open in time"
			giveUp(n)
		} else {
			took = append(took, s.opening.ready.Sub(start).Nanoseconds())
		}
		s.mu.Unlock()
	}
	of := percentiles(took)
	answer.P50MS, answer.P99MS = of(50), of(99)
	return answer, nil
}

// called has each stream open as a call of grpc-go, and calls `opened` once for each: when it
// is open, or is given up. It sets `close`.
func (c *client) called(opened func()) (giveUp func(stream int), err error) {
	connections, err := c.dialled()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	release := make(chan struct{})
	stops := make([]context.CancelFunc, len(c.streams))
	for n, s := range c.streams {
		ctx, stop := context.WithCancel(ctx)
		stops[n] = stop
		running.Go(func() {
			<-release
			s.run(ctx, c, connections[n%len(connections)], opened)
		})
	}
	c.close = func() {
		cancel()
		for _, connection := range connections {
			connection.Close()
		}
		running.Wait()
	}
	close(release)
	return func(stream int) { stops[stream]() }, nil
}

// followed is the same by lean connections. A stream that is given up goes on in silence.
func (c *client) followed(opened func()) (giveUp func(stream int), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for first := range c.connections {
		var streams []*stream
		for n := first; n < len(c.streams); n += c.connections {
			streams = append(streams, c.streams[n])
		}
		running.Go(func() { c.leanly(ctx, streams, opened) })
	}
	c.close = func() {
		cancel()
		running.Wait()
	}
	return func(int) {}, nil
}

// dialled is the connections, which connect once they are used.
func (c *client) dialled() ([]*grpc.ClientConn, error) {
	connections := make([]*grpc.ClientConn, c.connections)
	options := []grpc.DialOption{grpc.WithTransportCredentials(c.transport)}
	if c.from != "" {
		options = append(options, grpc.WithContextDialer(c.dial))
	}
	for i := range connections {
		own := options
		if c.tokens {
			own = append(slices.Clone(options), grpc.WithPerRPCCredentials(tokenOf(i)))
		}
		connection, err := grpc.NewClient("passthrough:///"+c.target, own...)
		if err != nil {
			return nil, err
		}
		connections[i] = connection
	}
	return connections, nil
}

// dial connects from the address that is asked for, so that a server tells these clients from
// others of the same machine.
func (c *client) dial(ctx context.Context, target string) (net.Conn, error) {
	var dialer net.Dialer
	if c.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.from)}
	}
	return dialer.DialContext(ctx, "tcp", target)
}

// wait is for the streams that are due to open, and not longer than they may take.
func (c *client) wait(due *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		due.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(c.openTimeout):
	}
}

// reopen closes everything and opens it again; streams that resume send what they hold.
func (c *client) reopen(resuming bool) (opened, error) {
	if c.close == nil {
		return opened{}, errors.New("nothing is open")
	}
	c.close()
	c.close, c.resuming = nil, resuming
	return c.open()
}

// stall blocks until stalled streams are resumed; false if `ctx` ends before.
func (c *client) stall(ctx context.Context) bool {
	select {
	case <-c.resumed:
		return true
	case <-ctx.Done():
		return false
	}
}

// resume has stalled streams read again, from now on.
func (c *client) resume() error {
	select {
	case <-c.resumed:
		return errors.New("they read")
	default:
		close(c.resumed)
		return nil
	}
}

// reads tells whether a stream takes in what it is sent.
func (c *client) reads(s *stream) bool {
	select {
	case <-c.resumed:
		return true
	default:
		return !s.stalls
	}
}

// mark forgets what was measured so far.
func (c *client) mark() {
	for _, s := range c.streams {
		s.mu.Lock()
		s.measured = measured{}
		s.mu.Unlock()
	}
	c.cpuMarked = cpuSeconds()
}

// settled is the answer to settle.
type settled struct {
	Event   string  `json:"event"`
	Seconds float64 `json:"seconds"`
	Behind  int     `json:"behind"`
}

// settle waits until each stream that reads was told the newest seq of its service. Those
// that have ended will never be.
func (c *client) settle(newest []uint32, timeout time.Duration) (settled, error) {
	if len(newest) != c.set.Services {
		return settled{}, fmt.Errorf("%d seqs and %d services", len(newest), c.set.Services)
	}
	start := time.Now()
	behind := 0
	for _, s := range c.streams {
		_, e := c.set.At(newest[s.service])
		for c.lacks(s, e.Step) {
			if s.over() || time.Since(start) > timeout {
				behind++
				break
			}
			time.Sleep(settlePoll)
		}
	}
	return settled{"settled", time.Since(start).Seconds(), behind}, nil
}

// lacks tells whether a stream that reads has yet to be told a step.
func (c *client) lacks(s *stream, step uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.reads(s) && (s.held == nil || s.step < step)
}

var portNumber = regexp.MustCompile(`:\d+\b`)

// text says why a call ended, in the same words for all that ended so.
func text(err error) string {
	if errors.Is(err, io.EOF) {
		return "OK"
	}
	problem := status.Convert(err)
	said := portNumber.ReplaceAllString(problem.Message(), ":PORT")
	return fmt.Sprintf("%s: %s", problem.Code(), said)
}
