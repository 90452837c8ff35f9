package vmsvc

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

var (
	one  = Scope{Services: []string{web}}
	two  = Scope{Services: []string{web, db}}
	shop = Scope{Namespaces: []string{"shop"}}
)

func received(t *testing.T, state *watchState, messages ...message) []string {
	t.Helper()
	var all []Event
	for _, each := range messages {
		events, err := state.receive(each)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, events...)
	}
	return texts(all)
}

func TestOneStream(t *testing.T) {
	for _, test := range []struct {
		name     string
		scope    Scope
		messages []message
		want     []string
	}{
		{"a snapshot", one, []message{snapshot(web, 1, "a"), synced()}, []string{"shop/web a", "synced"}},
		{"a service with no endpoints is told", one, []message{snapshot(web, 1)}, []string{"shop/web"}},
		{"version 0 is one like others", one,
			[]message{snapshot(web, 0, "a"), delta(web, 1, "-a")}, []string{"shop/web a", "shop/web"}},
		{"endpoints are sorted by address", one,
			[]message{snapshot(web, 1, "b", "a")}, []string{"shop/web a b"}},
		{"endpoints of a delta are sorted in", one,
			[]message{snapshot(web, 1, "a"), delta(web, 2, "+0")}, []string{"shop/web a", "shop/web 0 a"}},
		{"a delta removes", one,
			[]message{snapshot(web, 1, "a", "b"), delta(web, 2, "-a")}, []string{"shop/web a b", "shop/web b"}},
		{"removed comes first: what is removed and upserted is there", one,
			[]message{snapshot(web, 1, "a"), delta(web, 2, "-a", "+(a)")}, []string{"shop/web a", "shop/web (a)"}},
		{"upserted replaces the one of the same address and uid", one,
			[]message{snapshot(web, 1, "a"), delta(web, 2, "+(a)")}, []string{"shop/web a", "shop/web (a)"}},
		{"of two upserted with one key the later one counts", one,
			[]message{snapshot(web, 1, "a"), delta(web, 2, "+b", "+(a)", "+(b)", "+a")},
			[]string{"shop/web a", "shop/web a (b)"}},
		{"the same content again tells nothing", one,
			[]message{snapshot(web, 1, "a"), snapshot(web, 2, "a")}, []string{"shop/web a"}},
		{"absent, created, changed, deleted, created again", one,
			[]message{
				notFound(web), synced(), snapshot(web, 1, "a"), delta(web, 2, "-a"), notFound(web), snapshot(web, 3),
			},
			[]string{
				"shop/web NOT_FOUND", "synced", "shop/web a", "shop/web", "shop/web NOT_FOUND", "shop/web",
			}},
		{"being deleted and deleted are one thing", one,
			[]message{absentAs(web, 1, "is being deleted"), notFound(web)}, []string{"shop/web NOT_FOUND"}},
		{"another reason to refuse is told, and that it is gone", one,
			[]message{refused(web, "port 0"), refused(web, "port 70000"), notFound(web)},
			[]string{"shop/web REFUSED", "shop/web REFUSED", "shop/web NOT_FOUND"}},
		{"a reason that is not known is an absence all the same", one,
			[]message{absentAs(web, 9, "new")}, []string{"shop/web UNKNOWN"}},
		{"synced is told as it comes", two, []message{synced(), synced()},
			[]string{
				"synced", "synced",
			}},
		{"of a namespace, what is gone before it was ever told is not told", shop,
			[]message{refused(web, ""), notFound(db)}, []string{"shop/web REFUSED"}},
		{"an event not known is passed over", one, []message{{}, synced()}, []string{"synced"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := newWatchState(test.scope)
			state.begin()
			if got := received(t, state, test.messages...); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAddressThatMovesToAnotherVM(t *testing.T) {
	state := newWatchState(one)
	state.begin()
	received(t, state, snapshot(web, 1, "a"))
	moved := delta(web, 2, "-a", "+a")
	moved.GetDelta().Upserted[0].VmUid = "other"
	if got := received(t, state, moved); !slices.Equal(got, []string{"shop/web a"}) {
		t.Errorf("got %q", got)
	}
}

func asked(request *vmsvcv1.WatchEndpointsRequest) map[string]string {
	revisions := map[string]string{}
	for _, each := range request.GetServices() {
		revisions[each.GetService()] = each.GetRevision()
	}
	return revisions
}

func TestResumedStream(t *testing.T) {
	for _, test := range []struct {
		name   string
		scope  Scope
		before []message
		asked  map[string]string
		after  []message
		want   []string
	}{
		{"what is still true is not repeated, and deltas build on it", one,
			[]message{snapshot(web, 7, "a"), synced()}, map[string]string{web: "a"},
			[]message{current(web, 1, "a"), synced(), delta(web, 2, "-a")}, []string{"synced", "shop/web"}},
		{"a snapshot with what is held tells nothing", one,
			[]message{snapshot(web, 7, "a"), synced()}, map[string]string{web: "a"},
			[]message{snapshot(web, 1, "a"), synced()}, []string{"synced"}},
		{"a change made while away", one,
			[]message{snapshot(web, 7, "a"), synced()}, map[string]string{web: "a"},
			[]message{snapshot(web, 1, "b"), synced()}, []string{"shop/web b", "synced"}},
		{"of those named, the ones gone while away", two,
			[]message{snapshot(web, 7, "a"), notFound(db), synced()}, map[string]string{web: "a", db: ""},
			[]message{notFound(db), notFound(web), synced()}, []string{"shop/web NOT_FOUND", "synced"}},
		{"of a namespace, all that is held is named, the refused too", shop,
			[]message{snapshot(web, 7, "a"), refused(db, ""), synced()}, map[string]string{web: "a", db: ""},
			[]message{current(web, 1, "a"), notFound(db), synced()}, []string{"shop/db NOT_FOUND", "synced"}},
		{"of a namespace, what was deleted is forgotten", shop,
			[]message{snapshot(web, 7, "a"), snapshot(db, 8, "b"), notFound(web), synced()},
			map[string]string{db: "b"},
			[]message{current(db, 1, "b"), synced()}, []string{"synced"}},
		{"what has had no answer when all have is gone", shop,
			[]message{snapshot(web, 7, "a"), synced()}, map[string]string{web: "a"},
			[]message{synced()}, []string{"shop/web NOT_FOUND", "synced"}},
		{"a stream that ended before it was synced is resumed too", one,
			[]message{snapshot(web, 7, "a")}, map[string]string{web: "a"},
			[]message{current(web, 1, "a"), synced()}, []string{"synced"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := newWatchState(test.scope)
			state.begin()
			received(t, state, test.before...)
			state.lost(true)
			if state.synced {
				t.Error("a lost stream is not synced")
			}
			if got := asked(state.begin()); !maps.Equal(got, test.asked) {
				t.Errorf("asked for %q, want %q", got, test.asked)
			}
			if got := received(t, state, test.after...); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if !state.synced {
				t.Error("it is synced")
			}
		})
	}
}

func TestWhatTheContractRulesOut(t *testing.T) {
	for _, test := range []struct {
		name     string
		before   []message
		bad      message
		sentence string
	}{
		{"a delta with nothing held", nil, delta(web, 2), "a delta came before"},
		{"a delta of one that is absent", []message{notFound(web)}, delta(web, 2), "a delta came before"},
		{"a delta from another state", []message{snapshot(web, 2, "a")}, delta(web, 3, "-b"),
			"removes b, which is not held"},
		{"a delta that removes one twice", []message{snapshot(web, 2, "a", "b")}, delta(web, 3, "-a", "-a"),
			"removes a, which is not held"},
		{"a delta that is not newer", []message{snapshot(web, 2, "a")}, delta(web, 2, "-a"),
			"version 2 came after 2"},
		{"a snapshot that is older", []message{snapshot(web, 2, "a")}, snapshot(web, 1),
			"version 1 came after 2"},
		{"current, with nothing held", nil, current(web, 2, "a"), "that is not held"},
		{"current, of another revision", []message{snapshot(web, 2, "a")}, current(web, 3, "b"),
			"that is not held"},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := newWatchState(one)
			state.begin()
			received(t, state, test.before...)
			before := maps.Clone(state.held)
			_, err := state.receive(test.bad)
			if err == nil || err.Code != codes.Internal || !strings.Contains(err.Message, test.sentence) {
				t.Errorf("got %v, want %q", err, test.sentence)
			}
			if !reflect.DeepEqual(state.held, before) {
				t.Errorf("it changed what is held to %v", state.held)
			}
		})
	}
}

func TestDeltaBuildsOnNothingOfAnEarlierStream(t *testing.T) {
	state := newWatchState(one)
	state.begin()
	received(t, state, snapshot(web, 7, "a"))
	state.lost(true)
	state.begin()
	if _, err := state.receive(delta(web, 8, "-a")); err == nil {
		t.Error("it was taken")
	}
}

func TestAfterAViolationRevisionsAreNotSentUntilAllIsKnownAnew(t *testing.T) {
	state := newWatchState(shop)
	state.begin()
	received(t, state, snapshot(web, 1, "a"), snapshot(db, 2, "b"), synced())
	for _, resume := range []bool{false, true} {
		state.lost(resume)
		if got := asked(state.begin()); len(got) != 0 {
			t.Errorf("asked for %q", got)
		}
	}
	want := []string{"shop/db NOT_FOUND", "synced"}
	if got := received(t, state, snapshot(web, 3, "a"), synced()); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	state.lost(true)
	if got := asked(state.begin()); !maps.Equal(got, map[string]string{web: "a"}) {
		t.Errorf("asked for %q", got)
	}
}

func TestPortsOfADeltaReplaceAllPortsOnlyIfTheyChanged(t *testing.T) {
	state := newWatchState(one)
	state.begin()
	received(t, state, snapshot(web, 1), delta(web, 2, "+a"))
	if got := state.held[web].Ports; len(got) != 1 || got[0] != (Port{"http", 80, 8080, "TCP"}) {
		t.Errorf("got %v", got)
	}
	none := delta(web, 3)
	none.GetDelta().PortsChanged = true
	received(t, state, none)
	if got := state.held[web]; len(got.Ports) != 0 || got.Version != 3 || got.Revision != "after" {
		t.Errorf("got %v", got)
	}
}

func TestRequestSaysWhatTheScopeSays(t *testing.T) {
	scope := Scope{Services: []string{web, web}, Namespaces: []string{"shop", "shop"}, Readiness: All}
	want := &vmsvcv1.WatchEndpointsRequest{
		Services:   []*vmsvcv1.WatchedService{{Service: web}},
		Namespaces: []string{"shop"},
		Readiness:  vmsvcv1.Readiness_READINESS_ALL,
	}
	if got := newWatchState(scope).begin(); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
