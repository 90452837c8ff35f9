// Load is the benchmark's client: thousands of streams on many connections, each of which
// follows one service of the data set, by our own API or by xDS.
//
// It is cheap on purpose, so that what is measured is the server: messages are bytes, each
// different one is decoded once for all streams, and when it came is noted before anything
// else. It is exact too: every stream holds a copy of its state, and everything that it is
// told is checked against the data set. gRPC's defaults are kept, flow control above all.
//
// It is led by commands, one JSON object a line on standard input, each answered by one on
// standard output:
//
//	{"do": "open"}                       connect everything at once, until every stream has its
//	                                     first answers; what fails until then is tried again
//	{"do": "reopen", "revision": true}   close streams and connections, and open them again; with
//	                                     `revision` our API is told what each stream holds
//	{"do": "mark"}                       forget what was measured, and not what streams hold
//	{"do": "settle", "last_seq": [..], "timeout_s": 60}
//	                                     wait until streams know the newest seq of each service
//	{"do": "report", "first_seq": 100, "applied_ns": [..]}
//	                                     what came since the mark of these changes, of which each
//	                                     was made then
//	{"do": "resume"}                     have streams that stalled read again
//	{"do": "quit"}                       end, as the end of standard input does
//
// `opened`, `settled` and `report` are the answers. A command that makes no sense ends the
// program with one line on standard error.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"vmsvc-grpc/bench/go/internal/api"
	"vmsvc-grpc/bench/go/internal/commands"
	"vmsvc-grpc/bench/go/internal/dataset"
)

func main() {
	c, err := fromFlags()
	if err == nil {
		err = commands.Follow(c.do)
	}
	if err != nil {
		commands.Fail(err)
	}
}

func fromFlags() (*client, error) {
	c := &client{resumed: make(chan struct{})}
	var streams, stalled int
	flag.StringVar(&c.target, "target", "", "`HOST:PORT` of the server")
	flag.StringVar(&c.from, "from", "", "`ADDRESS` of this machine that connections come from")
	flag.IntVar(&c.connections, "connections", 1, "how many connections there are")
	flag.IntVar(&streams, "streams", 1, "how many streams there are: stream n is on connection "+
		"n mod connections, and follows service n mod services")
	flag.IntVar(&stalled, "stalled", 0, "how many of the first streams stop to read")
	flag.IntVar(&c.set.Services, "services", 1, "how many services there are")
	flag.IntVar(&c.set.Endpoints, "endpoints", 100, "how many endpoints each service has")
	flag.DurationVar(&c.openTimeout, "open-timeout", time.Minute, "how long streams may take to open")
	flag.BoolVar(&c.lean, "lean", false, "follow all streams of a connection with one goroutine; "+
		"by our own API, without TLS, tokens, stalled streams or a second try")
	flag.BoolVar(&c.tokens, "tokens", false, "send a bearer token with each call: one of its own for "+
		"each connection")
	authority := flag.String("ca", "", "`FILE` with the certificate of a server that has TLS")
	name := flag.String("api", "vmsvc", "what is spoken: vmsvc, xds-delta or xds-sotw")
	descriptor := flag.String("descriptor", "",
		"`FILE` that describes our API (descriptor_set.binpb); what differs from it is an error")
	flag.Parse()
	if flag.NArg() > 0 || c.target == "" || min(streams, c.connections, c.set.Services, c.set.Endpoints) < 1 {
		return nil, errors.New("needs --target, and at least one of everything else")
	}
	if *descriptor != "" {
		if err := check(*descriptor); err != nil {
			return nil, err
		}
	}
	if c.lean && (*name != "vmsvc" || stalled > 0 || *authority != "" || c.tokens) {
		return nil, errors.New("--lean is for our own API, without TLS, tokens or stalled streams")
	}
	var err error
	if c.transport, err = transportOf(*authority); err != nil {
		return nil, err
	}
	for n := range streams {
		c.streams = append(c.streams, &stream{service: n % c.set.Services, stalls: n < stalled})
	}
	c.protocol, err = protocolOf(*name, c.set)
	return c, err
}

// transportOf is TLS with a server that has this certificate, or plain without one.
func transportOf(certificate string) (credentials.TransportCredentials, error) {
	if certificate == "" {
		return insecure.NewCredentials(), nil
	}
	return credentials.NewClientTLSFromFile(certificate, "")
}

func check(descriptor string) error {
	content, err := os.ReadFile(descriptor)
	if err == nil {
		err = api.Check(content)
	}
	return err
}

func protocolOf(name string, set dataset.Set) (protocol, error) {
	switch name {
	case "vmsvc":
		return newVMSVC(set), nil
	case "xds-delta":
		return xdsDelta{newAssignments(set)}, nil
	case "xds-sotw":
		return xdsSotW{newAssignments(set)}, nil
	default:
		return nil, fmt.Errorf("--api %s is not known", name)
	}
}

// do follows one command.
func (c *client) do(command string, arguments json.RawMessage) (any, error) {
	var args struct {
		Revision bool
		LastSeq  []uint32 `json:"last_seq"`
		TimeoutS float64  `json:"timeout_s"`
		FirstSeq uint32   `json:"first_seq"`
		Applied  []int64  `json:"applied_ns"`
	}
	if err := json.Unmarshal(arguments, &args); err != nil {
		return nil, err
	}
	switch command {
	case "open":
		return c.open()
	case "reopen":
		return c.reopen(args.Revision)
	case "mark":
		c.mark()
		return event("marked"), nil
	case "settle":
		return c.settle(args.LastSeq, time.Duration(args.TimeoutS*float64(time.Second)))
	case "report":
		return c.report(args.FirstSeq, args.Applied)
	case "resume":
		return event("resumed"), c.resume()
	default:
		return nil, errors.New("not known")
	}
}

func event(name string) map[string]string {
	return map[string]string{"event": name}
}
