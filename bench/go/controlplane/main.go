// Controlplane is a server of xDS on go-control-plane: load assignments from its linear cache,
// by delta and SotW, as the benchmark's measure for ours.
//
// A change takes the way that the library offers for one: UpdateResource with a new load
// assignment. Those endpoints that did not change are shared with the one before. All else, of
// the library as of grpc-go, is as it is by default.
package main

import (
	"context"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"vmsvc-grpc/bench/go/internal/commands"
	"vmsvc-grpc/bench/go/internal/dataset"
	"vmsvc-grpc/bench/go/internal/subject"
)

func main() {
	flags := subject.ParseFlags()
	services := make([]*service, flags.Set.Services)
	resources := make(map[string]types.Resource, flags.Set.Services)
	for number := range services {
		services[number] = newService(flags.Set, number)
		resources[dataset.ClusterName(number)] = services[number].assignment()
	}
	linear := cache.NewLinearCache(dataset.TypeURL, cache.WithInitialResources(resources))
	grpcServer := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(
		grpcServer, server.NewServer(context.Background(), linear, nil))
	err := subject.Serve(flags, grpcServer, func(service int, step uint32) {
		assignment := services[service].change(step)
		if err := linear.UpdateResource(dataset.ClusterName(service), assignment); err != nil {
			commands.Fail(err)
		}
	})
	if err != nil {
		commands.Fail(err)
	}
}

// service is the endpoints of one service, each of which is never changed but replaced.
type service struct {
	set       dataset.Set
	number    int
	endpoints []*endpoint.LbEndpoint
}

func newService(set dataset.Set, number int) *service {
	s := &service{set: set, number: number}
	for vm := range set.Endpoints {
		s.endpoints = append(s.endpoints, s.endpoint(dataset.Endpoint{VM: vm}))
	}
	return s
}

// change takes a step, and gives the load assignment after it.
func (s *service) change(step uint32) *endpoint.ClusterLoadAssignment {
	_, changed := s.set.At(s.set.Seq(s.number, dataset.Endpoint{Step: step}))
	s.endpoints[changed.VM] = s.endpoint(changed)
	return s.assignment()
}

func (s *service) assignment() *endpoint.ClusterLoadAssignment {
	return &endpoint.ClusterLoadAssignment{
		ClusterName: dataset.ClusterName(s.number),
		Endpoints: []*endpoint.LocalityLbEndpoints{{
			Locality:            &core.Locality{Zone: dataset.Zone},
			LbEndpoints:         append([]*endpoint.LbEndpoint(nil), s.endpoints...),
			LoadBalancingWeight: wrapperspb.UInt32(uint32(len(s.endpoints))),
		}},
	}
}

func (s *service) endpoint(e dataset.Endpoint) *endpoint.LbEndpoint {
	socket := &core.SocketAddress{
		Address:       dataset.Address(s.set.Seq(s.number, e)),
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: dataset.TargetPort},
	}
	address := &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}
	return &endpoint.LbEndpoint{
		HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address}},
		HealthStatus:   core.HealthStatus_HEALTHY,
	}
}
