// Package subject is what a server under test is beside its service: its flags, and the
// commands by which the benchmark changes its data.
//
//	{"do": "change", "count": 100, "rate": 5}   make the next changes, so many a second (0: as fast
//	                                            as it can); answered when the last is made, with
//	                                            the time just before each
//	{"do": "quit"}                              end
package subject

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"vmsvc-grpc/bench/go/internal/commands"
	"vmsvc-grpc/bench/go/internal/dataset"
)

// Flags are those of every server.
type Flags struct {
	Listen string
	Set    dataset.Set
	// The files of a certificate and its key; empty without TLS.
	Certificate, Key string
}

// Options are those of a server for its transport.
func (f Flags) Options() []grpc.ServerOption {
	if f.Certificate == "" {
		return nil
	}
	transport, err := credentials.NewServerTLSFromFile(f.Certificate, f.Key)
	if err != nil {
		commands.Fail(err)
	}
	return []grpc.ServerOption{grpc.Creds(transport)}
}

// ParseFlags reads the command line; the program ends with a message if it is not right.
func ParseFlags() Flags {
	var f Flags
	flag.StringVar(&f.Listen, "listen", "127.0.0.1:0", "`HOST:PORT` to listen on")
	flag.IntVar(&f.Set.Services, "services", 1, "how many services there are")
	flag.IntVar(&f.Set.Endpoints, "endpoints", 100, "how many endpoints each service has")
	flag.StringVar(&f.Certificate, "certificate", "", "`FILE` with the certificate for TLS")
	flag.StringVar(&f.Key, "key", "", "`FILE` with its key")
	flag.Parse()
	if flag.NArg() > 0 || f.Set.Services < 1 || f.Set.Endpoints < 1 {
		commands.Fail(errors.New("needs flags only, and at least one service of one endpoint"))
	}
	return f
}

// Serve listens, tells so, and follows commands until it is told to quit. `change` makes a
// service take a step; it is called from one goroutine.
func Serve(f Flags, server *grpc.Server, change func(service int, step uint32)) error {
	listener, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return err
	}
	go func() {
		if err := server.Serve(listener); err != nil {
			commands.Fail(err)
		}
	}()
	address := listener.Addr().String()
	if err := commands.Answer(map[string]any{"event": "serving", "address": address}); err != nil {
		return err
	}
	schedule := schedule{set: f.Set, next: f.Set.FirstChange(), change: change}
	return commands.Follow(schedule.do)
}

// schedule applies changes, each at its time.
type schedule struct {
	set    dataset.Set
	next   uint32
	change func(service int, step uint32)
}

type changed struct {
	Event     string  `json:"event"`
	FirstSeq  uint32  `json:"first_seq"`
	AppliedNS []int64 `json:"applied_ns"`
}

func (s *schedule) do(command string, arguments json.RawMessage) (any, error) {
	var args struct {
		Count int
		Rate  float64
	}
	if command != "change" {
		return nil, errors.New("a server knows change and quit")
	}
	if err := json.Unmarshal(arguments, &args); err != nil {
		return nil, err
	}
	if args.Count < 0 || int(s.next)+args.Count > dataset.SeqMax {
		return nil, fmt.Errorf("%d changes: there are %d addresses", args.Count, dataset.SeqMax)
	}
	return s.apply(args.Count, args.Rate), nil
}

// apply makes changes at a rate a second: each at a time that does not depend on how long
// those before it took. Rate 0 is as fast as it can.
func (s *schedule) apply(count int, rate float64) changed {
	done := changed{Event: "changed", FirstSeq: s.next, AppliedNS: make([]int64, 0, count)}
	start := time.Now()
	for i := range count {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(i) / rate * 1e9))))
		} else {
			runtime.Gosched()
		}
		service, endpoint := s.set.At(s.next)
		s.next++
		done.AppliedNS = append(done.AppliedNS, time.Now().UnixNano())
		s.change(service, endpoint.Step)
	}
	return done
}
