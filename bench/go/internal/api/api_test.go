package api

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The description of the API that is committed beside the stubs; `make check` has it true.
const descriptorFile = "../../../../clients/python/vmsvc/v1/descriptor_set.binpb"

func descriptorSet(t *testing.T) *descriptorpb.FileDescriptorSet {
	content, err := os.ReadFile(descriptorFile)
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(content, set); err != nil {
		t.Fatal(err)
	}
	return set
}

func check(t *testing.T, set *descriptorpb.FileDescriptorSet) error {
	content, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return Check(content)
}

func TestTheNumbersOfFieldsAreThoseOfTheAPI(t *testing.T) {
	if err := check(t, descriptorSet(t)); err != nil {
		t.Error(err)
	}
}

func TestAFieldWithAnotherNumberIsNoticed(t *testing.T) {
	set := descriptorSet(t)
	for _, message := range set.File[0].MessageType {
		if message.GetName() == "EndpointKey" {
			message.Field[1].Number = proto.Int32(7)
		}
	}
	if check(t, set) == nil {
		t.Error("it is not")
	}
}

// read is how a protobuf library that knows the API reads a message, as JSON.
func read(t *testing.T, message string, encoded []byte) any {
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(descriptorSet(t))
	if err != nil {
		t.Fatal(err)
	}
	kind, err := dynamicpb.NewTypes(files).FindMessageByName(protoreflect.FullName("vmsvc.v1." + message))
	if err != nil {
		t.Fatal(err)
	}
	value := kind.New().Interface()
	if err := proto.Unmarshal(encoded, value); err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, string(text))
}

func parsed(t *testing.T, text string) (value any) {
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

var endpoint = Endpoint{Address: "10.0.0.1", Ready: true, VMName: "s0-vm1", VMUID: "u1", Zone: "z"}

var events = map[string]Event{
	`{"snapshot": {"service": "bench/s0", "version": "300", "revision": "r", "ports":
	   [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}], "endpoints":
	   [{"address": "10.0.0.1", "ready": true, "vmName": "s0-vm1", "vmUid": "u1", "zone": "z"},
	    {"address": "10.0.0.2", "vmUid": "u2"}]}}`: {
		Kind: Snapshot, Service: "bench/s0", Version: 300, Revision: "r",
		Ports:     []Port{{Name: "http", Port: 80, TargetPort: 8080, Protocol: "TCP"}},
		Endpoints: []Endpoint{endpoint, {Address: "10.0.0.2", VMUID: "u2"}},
	},
	`{"delta": {"service": "bench/s0", "version": "2", "revision": "r",
	   "removed": [{"address": "10.0.0.0", "vmUid": "u1"}], "upserted":
	   [{"address": "10.0.0.1", "ready": true, "vmName": "s0-vm1", "vmUid": "u1", "zone": "z"}]}}`: {
		Kind: Delta, Service: "bench/s0", Version: 2, Revision: "r",
		Removed:   []Endpoint{{Address: "10.0.0.0", VMUID: "u1"}},
		Endpoints: []Endpoint{endpoint},
	},
	`{"current": {"service": "bench/s0", "version": "1", "revision": "r"}}`: {
		Kind: Current, Service: "bench/s0", Version: 1, Revision: "r",
	},
	`{"absent": {"service": "bench/s0"}}`: {Kind: Absent, Service: "bench/s0"},
	`{"synced": {}}`:                      {Kind: Synced},
}

func TestEventsAreReadAsTheyWereWritten(t *testing.T) {
	for text, event := range events {
		encoded := event.Encode()
		if told := read(t, "WatchEndpointsResponse", encoded); !reflect.DeepEqual(told, parsed(t, text)) {
			t.Errorf("%v and not %s", told, text)
		}
		decoded, err := Decode(encoded)
		if err != nil || !reflect.DeepEqual(*decoded, event) {
			t.Errorf("%+v (%v) and not %+v", decoded, err, event)
		}
	}
}

func TestARequestIsReadAsItWasWritten(t *testing.T) {
	watched := []Watched{{Service: "bench/s0"}, {Service: "bench/s1", Revision: "r"}}
	encoded := EncodeRequest(watched...)
	text := `{"services": [{"service": "bench/s0"}, {"service": "bench/s1", "revision": "r"}]}`
	if asked := read(t, "WatchEndpointsRequest", encoded); !reflect.DeepEqual(asked, parsed(t, text)) {
		t.Errorf("%v and not %s", asked, text)
	}
	if decoded, err := DecodeRequest(encoded); err != nil || !reflect.DeepEqual(decoded, watched) {
		t.Errorf("%v (%v) and not %v", decoded, err, watched)
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	if _, err := DecodeRequest([]byte{3<<3 | 0, 1}); err == nil { // all_services: true
		t.Error("a request for all services is not")
	}
	for _, broken := range [][]byte{{}, {1<<3 | 2, 9}, {9<<3 | 2, 0}} {
		if event, err := Decode(broken); err == nil {
			t.Errorf("%v is read as %+v", broken, event)
		}
	}
}
