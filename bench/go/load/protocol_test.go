package main

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"vmsvc-grpc/bench/go/internal/api"
	"vmsvc-grpc/bench/go/internal/dataset"
)

// told is a right snapshot of service 1 of the small set, in a step.
func told(step uint32) *api.Event {
	event := &api.Event{
		Kind: api.Snapshot, Service: "bench/s1", Version: 9, Revision: "r", Ports: []api.Port{port},
	}
	for _, e := range state(step) {
		event.Endpoints = append(event.Endpoints, api.Endpoint{
			Address: dataset.Address(small.Seq(1, e)), Ready: true, Zone: "zone-a",
			VMName: dataset.VMName(1, e.VM), VMUID: dataset.VMUID(1, e.VM),
		})
	}
	return event
}

func TestASnapshotIsReadAsItsStep(t *testing.T) {
	u, answer, err := newVMSVC(small).read(1, told(4).Encode())
	if err != nil || answer != nil {
		t.Fatal(answer, err)
	}
	if u.kind != whole || u.service != 1 || u.step != 4 || u.revision != "r" {
		t.Errorf("%+v", u)
	}
}

func TestADeltaIsReadAsItsStep(t *testing.T) {
	event := told(4)
	event.Kind, event.Ports = api.Delta, nil
	event.Removed, event.Endpoints = told(3).Endpoints[:1], event.Endpoints[:1]
	u, _, err := newVMSVC(small).read(1, event.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if u.kind != change || u.step != 4 || len(u.removed) != 1 || u.removed[0].Step != 1 {
		t.Errorf("%+v", u)
	}
}

func TestAnEventThatIsNotOfTheDataSetIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*api.Event){
		"another service":            func(e *api.Event) { e.Service = "bench/s0" },
		"a name of none":             func(e *api.Event) { e.Service = "shop/web" },
		"an endpoint is missing":     func(e *api.Event) { e.Endpoints = e.Endpoints[1:] },
		"an endpoint is not ready":   func(e *api.Event) { e.Endpoints[0].Ready = false },
		"the uid of another VM":      func(e *api.Event) { e.Endpoints[0].VMUID = e.Endpoints[1].VMUID },
		"the name of another VM":     func(e *api.Event) { e.Endpoints[0].VMName = "s1-vm1" },
		"another zone":               func(e *api.Event) { e.Endpoints[0].Zone = "" },
		"an address of somebody":     func(e *api.Event) { e.Endpoints[0].Address = "192.0.2.1" },
		"another port":               func(e *api.Event) { e.Ports[0].TargetPort = 80 },
		"no port":                    func(e *api.Event) { e.Ports = nil },
		"the service does not exist": func(e *api.Event) { e.Kind = api.Absent },
	} {
		event := told(4)
		spoil(event)
		if u, _, err := newVMSVC(small).read(1, event.Encode()); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

// assignment is a right load assignment of service 1 of the small set, in a step.
func assignment(step uint32) *endpoint.ClusterLoadAssignment {
	locality := &endpoint.LocalityLbEndpoints{
		Locality:            &core.Locality{Zone: "zone-a"},
		LoadBalancingWeight: wrapperspb.UInt32(3),
	}
	for _, e := range state(step) {
		socket := &core.SocketAddress{
			Address:       dataset.Address(small.Seq(1, e)),
			PortSpecifier: &core.SocketAddress_PortValue{PortValue: 8080},
		}
		address := &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}
		locality.LbEndpoints = append(locality.LbEndpoints, &endpoint.LbEndpoint{
			HealthStatus:   core.HealthStatus_HEALTHY,
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address}},
		})
	}
	return &endpoint.ClusterLoadAssignment{
		ClusterName: "s1.bench:80", Endpoints: []*endpoint.LocalityLbEndpoints{locality},
	}
}

func packed(message proto.Message) *anypb.Any {
	value, err := anypb.New(message)
	if err != nil {
		panic(err)
	}
	return value
}

func encoded(message proto.Message) []byte {
	content, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return content
}

// expect fails unless an encoded message is the one expected.
func expect(t *testing.T, content []byte, expected, empty proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(content, empty); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(empty, expected) {
		t.Errorf("%v and not %v", empty, expected)
	}
}

func TestDeltaXDSIsAskedForReadAndAcknowledged(t *testing.T) {
	x := xdsDelta{newAssignments(small)}
	expect(t, x.request(1, "r"), &discovery.DeltaDiscoveryRequest{
		Node:    &core.Node{Id: "vmsvc-load"},
		TypeUrl: dataset.TypeURL, ResourceNamesSubscribe: []string{"s1.bench:80"},
	}, new(discovery.DeltaDiscoveryRequest))
	resource := &discovery.Resource{
		Name: "s1.bench:80", Version: "v", Resource: packed(assignment(4)),
	}
	u, ack, err := x.read(1, encoded(&discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: "7", TypeUrl: dataset.TypeURL, Nonce: "n",
		Resources: []*discovery.Resource{resource},
	}))
	if err != nil || u == nil || u.kind != whole || u.service != 1 || u.step != 4 {
		t.Fatalf("%+v (%v)", u, err)
	}
	expect(t, ack, &discovery.DeltaDiscoveryRequest{TypeUrl: dataset.TypeURL, ResponseNonce: "n"},
		new(discovery.DeltaDiscoveryRequest))
}

func TestSotWXDSIsAskedForReadAndAcknowledged(t *testing.T) {
	x := xdsSotW{newAssignments(small)}
	expect(t, x.request(1, "r"), &discovery.DiscoveryRequest{
		Node:    &core.Node{Id: "vmsvc-load"},
		TypeUrl: dataset.TypeURL, ResourceNames: []string{"s1.bench:80"},
	}, new(discovery.DiscoveryRequest))
	u, ack, err := x.read(1, encoded(&discovery.DiscoveryResponse{
		VersionInfo: "7", TypeUrl: dataset.TypeURL, Nonce: "n",
		Resources: []*anypb.Any{packed(assignment(4))},
	}))
	if err != nil || u == nil || u.kind != whole || u.service != 1 || u.step != 4 {
		t.Fatalf("%+v (%v)", u, err)
	}
	expect(t, ack, &discovery.DiscoveryRequest{
		TypeUrl: dataset.TypeURL, ResourceNames: []string{"s1.bench:80"},
		VersionInfo: "7", ResponseNonce: "n",
	}, new(discovery.DiscoveryRequest))
}

func TestAResponseWithoutResourcesIsAcknowledgedAndSaysNothing(t *testing.T) {
	u, ack, err := xdsSotW{newAssignments(small)}.read(1, encoded(
		&discovery.DiscoveryResponse{VersionInfo: "7", TypeUrl: dataset.TypeURL, Nonce: "n"}))
	if u != nil || len(ack) == 0 || err != nil {
		t.Errorf("%+v, %v (%v)", u, ack, err)
	}
}

func TestWhatIsSharedIsTheContentAndNotTheResponse(t *testing.T) {
	x := xdsSotW{newAssignments(small)}
	resources := []*anypb.Any{packed(assignment(4))}
	one, _, _ := x.read(1, encoded(&discovery.DiscoveryResponse{Resources: resources, Nonce: "1"}))
	two, _, _ := x.read(1, encoded(&discovery.DiscoveryResponse{Resources: resources, Nonce: "2"}))
	if one == nil || one != two {
		t.Error("it is decoded anew")
	}
}

func TestALoadAssignmentThatIsNotOfTheDataSetIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*endpoint.ClusterLoadAssignment){
		"another service": func(a *endpoint.ClusterLoadAssignment) { a.ClusterName = "s0.bench:80" },
		"a name of none":  func(a *endpoint.ClusterLoadAssignment) { a.ClusterName = "web.shop:80" },
		"no endpoints":    func(a *endpoint.ClusterLoadAssignment) { a.Endpoints = nil },
		"two localities":  func(a *endpoint.ClusterLoadAssignment) { a.Endpoints = append(a.Endpoints, a.Endpoints...) },
		"another zone":    func(a *endpoint.ClusterLoadAssignment) { a.Endpoints[0].Locality = nil },
		"no weight": func(a *endpoint.ClusterLoadAssignment) {
			a.Endpoints[0].LoadBalancingWeight = nil
		},
		"not healthy": func(a *endpoint.ClusterLoadAssignment) {
			a.Endpoints[0].LbEndpoints[0].HealthStatus = core.HealthStatus_UNHEALTHY
		},
		"not an address": func(a *endpoint.ClusterLoadAssignment) {
			a.Endpoints[0].LbEndpoints[0].HostIdentifier = nil
		},
	} {
		spoiled := assignment(4)
		spoil(spoiled)
		response := &discovery.DiscoveryResponse{Resources: []*anypb.Any{packed(spoiled)}}
		if u, _, err := (xdsSotW{newAssignments(small)}).read(1, encoded(response)); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
	cluster := &discovery.DiscoveryResponse{Resources: []*anypb.Any{packed(&core.Node{})}}
	if u, _, err := (xdsSotW{newAssignments(small)}).read(1, encoded(cluster)); err == nil {
		t.Errorf("another type: %+v", u)
	}
	removal := &discovery.DeltaDiscoveryResponse{RemovedResources: []string{"s1.bench:80"}}
	if u, _, err := (xdsDelta{newAssignments(small)}).read(1, encoded(removal)); err == nil {
		t.Errorf("a removal: %+v", u)
	}
}
