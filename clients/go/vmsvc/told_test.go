package vmsvc

import (
	"strings"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// Messages of vmsvc.v1 in the short form that tests read well in, and events as short texts.

const (
	web = "shop/web"
	db  = "shop/db"
)

type message = *vmsvcv1.WatchEndpointsResponse

// addressed is an endpoint whose VM's uid follows from its address; one in brackets is not ready.
func addressed(address string) *vmsvcv1.Endpoint {
	bare := strings.Trim(address, "()")
	return &vmsvcv1.Endpoint{Address: bare, Ready: bare == address, VmUid: "uid-" + bare, Zone: "z"}
}

func addressedAll(addresses []string) []*vmsvcv1.Endpoint {
	var all []*vmsvcv1.Endpoint
	for _, address := range addresses {
		all = append(all, addressed(address))
	}
	return all
}

// snapshot has a revision that lists its addresses.
func snapshot(service string, version uint64, addresses ...string) message {
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Snapshot{
		Snapshot: &vmsvcv1.EndpointSet{
			Service: service, Version: version, Revision: strings.Join(addresses, ","),
			Ports:     []*vmsvcv1.Port{{Name: "http", Port: 80, TargetPort: 8080, Protocol: "TCP"}},
			Endpoints: addressedAll(addresses),
		},
	}}
}

// delta has changes such as "+a", "-b"; its revision is "after".
func delta(service string, version uint64, changes ...string) message {
	m := &vmsvcv1.Delta{Service: service, Version: version, Revision: "after"}
	for _, change := range changes {
		if address, ok := strings.CutPrefix(change, "-"); ok {
			m.Removed = append(m.Removed, &vmsvcv1.EndpointKey{Address: address, VmUid: "uid-" + address})
		} else {
			m.Upserted = append(m.Upserted, addressed(strings.TrimPrefix(change, "+")))
		}
	}
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Delta{Delta: m}}
}

func current(service string, version uint64, revision string) message {
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Current{
		Current: &vmsvcv1.Current{Service: service, Version: version, Revision: revision},
	}}
}

func absentAs(service string, reason vmsvcv1.Absent_Reason, why string) message {
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Absent{
		Absent: &vmsvcv1.Absent{Service: service, Reason: reason, Message: why},
	}}
}

func notFound(service string) message {
	return absentAs(service, vmsvcv1.Absent_REASON_NOT_FOUND, "there is none")
}

func refused(service, why string) message {
	return absentAs(service, vmsvcv1.Absent_REASON_REFUSED, why)
}

func synced() message {
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Synced{
		Synced: &vmsvcv1.Synced{},
	}}
}

func text(event Event) string {
	switch event := event.(type) {
	case ServiceState:
		if !event.Present() {
			return event.Service + " " + string(event.Absence.Reason)
		}
		words := []string{event.Service}
		for _, each := range event.Endpoints {
			if each.Ready {
				words = append(words, each.Address)
			} else {
				words = append(words, "("+each.Address+")")
			}
		}
		return strings.Join(words, " ")
	case Disconnected:
		return "disconnected " + event.Err.Code.String()
	default:
		return "synced"
	}
}

func texts(events []Event) []string {
	told := []string{}
	for _, event := range events {
		told = append(told, text(event))
	}
	return told
}
