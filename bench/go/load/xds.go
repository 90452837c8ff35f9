package main

import (
	"errors"
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"vmsvc-grpc/bench/go/internal/dataset"
	"vmsvc-grpc/bench/go/internal/wire"
)

// xdsDelta and xdsSotW are the two kinds of stream of Envoy's AggregatedDiscoveryService, each
// for one load assignment. Requests and responses are read and written by their fields: they
// differ from stream to stream, in their nonce at least, and what they hold does not.
type (
	xdsDelta struct{ assignments }
	xdsSotW  struct{ assignments }
)

const (
	xdsService = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

	nodeID protowire.Number = 1

	anyTypeURL protowire.Number = 1
	anyValue   protowire.Number = 2
)

func (xdsDelta) call() (string, grpc.StreamDesc) {
	return xdsService + "DeltaAggregatedResources", bidirectional
}

func (xdsSotW) call() (string, grpc.StreamDesc) {
	return xdsService + "StreamAggregatedResources", bidirectional
}

var bidirectional = grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// Fields of DeltaDiscoveryRequest, DeltaDiscoveryResponse and Resource.
const (
	deltaRequestNode      protowire.Number = 1
	deltaRequestTypeURL   protowire.Number = 2
	deltaRequestSubscribe protowire.Number = 3
	deltaRequestNonce     protowire.Number = 6

	deltaResponseResources protowire.Number = 2
	deltaResponseNonce     protowire.Number = 5
	deltaResponseRemoved   protowire.Number = 6

	resourceContent protowire.Number = 2
)

func (xdsDelta) request(service int, _ string) []byte {
	b := wire.AppendMessage(nil, deltaRequestNode, node)
	b = wire.AppendString(b, deltaRequestTypeURL, dataset.TypeURL)
	return wire.AppendString(b, deltaRequestSubscribe, dataset.ClusterName(service))
}

func (x xdsDelta) read(_ int, message []byte) (told *update, ack []byte, err error) {
	ack = wire.AppendString(nil, deltaRequestTypeURL, dataset.TypeURL)
	err = wire.Each(message, func(number protowire.Number, v wire.Value) error {
		switch number {
		case deltaResponseResources:
			return wire.Each(v.Bytes, func(number protowire.Number, v wire.Value) (err error) {
				if number == resourceContent {
					told, err = x.resource(v.Bytes)
				}
				return err
			})
		case deltaResponseRemoved:
			return fmt.Errorf("%s is removed", v.Bytes)
		case deltaResponseNonce:
			ack = wire.AppendString(ack, deltaRequestNonce, string(v.Bytes))
		}
		return nil
	})
	return told, ack, err
}

// Fields of DiscoveryRequest and DiscoveryResponse.
const (
	sotwRequestVersion protowire.Number = 1
	sotwRequestNode    protowire.Number = 2
	sotwRequestNames   protowire.Number = 3
	sotwRequestTypeURL protowire.Number = 4
	sotwRequestNonce   protowire.Number = 5

	sotwResponseVersion   protowire.Number = 1
	sotwResponseResources protowire.Number = 2
	sotwResponseNonce     protowire.Number = 5
)

func (xdsSotW) request(service int, _ string) []byte {
	b := wire.AppendMessage(nil, sotwRequestNode, node)
	b = wire.AppendString(b, sotwRequestNames, dataset.ClusterName(service))
	return wire.AppendString(b, sotwRequestTypeURL, dataset.TypeURL)
}

func (x xdsSotW) read(service int, message []byte) (told *update, ack []byte, err error) {
	ack = wire.AppendString(nil, sotwRequestNames, dataset.ClusterName(service))
	ack = wire.AppendString(ack, sotwRequestTypeURL, dataset.TypeURL)
	err = wire.Each(message, func(number protowire.Number, v wire.Value) (err error) {
		switch number {
		case sotwResponseResources:
			told, err = x.resource(v.Bytes)
		case sotwResponseVersion:
			ack = wire.AppendString(ack, sotwRequestVersion, string(v.Bytes))
		case sotwResponseNonce:
			ack = wire.AppendString(ack, sotwRequestNonce, string(v.Bytes))
		}
		return err
	})
	return told, ack, err
}

var node = wire.AppendString(nil, nodeID, "vmsvc-load")

// assignments reads load assignments, which both kinds of stream carry.
type assignments struct {
	set  dataset.Set
	memo *memo
}

func newAssignments(set dataset.Set) assignments {
	a := assignments{set: set}
	a.memo = newMemo(a.decode)
	return a
}

// completes tells of any state: the first is all that a stream is due.
func (assignments) completes(u *update) bool { return u.kind == whole }

// resource is what a google.protobuf.Any says, which must be a load assignment.
func (a assignments) resource(packed []byte) (told *update, err error) {
	var content []byte
	err = wire.Each(packed, func(number protowire.Number, v wire.Value) error {
		switch number {
		case anyTypeURL:
			if string(v.Bytes) != dataset.TypeURL {
				return fmt.Errorf("a %s", v.Bytes)
			}
		case anyValue:
			content = v.Bytes
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.memo.update(content)
}

func (a assignments) decode(content []byte) (*update, error) {
	var assignment endpoint.ClusterLoadAssignment
	if err := proto.Unmarshal(content, &assignment); err != nil {
		return nil, err
	}
	name := assignment.GetClusterName()
	var service int
	if _, err := fmt.Sscanf(name, "s%d.", &service); err != nil || name != dataset.ClusterName(service) {
		return nil, fmt.Errorf("a load assignment of %q", name)
	}
	endpoints, err := a.endpoints(service, &assignment)
	if err != nil {
		return nil, fmt.Errorf("load assignment of %s: %w", name, err)
	}
	return wholeState(a.set, service, endpoints)
}

func (a assignments) endpoints(
	service int, assignment *endpoint.ClusterLoadAssignment,
) ([]dataset.Endpoint, error) {
	localities := assignment.GetEndpoints()
	if len(localities) != 1 {
		return nil, fmt.Errorf("%d localities", len(localities))
	}
	locality := localities[0]
	if zone := locality.GetLocality().GetZone(); zone != dataset.Zone {
		return nil, fmt.Errorf("zone %q", zone)
	}
	if locality.GetLoadBalancingWeight().GetValue() == 0 {
		return nil, errors.New("a locality without weight, which clients drop")
	}
	endpoints := make([]dataset.Endpoint, 0, a.set.Endpoints)
	for _, told := range locality.GetLbEndpoints() {
		e, err := a.endpoint(service, told)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

func (a assignments) endpoint(service int, told *endpoint.LbEndpoint) (dataset.Endpoint, error) {
	socket := told.GetEndpoint().GetAddress().GetSocketAddress()
	seq, err := dataset.ParseAddress(socket.GetAddress())
	if err != nil {
		return dataset.Endpoint{}, err
	}
	owner, e := a.set.At(seq)
	healthy := told.GetHealthStatus() == core.HealthStatus_HEALTHY
	if owner != service || !healthy || socket.GetPortValue() != dataset.TargetPort {
		return e, fmt.Errorf("endpoint %v, of %s", told, dataset.VMName(owner, e.VM))
	}
	return e, nil
}
