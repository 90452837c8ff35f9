package api

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The numbers of the fields that are read or written here.
const (
	requestServices  protowire.Number = 1
	watchedService   protowire.Number = 1
	watchedRevision  protowire.Number = 2
	responseSnapshot protowire.Number = 1
	responseDelta    protowire.Number = 2
	responseCurrent  protowire.Number = 3
	responseAbsent   protowire.Number = 4
	responseSynced   protowire.Number = 5

	// EndpointSet, Delta, Current and Absent have their first fields in common.
	eventService  protowire.Number = 1
	eventVersion  protowire.Number = 2
	eventRevision protowire.Number = 3

	setPorts        protowire.Number = 4
	setEndpoints    protowire.Number = 5
	deltaRemoved    protowire.Number = 4
	deltaUpserted   protowire.Number = 5
	portName        protowire.Number = 1
	portPort        protowire.Number = 2
	portTargetPort  protowire.Number = 3
	portProtocol    protowire.Number = 4
	endpointAddress protowire.Number = 1
	endpointReady   protowire.Number = 2
	endpointVMName  protowire.Number = 3
	endpointVMUID   protowire.Number = 4
	endpointZone    protowire.Number = 5
	keyAddress      protowire.Number = 1
	keyVMUID        protowire.Number = 2
)

var names = map[string]protowire.Number{
	"WatchEndpointsRequest.services":  requestServices,
	"WatchedService.service":          watchedService,
	"WatchedService.revision":         watchedRevision,
	"WatchEndpointsResponse.snapshot": responseSnapshot,
	"WatchEndpointsResponse.delta":    responseDelta,
	"WatchEndpointsResponse.current":  responseCurrent,
	"WatchEndpointsResponse.absent":   responseAbsent,
	"WatchEndpointsResponse.synced":   responseSynced,
	"EndpointSet.service":             eventService,
	"EndpointSet.version":             eventVersion,
	"EndpointSet.revision":            eventRevision,
	"EndpointSet.ports":               setPorts,
	"EndpointSet.endpoints":           setEndpoints,
	"Delta.service":                   eventService,
	"Delta.version":                   eventVersion,
	"Delta.revision":                  eventRevision,
	"Delta.removed":                   deltaRemoved,
	"Delta.upserted":                  deltaUpserted,
	"Current.service":                 eventService,
	"Current.version":                 eventVersion,
	"Current.revision":                eventRevision,
	"Absent.service":                  eventService,
	"Port.name":                       portName,
	"Port.port":                       portPort,
	"Port.target_port":                portTargetPort,
	"Port.protocol":                   portProtocol,
	"Endpoint.address":                endpointAddress,
	"Endpoint.ready":                  endpointReady,
	"Endpoint.vm_name":                endpointVMName,
	"Endpoint.vm_uid":                 endpointVMUID,
	"Endpoint.zone":                   endpointZone,
	"EndpointKey.address":             keyAddress,
	"EndpointKey.vm_uid":              keyVMUID,
}

// Check compares the numbers above with the API's own description, an encoded
// FileDescriptorSet. An error names the first that differs.
func Check(descriptorSet []byte) error {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(descriptorSet, &set); err != nil {
		return fmt.Errorf("no FileDescriptorSet: %w", err)
	}
	// What our file imports is not in the set, and is not looked at.
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(&set)
	if err != nil {
		return err
	}
	for name, number := range names {
		path := protoreflect.FullName("vmsvc.v1." + name)
		descriptor, err := files.FindDescriptorByName(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		field, ok := descriptor.(protoreflect.FieldDescriptor)
		if !ok || field.Number() != number {
			return fmt.Errorf("%s is not field %d of %s", path, number, before(name))
		}
	}
	return nil
}

func before(name string) string {
	message, _, _ := strings.Cut(name, ".")
	return message
}
