package grpcresolver

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
)

func TestTargets(t *testing.T) {
	for text, want := range map[string]wanted{
		"vmsvc:///shop/web:http":                   {"", "shop/web", "http"},
		"vmsvc:///shop/web:8080":                   {"", "shop/web", "8080"},
		"vmsvc:///shop/web":                        {"", "shop/web", ""},
		"vmsvc:shop/web:http":                      {"", "shop/web", "http"},
		"vmsvc:///shop%2Fweb:http":                 {"", "shop/web", "http"},
		"vmsvc://127.0.0.1:50051/shop/web:http":    {"127.0.0.1:50051", "shop/web", "http"},
		"vmsvc://[::1]:50051/shop/web":             {"[::1]:50051", "shop/web", ""},
		"vmsvc://endpoints.example:1/shop/web":     {"endpoints.example:1", "shop/web", ""},
		"vmsvc:///web:http":                        {},
		"vmsvc:///shop/web:":                       {},
		"vmsvc:///shop/web:http:80":                {},
		"vmsvc:///shop/web/http":                   {},
		"vmsvc:///Shop/web":                        {},
		"vmsvc:///":                                {},
		"vmsvc:////shop/web":                       {},
		"vmsvc:///shop/web?zone=a":                 {},
		"vmsvc:///shop/web#http":                   {},
		"vmsvc://me:secret@127.0.0.1:50051/shop/w": {},
	} {
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(resolver.Target{URL: *parsed})
		if got != want || (err != nil) != (want == wanted{}) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("it tells a secret: %v", err)
		}
	}
}

func TestAuthority(t *testing.T) {
	for text, want := range map[string]string{
		"vmsvc://127.0.0.1:1/shop/web:http": "web.shop.svc", "vmsvc:///web": "invalid",
	} {
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := New(vmsvc.Config{}).OverrideAuthority(resolver.Target{URL: *parsed}); got != want {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

var (
	http  = vmsvc.Port{Name: "http", Port: 80, TargetPort: 8080, Protocol: "TCP"}
	admin = vmsvc.Port{Name: "admin", Port: 81, TargetPort: 9090, Protocol: "TCP"}
	quic  = vmsvc.Port{Name: "quic", Port: 80, TargetPort: 8443, Protocol: "UDP"}
	bare  = vmsvc.Port{Port: 80, TargetPort: 8080, Protocol: "TCP"}
	// A name may look like the number of another port.
	eighty = vmsvc.Port{Name: "80", Port: 7000, TargetPort: 7001, Protocol: "TCP"}
)

func vm(address, uid string) vmsvc.Endpoint {
	return vmsvc.Endpoint{Address: address, Ready: true, VMName: "vm-" + uid, VMUID: uid, Zone: "z"}
}

func notReady(e vmsvc.Endpoint) vmsvc.Endpoint {
	e.Ready = false
	return e
}

func TestOutcomes(t *testing.T) {
	a, b := vm("10.0.0.1", "a"), vm("10.0.0.2", "b")
	for _, test := range []struct {
		name      string
		ports     []vmsvc.Port
		port      string
		endpoints []vmsvc.Endpoint
		// Each VM's addresses, or the reason.
		want string
	}{
		{"a port by name", []vmsvc.Port{admin, http}, "http", []vmsvc.Endpoint{a, b}, "10.0.0.1:8080 10.0.0.2:8080"},
		{"a port by number, which is the service's", []vmsvc.Port{admin, http}, "81", []vmsvc.Endpoint{a}, "10.0.0.1:9090"},
		{"not by the number of a target", []vmsvc.Port{http}, "8080", []vmsvc.Endpoint{a},
			`service shop/web has no TCP port "8080"; it has http`},
		{"a name comes before a number", []vmsvc.Port{http, eighty}, "80", []vmsvc.Endpoint{a}, "10.0.0.1:7001"},
		{"the only port needs no name", []vmsvc.Port{bare}, "", []vmsvc.Endpoint{a}, "10.0.0.1:8080"},
		{"beside a port of UDP neither", []vmsvc.Port{quic, http}, "", []vmsvc.Endpoint{a}, "10.0.0.1:8080"},
		{"of several, one has to be named", []vmsvc.Port{http, admin}, "", []vmsvc.Endpoint{a},
			"service shop/web has several TCP ports (http, admin); name one: vmsvc:///shop/web:http"},
		{"a port of UDP is none", []vmsvc.Port{quic}, "quic", []vmsvc.Endpoint{a}, "service shop/web has no TCP port"},
		{"nor one beside others", []vmsvc.Port{quic, bare}, "quic", []vmsvc.Endpoint{a},
			`service shop/web has no TCP port "quic"; it has 80`},
		{"a headless service without ports", nil, "", []vmsvc.Endpoint{a}, "service shop/web has no TCP port"},
		{"both addresses of a VM are one endpoint", []vmsvc.Port{http}, "",
			[]vmsvc.Endpoint{a, b, vm("2001:db8::1", "a")}, "10.0.0.1:8080,[2001:db8::1]:8080 10.0.0.2:8080"},
		{"VMs without uid stay apart", []vmsvc.Port{http}, "",
			[]vmsvc.Endpoint{vm("10.0.0.1", ""), vm("10.0.0.2", "")}, "10.0.0.1:8080 10.0.0.2:8080"},
		{"an address of two VMs is one", []vmsvc.Port{http}, "",
			[]vmsvc.Endpoint{a, vm("10.0.0.1", "z")}, "10.0.0.1:8080"},
		{"and that of the one that is ready", []vmsvc.Port{http}, "",
			[]vmsvc.Endpoint{notReady(a), vm("10.0.0.1", "z")}, "10.0.0.1:8080"},
		{"only those that are ready", []vmsvc.Port{http}, "", []vmsvc.Endpoint{a, notReady(b)}, "10.0.0.1:8080"},
		{"none is ready", []vmsvc.Port{http}, "", []vmsvc.Endpoint{notReady(a), notReady(b)},
			"service shop/web has no endpoint that is ready, of 2"},
		{"there are none", []vmsvc.Port{http}, "", nil, "service shop/web has no endpoints"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := of(vmsvc.ServiceState{Service: "shop/web", Ports: test.ports, Endpoints: test.endpoints}, test.port)
			var shown []string
			for _, each := range got.endpoints {
				shown = append(shown, strings.Join(each.addresses, ","))
			}
			if text := strings.Join(shown, " ") + got.reason; text != test.want {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}

func TestOutcomeOfAnAbsence(t *testing.T) {
	absence := &vmsvc.Absence{Reason: vmsvc.Refused, Message: "spec.type: NodePort is not supported"}
	got := of(vmsvc.ServiceState{Service: "shop/web", Absence: absence}, "http")
	if want := (outcome{reason: absence.Message}); !got.equal(want) {
		t.Errorf("got %+v", got)
	}
}

func TestStateForGRPC(t *testing.T) {
	told := state(of(vmsvc.ServiceState{
		Ports:     []vmsvc.Port{http},
		Endpoints: []vmsvc.Endpoint{vm("10.0.0.1", "a"), vm("10.0.0.2", "b"), vm("::1", "a")},
	}, ""))
	var addresses []string
	for _, each := range told.Addresses {
		addresses = append(addresses, each.Addr)
	}
	if want := []string{"10.0.0.1:8080", "[::1]:8080", "10.0.0.2:8080"}; !slices.Equal(addresses, want) {
		t.Errorf("addresses %q", addresses)
	}
	if len(told.Endpoints) != 2 || len(told.Endpoints[0].Addresses) != 2 {
		t.Errorf("endpoints %v", told.Endpoints)
	}
	found, ok := EndpointOf(told.Endpoints[1])
	if want := vm("10.0.0.2", "b"); !ok || found != want {
		t.Errorf("got %+v", found)
	}
	if _, ok := EndpointOf(resolver.Endpoint{}); ok {
		t.Error("it is not of ours")
	}
	none := state(outcome{reason: "?"}).Endpoints
	// ring_hash takes the first address of an endpoint without a key, and panics where there is none.
	if len(none) != 1 || len(none[0].Addresses) != 0 || ringhash.HashKey(none[0]) == "" {
		t.Errorf("got %v", none)
	}
}
