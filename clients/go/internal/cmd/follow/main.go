// Follow is a client under measure: many streams by this library, or by grpc-go alone. It obeys
// the benchmark, a JSON object a line: "open" is answered once every stream knows all, "until" once
// every stream's newest state, or message, has an address.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Looking costs the client CPU, so it is seldom.
const look = 50 * time.Millisecond

// stream is what one has been sent.
type stream struct {
	newest atomic.Pointer[func(address string) bool]
	known  atomic.Bool
}

// followed counts what all have been sent.
type followed struct {
	streams  []stream
	received atomic.Int64
}

// take keeps what a stream has been sent by a function that looks for an address in it: looking at
// each would cost CPU that is not the client's.
func (f *followed) take(i int, has func(address string) bool) {
	f.streams[i].newest.Store(&has)
	f.received.Add(1)
}

func (f *followed) behind(address string) int {
	behind := 0
	for i := range f.streams {
		newest := f.streams[i].newest.Load()
		if newest == nil || !(*newest)(address) {
			behind++
		}
	}
	return behind
}

type command struct {
	Do       string  `json:"do"`
	Address  string  `json:"address"`
	Deadline float64 `json:"deadline"`
}

// answer returns nil while a command is not done yet.
func (f *followed) answer(command command) any {
	if command.Do == "open" {
		for i := range f.streams {
			if !f.streams[i].known.Load() {
				return nil
			}
		}
		return map[string]any{"event": "opened"}
	}
	behind := f.behind(command.Address)
	if behind > 0 && float64(time.Now().UnixNano())/1e9 < command.Deadline {
		return nil
	}
	return map[string]any{"event": "until", "behind": behind, "received": f.received.Load()}
}

func main() {
	how := flag.String("how", "library", "library or bare")
	server := flag.String("server", vmsvc.DefaultServer, "whom to ask")
	service := flag.String("service", "", "whom to follow")
	streams := flag.Int("streams", 1, "how many streams")
	connections := flag.Int("connections", 1, "on how many connections")
	flag.Parse()
	f := &followed{streams: make([]stream, *streams)}
	say := json.NewEncoder(os.Stdout)
	must(say.Encode(map[string]any{"event": "ready"}))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command command
		must(json.Unmarshal(lines.Bytes(), &command))
		if command.Do == "open" {
			if *how == "bare" {
				f.call(*server, *service, *connections)
			} else {
				f.watch(*server, *service, *connections)
			}
		}
		answer := f.answer(command)
		for ; answer == nil; answer = f.answer(command) {
			time.Sleep(look)
		}
		must(say.Encode(answer))
	}
}

// watch opens the streams by the library.
func (f *followed) watch(server, service string, connections int) {
	clients := make([]*vmsvc.Client, connections)
	for i := range clients {
		client, err := vmsvc.New(vmsvc.Config{Server: server})
		must(err)
		clients[i] = client
	}
	for i := range f.streams {
		go func() {
			watch := clients[i%len(clients)].Watch(vmsvc.Scope{Services: []string{service}})
			for event, err := range watch.Events(context.Background()) {
				must(err)
				switch event := event.(type) {
				case vmsvc.ServiceState:
					f.take(i, func(address string) bool {
						return slices.ContainsFunc(event.Endpoints, func(e vmsvc.Endpoint) bool { return e.Address == address })
					})
				case vmsvc.Synced:
					f.streams[i].known.Store(true)
				}
			}
		}()
	}
}

// call opens the streams by grpc-go alone.
func (f *followed) call(server, service string, connections int) {
	channels := make([]*grpc.ClientConn, connections)
	for i := range channels {
		channel, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(err)
		channels[i] = channel
	}
	request := &vmsvcv1.WatchEndpointsRequest{Services: []*vmsvcv1.WatchedService{{Service: service}}}
	for i := range f.streams {
		go func() {
			client := vmsvcv1.NewEndpointServiceClient(channels[i%len(channels)])
			responses, err := client.WatchEndpoints(context.Background(), request)
			must(err)
			for {
				response, err := responses.Recv()
				must(err)
				if response.GetSynced() != nil {
					f.streams[i].known.Store(true)
					continue
				}
				f.take(i, func(address string) bool {
					sent := slices.Concat(response.GetSnapshot().GetEndpoints(), response.GetDelta().GetUpserted())
					return slices.ContainsFunc(sent, func(e *vmsvcv1.Endpoint) bool { return e.GetAddress() == address })
				})
			}
		}()
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "follow:", err)
		os.Exit(1)
	}
}
