// Package api is the part of vmsvc.v1 that the benchmark speaks: WatchEndpoints, its messages
// as Go values, and their encoding.
//
// It is written by hand on protowire, as dynamic messages would cost the load client more
// than receiving does where every message is different, and generated ones would be another
// copy of the API to keep. Check tells whether it still is what proto/ says.
package api

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"vmsvc-grpc/bench/go/internal/wire"
)

// The call's names.
const (
	Service = "vmsvc.v1.EndpointService"
	Watch   = "WatchEndpoints"
)

// Port is a port of a service.
type Port struct {
	Name             string
	Port, TargetPort uint32
	Protocol         string
}

// Endpoint is an address of a VM. As a key, only Address and VMUID are set.
type Endpoint struct {
	Address string
	Ready   bool
	VMName  string
	VMUID   string
	Zone    string
}

// Kind is which member of a WatchEndpointsResponse's event is set.
type Kind protowire.Number

// The kinds of event.
const (
	Snapshot = Kind(responseSnapshot)
	Delta    = Kind(responseDelta)
	Current  = Kind(responseCurrent)
	Absent   = Kind(responseAbsent)
	Synced   = Kind(responseSynced)
)

// Event is a WatchEndpointsResponse. Ports and Endpoints are a snapshot's, Removed and
// Endpoints (those upserted) a delta's; the ports of a delta are not read, as ours never
// change.
type Event struct {
	Kind      Kind
	Service   string
	Version   uint64
	Revision  string
	Ports     []Port
	Endpoints []Endpoint
	Removed   []Endpoint
}

// Watched is a service to watch, and the revision held of it, if any.
type Watched struct {
	Service, Revision string
}

// EncodeRequest makes a WatchEndpointsRequest of services by name.
func EncodeRequest(services ...Watched) []byte {
	var b []byte
	for _, s := range services {
		watched := wire.AppendString(nil, watchedService, s.Service)
		watched = wire.AppendString(watched, watchedRevision, s.Revision)
		b = wire.AppendMessage(b, requestServices, watched)
	}
	return b
}

// DecodeRequest reads the services by name, and refuses what asks for others.
func DecodeRequest(b []byte) ([]Watched, error) {
	var services []Watched
	err := wire.Each(b, func(number protowire.Number, v wire.Value) error {
		if number != requestServices {
			return fmt.Errorf("field %d is not supported: only services by name", number)
		}
		services = append(services, Watched{})
		into := &services[len(services)-1]
		return wire.Each(v.Bytes, func(number protowire.Number, v wire.Value) error {
			switch number {
			case watchedService:
				into.Service = string(v.Bytes)
			case watchedRevision:
				into.Revision = string(v.Bytes)
			}
			return nil
		})
	})
	return services, err
}

// Encode makes a WatchEndpointsResponse.
func (e *Event) Encode() []byte {
	b := wire.AppendString(nil, eventService, e.Service)
	b = wire.AppendVarint(b, eventVersion, e.Version)
	b = wire.AppendString(b, eventRevision, e.Revision)
	switch e.Kind {
	case Snapshot:
		for _, port := range e.Ports {
			b = wire.AppendMessage(b, setPorts, port.encode())
		}
		for _, endpoint := range e.Endpoints {
			b = wire.AppendMessage(b, setEndpoints, endpoint.encode())
		}
	case Delta:
		for _, key := range e.Removed {
			encoded := wire.AppendString(nil, keyAddress, key.Address)
			b = wire.AppendMessage(b, deltaRemoved, wire.AppendString(encoded, keyVMUID, key.VMUID))
		}
		for _, endpoint := range e.Endpoints {
			b = wire.AppendMessage(b, deltaUpserted, endpoint.encode())
		}
	}
	return wire.AppendMessage(nil, protowire.Number(e.Kind), b)
}

func (p Port) encode() []byte {
	b := wire.AppendString(nil, portName, p.Name)
	b = wire.AppendVarint(b, portPort, uint64(p.Port))
	b = wire.AppendVarint(b, portTargetPort, uint64(p.TargetPort))
	return wire.AppendString(b, portProtocol, p.Protocol)
}

func (e Endpoint) encode() []byte {
	b := wire.AppendString(nil, endpointAddress, e.Address)
	if e.Ready {
		b = wire.AppendVarint(b, endpointReady, 1)
	}
	b = wire.AppendString(b, endpointVMName, e.VMName)
	b = wire.AppendString(b, endpointVMUID, e.VMUID)
	return wire.AppendString(b, endpointZone, e.Zone)
}

// Decode reads a WatchEndpointsResponse; nothing of it refers to the bytes.
func Decode(b []byte) (*Event, error) {
	e := new(Event)
	err := wire.Each(b, func(number protowire.Number, v wire.Value) error {
		e.Kind = Kind(number)
		return wire.Each(v.Bytes, e.decode)
	})
	if err == nil && (e.Kind < Snapshot || e.Kind > Synced) {
		err = errors.New("a WatchEndpointsResponse without an event")
	}
	return e, err
}

func (e *Event) decode(number protowire.Number, v wire.Value) error {
	switch {
	case number == eventService:
		e.Service = string(v.Bytes)
	case e.Kind == Absent:
		// Its other fields say why, in other types.
	case number == eventVersion:
		e.Version = v.Varint
	case number == eventRevision:
		e.Revision = string(v.Bytes)
	case e.Kind == Snapshot && number == setPorts:
		port, err := decodePort(v.Bytes)
		e.Ports = append(e.Ports, port)
		return err
	case e.Kind == Delta && number == deltaRemoved:
		key, err := decodeKey(v.Bytes)
		e.Removed = append(e.Removed, key)
		return err
	case e.Kind == Snapshot && number == setEndpoints, e.Kind == Delta && number == deltaUpserted:
		endpoint, err := decodeEndpoint(v.Bytes)
		e.Endpoints = append(e.Endpoints, endpoint)
		return err
	}
	return nil
}

func decodePort(b []byte) (p Port, err error) {
	err = wire.Each(b, func(number protowire.Number, v wire.Value) error {
		switch number {
		case portName:
			p.Name = string(v.Bytes)
		case portPort:
			p.Port = uint32(v.Varint)
		case portTargetPort:
			p.TargetPort = uint32(v.Varint)
		case portProtocol:
			p.Protocol = string(v.Bytes)
		}
		return nil
	})
	return p, err
}

func decodeKey(b []byte) (key Endpoint, err error) {
	err = wire.Each(b, func(number protowire.Number, v wire.Value) error {
		switch number {
		case keyAddress:
			key.Address = string(v.Bytes)
		case keyVMUID:
			key.VMUID = string(v.Bytes)
		}
		return nil
	})
	return key, err
}

func decodeEndpoint(b []byte) (e Endpoint, err error) {
	err = wire.Each(b, func(number protowire.Number, v wire.Value) error {
		switch number {
		case endpointAddress:
			e.Address = string(v.Bytes)
		case endpointReady:
			e.Ready = v.Varint != 0
		case endpointVMName:
			e.VMName = string(v.Bytes)
		case endpointVMUID:
			e.VMUID = string(v.Bytes)
		case endpointZone:
			e.Zone = string(v.Bytes)
		}
		return nil
	})
	return e, err
}
