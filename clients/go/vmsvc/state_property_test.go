package vmsvc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// model is a server of some services, of which it sends what may come, in any order that the contract
// allows. A service is absent if it has no set of addresses; one in brackets is not ready.
type model struct {
	*rand.Rand
	version  uint64
	services map[string]map[string]bool
	// What the open stream was sent of each service, and has to be sent a change of.
	sent map[string]map[string]bool
}

func (m *model) addresses(service string) []string {
	var all []string
	for address, ready := range m.services[service] {
		all = append(all, shown(address, ready))
	}
	slices.Sort(all)
	return all
}

func shown(address string, ready bool) string {
	if ready {
		return address
	}
	return "(" + address + ")"
}

// change creates, deletes or changes a service.
func (m *model) change() string {
	service := fmt.Sprint("shop/", m.IntN(4))
	set := m.services[service]
	switch {
	case m.IntN(8) == 0:
		delete(m.services, service)
	case set == nil:
		m.services[service] = map[string]bool{}
	}
	for range m.IntN(3) {
		address := fmt.Sprint(m.IntN(5))
		if set := m.services[service]; set != nil && m.IntN(2) == 0 {
			set[address] = m.IntN(2) == 0
		} else {
			delete(set, address)
		}
	}
	return service
}

// whole is the first answer of a service, or one of later that does not build on those before.
func (m *model) whole(service, revision string) message {
	defer func() { m.sent[service] = maps.Clone(m.services[service]) }()
	if m.services[service] == nil {
		return notFound(service)
	}
	m.version++
	if revision != "" && revision == m.revision(service) && m.IntN(4) > 0 {
		return current(service, m.version, revision)
	}
	told := snapshot(service, m.version, m.addresses(service)...)
	told.GetSnapshot().Revision = m.revision(service)
	return told
}

func (m *model) revision(service string) string {
	return "of " + strings.Join(m.addresses(service), ",")
}

// next is what the stream is sent of a service after a change, be it as it was.
func (m *model) next(service string) message {
	before := m.sent[service]
	if before == nil || m.services[service] == nil || m.IntN(4) == 0 {
		return m.whole(service, "")
	}
	m.version++
	var changes []string
	for address := range before {
		if _, ok := m.services[service][address]; !ok || m.IntN(4) == 0 {
			changes = append(changes, "-"+address)
		}
	}
	for address, ready := range m.services[service] {
		old, ok := before[address]
		if !ok || old != ready || slices.Contains(changes, "-"+address) || m.IntN(4) == 0 {
			changes = append(changes, "+"+shown(address, ready))
		}
	}
	m.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	m.sent[service] = maps.Clone(m.services[service])
	told := delta(service, m.version, changes...)
	told.GetDelta().Revision = m.revision(service)
	return told
}

func TestStatesAreThoseOfTheServerWhateverItSendsAndWhereverItIsCut(t *testing.T) {
	for seed := range uint64(300) {
		server := &model{Rand: rand.New(rand.NewPCG(seed, 0)), services: map[string]map[string]bool{}}
		client := newWatchState(shop)
		// What a reader of the events knows.
		known := map[string]string{}
		take := func(messages ...message) {
			for _, each := range messages {
				events, err := client.receive(each)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				for _, event := range events {
					if state, ok := event.(ServiceState); ok {
						if known[state.Service] == text(state) {
							t.Fatalf("seed %d: %q is told again", seed, text(state))
						}
						known[state.Service] = text(state)
					}
				}
			}
		}
		for range 6 {
			for range server.IntN(4) {
				server.change()
			}
			request := asked(client.begin())
			server.sent = map[string]map[string]bool{}
			names := maps.Clone(request)
			for service := range server.services {
				names[service] = request[service]
			}
			cut := server.IntN(4) == 0
			for service, revision := range names {
				if cut && server.IntN(3) == 0 {
					break
				}
				take(server.whole(service, revision))
			}
			if !cut {
				take(synced())
				for range server.IntN(12) {
					service := server.change()
					if server.services[service] != nil || server.sent[service] != nil {
						take(server.next(service))
					}
				}
				for service := range server.services {
					if got, want := known[service], strings.TrimSpace(service+" "+ofModel(server, service)); got != want {
						t.Fatalf("seed %d: knows %q, want %q", seed, got, want)
					}
					if held := client.held[service]; text(held) != known[service] {
						t.Fatalf("seed %d: holds %q, told %q", seed, text(held), known[service])
					}
				}
				if len(client.held) != len(server.services) {
					t.Fatalf("seed %d: holds %d, not %d", seed, len(client.held), len(server.services))
				}
			}
			client.lost(true)
		}
	}
}

// ofModel is the endpoints of a service as text shows them: by address, and not by brackets.
func ofModel(m *model, service string) string {
	addresses := m.addresses(service)
	slices.SortFunc(addresses, func(a, b string) int {
		return strings.Compare(strings.Trim(a, "()"), strings.Trim(b, "()"))
	})
	return strings.Join(addresses, " ")
}
