// Broadcast is a plain grpc-go server of our API: what a gRPC library can do at best, as the
// benchmark's measure.
//
// It does what our server does in the same way (a topic a service, each message encoded once,
// a cursor a stream and never a queue) and nothing else: services are known by name only, and
// no other call is served. grpc-go's defaults are kept. The limit of open files needs no word
// here: Go raises it to what is allowed.
package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"vmsvc-grpc/bench/go/internal/api"
	"vmsvc-grpc/bench/go/internal/commands"
	"vmsvc-grpc/bench/go/internal/dataset"
	"vmsvc-grpc/bench/go/internal/rawcodec"
	"vmsvc-grpc/bench/go/internal/subject"
)

func main() {
	flags := subject.ParseFlags()
	topics := make([]*topic, flags.Set.Services)
	byName := make(map[string]*topic, flags.Set.Services)
	for service := range topics {
		topics[service] = newTopic(flags.Set, service)
		byName[dataset.ServiceName(service)] = topics[service]
	}
	server := grpc.NewServer(append(flags.Options(), grpc.ForceServerCodecV2(rawcodec.Codec{}))...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: api.Service,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    api.Watch,
			ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				return watch(byName, stream)
			},
		}},
	}, nil)
	err := subject.Serve(flags, server, func(service int, step uint32) {
		topics[service].publish(step)
	})
	if err != nil {
		commands.Fail(err)
	}
}

// cursor is what a stream was last told of a service.
type cursor struct {
	topic   *topic
	version uint64
}

// watch is one call, until its client goes away.
func watch(topics map[string]*topic, stream grpc.ServerStream) error {
	watched, err := request(stream)
	if err != nil {
		return err
	}
	wake := make(chan struct{}, 1)
	cursors := make([]cursor, 0, len(watched))
	for _, w := range watched {
		topic, ok := topics[w.Service]
		if !ok {
			return status.Errorf(codes.InvalidArgument, "%q is not served here", w.Service)
		}
		defer topic.follow(wake)()
		told := topic.newest.Load()
		first := topic.current(told)
		if w.Revision != told.revision {
			first = told.snapshot()
		}
		if err := stream.SendMsg(first); err != nil {
			return err
		}
		cursors = append(cursors, cursor{topic, told.version})
	}
	if err := stream.SendMsg(synced); err != nil {
		return err
	}
	return follow(stream, cursors, wake)
}

var synced = (&api.Event{Kind: api.Synced}).Encode()

func request(stream grpc.ServerStream) ([]api.Watched, error) {
	var message mem.Buffer
	if err := stream.RecvMsg(&message); err != nil {
		return nil, err
	}
	defer message.Free()
	watched, err := api.DecodeRequest(message.ReadOnlyData())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return watched, nil
}

// follow tells what is new. It is behind while a message cannot be sent, and then tells only
// what is newest.
func follow(stream grpc.ServerStream, cursors []cursor, wake <-chan struct{}) error {
	for {
		for i := range cursors {
			c := &cursors[i]
			newest := c.topic.newest.Load()
			if newest.version == c.version {
				continue
			}
			message := newest.delta
			if newest.version != c.version+1 {
				message = newest.snapshot()
			}
			if err := stream.SendMsg(message); err != nil {
				return err
			}
			c.version = newest.version
		}
		select {
		case <-wake:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
