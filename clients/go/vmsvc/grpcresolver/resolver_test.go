package grpcresolver

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	_ "google.golang.org/grpc/balancer/leastrequest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/scripted"
	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/serving"
	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

var atOnce = vmsvc.RetryPolicy{Initial: 20 * time.Millisecond, Max: 100 * time.Millisecond}

// ofAddresses is a policy, as users write them, of before gRPC knew endpoints.
const ofAddresses = "test_of_addresses"

func init() { balancer.Register(base.NewBalancerBuilder(ofAddresses, anyOne{}, base.Config{})) }

type anyOne struct{}

func (anyOne) Build(info base.PickerBuildInfo) balancer.Picker {
	for each := range info.ReadySCs {
		return picked{each}
	}
	return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
}

type picked struct{ conn balancer.SubConn }

func (p picked) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: p.conn}, nil
}

// backends has health services on one port of several addresses of loopback; it is that port.
func backends(t *testing.T, hosts ...string) string {
	t.Helper()
	port := "0"
	for _, host := range hosts {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		port = strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
		server := grpc.NewServer(grpc.UnaryInterceptor(tellAuthority))
		healthv1.RegisterHealthServer(server, health.NewServer())
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(listener)
		}()
		t.Cleanup(func() {
			server.Stop()
			<-served
		})
	}
	return port
}

// tellAuthority answers with the :authority that a call had, as metadata.
func tellAuthority(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	had := metadata.ValueFromIncomingContext(ctx, ":authority")
	if err := grpc.SetHeader(ctx, metadata.MD{"had-authority": had}); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// caller is a channel to shop/web, with a policy for balancing.
type caller struct {
	t *testing.T
	*grpc.ClientConn
}

func call(t *testing.T, builder *Builder, target, policy string, options ...grpc.DialOption) caller {
	t.Helper()
	options = append(options,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig": [{%q: {}}]}`, policy)),
	)
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return caller{t, conn}
}

// once is who answered a call.
func (c caller) once(options ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scripted.Patience)
	defer cancel()
	var answered peer.Peer
	options = append(options, grpc.Peer(&answered))
	_, err := healthv1.NewHealthClient(c).Check(ctx, &healthv1.HealthCheckRequest{}, options...)
	if err != nil {
		return "", err
	}
	host, _, _ := net.SplitHostPort(answered.Addr.String())
	return host, nil
}

// until calls until a round of calls is answered by these hosts, each of them and nobody else. Calls may
// fail meanwhile.
func (c caller) until(hosts ...string) {
	c.t.Helper()
	want := map[string]bool{}
	for _, each := range hosts {
		want[each] = true
	}
	var got map[string]bool
	for deadline := time.Now().Add(scripted.Patience); time.Now().Before(deadline); {
		got = map[string]bool{}
		for range 4 * len(hosts) {
			if host, err := c.once(); err == nil {
				got[host] = true
			} else {
				got[err.Error()] = true
			}
		}
		if maps.Equal(got, want) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("answered by %v, want %v", slices.Collect(maps.Keys(got)), hosts)
}

// untilFailed calls until calls fail with UNAVAILABLE and this reason.
func (c caller) untilFailed(reason string) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(scripted.Patience); time.Now().Before(deadline); {
		_, err = c.once()
		if status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), reason) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("calls end with %v, want UNAVAILABLE %q", err, reason)
}

func TestEachPolicyIsToldWhyThereIsNobody(t *testing.T) {
	manifests := t.TempDir()
	port := backends(t, "127.0.0.1")
	server := serving.Start(t, manifests, "")
	builder := New(vmsvc.Config{Server: server.Address, Retry: atOnce})
	var callers []caller
	for _, policy := range []string{"pick_first", "round_robin", "least_request_experimental", ofAddresses} {
		callers = append(callers, call(t, builder, "vmsvc:///shop/web:http", policy))
	}
	each := func(do func(caller)) {
		for _, each := range callers {
			do(each)
		}
	}
	each(func(c caller) { c.untilFailed("there is no VirtualMachineService shop/web") })
	// A call that waits for ready waits for the service.
	waited := make(chan error, 1)
	go func() {
		_, err := callers[1].once(grpc.WaitForReady(true))
		waited <- err
	}()
	serving.Write(t, manifests, "web", serving.Service("http:80:"+port))
	each(func(c caller) { c.untilFailed("service shop/web has no endpoints") })
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "127.0.0.1"}.Manifest())
	each(func(c caller) { c.until("127.0.0.1") })
	if err := <-waited; err != nil {
		t.Errorf("a call that waits for ready failed: %v", err)
	}
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "127.0.0.1", NotReady: true}.Manifest())
	each(func(c caller) { c.untilFailed("no endpoint that is ready, of 1") })
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "127.0.0.1"}.Manifest())
	each(func(c caller) { c.until("127.0.0.1") })
	serving.Write(t, manifests, "web", serving.Service("admin:81:"+port))
	each(func(c caller) { c.untilFailed(`no TCP port "http"; it has admin`) })
	serving.Write(t, manifests, "web", serving.Service("http:80:"+port))
	each(func(c caller) { c.until("127.0.0.1") })
	serving.Remove(t, manifests, "web")
	each(func(c caller) { c.untilFailed("there is no VirtualMachineService shop/web") })
}

func TestChannelFollowsAServiceAndOutlivesItsServer(t *testing.T) {
	manifests := t.TempDir()
	port := backends(t, "127.0.0.1", "127.0.0.2", "127.0.0.3", "::1")
	serving.Write(t, manifests, "web", serving.Service("admin:81:1", "http:80:"+port))
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "127.0.0.1"}.Manifest())
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "127.0.0.2"}.Manifest())
	address := serving.Free(t)
	server := serving.Start(t, manifests, address)
	// The server is that of the target, and not the builder's.
	builder := New(vmsvc.Config{Server: "127.0.0.1:1", Retry: atOnce})
	channel := call(t, builder, "vmsvc://"+address+"/shop/web:80", "round_robin")
	channel.until("127.0.0.1", "127.0.0.2")
	var header metadata.MD
	if _, err := channel.once(grpc.Header(&header)); err != nil || header["had-authority"][0] != "web.shop.svc" {
		t.Errorf("%v, %v", header, err)
	}
	serving.Write(t, manifests, "c", serving.VM{Name: "c", IPv6: "::1"}.Manifest())
	channel.until("127.0.0.1", "127.0.0.2", "::1")
	serving.Remove(t, manifests, "c")
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "127.0.0.2", NotReady: true}.Manifest())
	channel.until("127.0.0.1")

	server.Stop(t)
	for range 20 {
		if host, err := channel.once(); host != "127.0.0.1" {
			t.Fatalf("while the server is away: %q, %v", host, err)
		}
	}
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "127.0.0.3"}.Manifest())
	serving.Start(t, manifests, address)
	channel.until("127.0.0.1", "127.0.0.3")
}

func snapshot(version uint64, port string, addresses ...string) *vmsvcv1.WatchEndpointsResponse {
	number, _ := strconv.Atoi(port)
	set := &vmsvcv1.EndpointSet{
		Service: "shop/web", Version: version, Revision: strings.Join(addresses, ","),
		Ports: []*vmsvcv1.Port{{Name: "http", Port: 80, TargetPort: uint32(number), Protocol: "TCP"}},
	}
	for _, each := range addresses {
		set.Endpoints = append(set.Endpoints, &vmsvcv1.Endpoint{Address: each, Ready: true, VmUid: each})
	}
	return &vmsvcv1.WatchEndpointsResponse{Event: &vmsvcv1.WatchEndpointsResponse_Snapshot{Snapshot: set}}
}

func TestServerThatDoesNotAnswerOrRefuses(t *testing.T) {
	port := backends(t, "127.0.0.1", "127.0.0.2")
	address := serving.Free(t)
	builder := New(vmsvc.Config{Server: address, Retry: atOnce})
	builder.refusedWait = 20 * time.Millisecond
	channel := call(t, builder, "vmsvc:///shop/web", "round_robin")
	channel.untilFailed("server " + address + " cannot be reached")

	server := scripted.Serve(t, address)
	no := status.Error(codes.PermissionDenied, "you may not watch shop/web")
	server.Then(scripted.Ends(no), scripted.Ends(no))
	channel.untilFailed("you may not watch shop/web")
	revoked := make(chan struct{})
	server.Then(func(s *scripted.Stream) error {
		if err := s.Send(snapshot(1, port, "127.0.0.1")); err != nil {
			return err
		}
		<-revoked
		return no
	})
	channel.until("127.0.0.1")
	close(revoked)
	asked := make(chan map[string]string, 1)
	server.Then(scripted.Ends(no), func(s *scripted.Stream) error {
		asked <- s.Revisions()
		return scripted.Sends(snapshot(2, port, "127.0.0.2"))(s)
	})
	// What was known last stays until the server lets us know more.
	for len(asked) == 0 {
		if _, err := channel.once(); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-asked; got["shop/web"] != "127.0.0.1" {
		t.Errorf("it resumes by %v", got)
	}
	channel.until("127.0.0.2")
}

func TestCallsDoNotFailWhileEndpointsChangeAllTheTime(t *testing.T) {
	const changes = 500
	port := backends(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	server := scripted.Serve(t, "")
	begin, changed := make(chan struct{}), make(chan struct{})
	server.Then(func(s *scripted.Stream) error {
		if err := s.Send(snapshot(1, port, "127.0.0.1")); err != nil {
			return err
		}
		<-begin
		for version := range uint64(changes) {
			other := fmt.Sprint("127.0.0.", 2+version%2)
			if err := s.Send(snapshot(2+version, port, "127.0.0.1", other)); err != nil {
				return err
			}
		}
		close(changed)
		return scripted.Sends(snapshot(2+changes, port, "127.0.0.2"))(s)
	})
	builder := New(vmsvc.Config{Server: server.Address, Retry: atOnce})
	channel := call(t, builder, "vmsvc:///shop/web", "round_robin")
	channel.until("127.0.0.1")
	close(begin)
	for over := false; !over; {
		select {
		case <-changed:
			over = true
		default:
		}
		if _, err := channel.once(); err != nil {
			t.Fatal(err)
		}
	}
	channel.until("127.0.0.2")
}

// connections counts those that a server has now, and has had.
type connections struct{ now, ever atomic.Int64 }

func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c *connections) HandleConn(_ context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		c.now.Add(1)
		c.ever.Add(1)
	case *stats.ConnEnd:
		c.now.Add(-1)
	}
}

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                       {}

func TestChannelsShareAConnectionAndLeaveNothing(t *testing.T) {
	port := backends(t, "127.0.0.1")
	var counted connections
	server := scripted.Serve(t, "", grpc.StatsHandler(&counted))
	builder := New(vmsvc.Config{Server: server.Address, Retry: atOnce})
	round := func() {
		var all []caller
		for range 10 {
			server.Then(scripted.Sends(snapshot(1, port, "127.0.0.1")))
			all = append(all, call(t, builder, "vmsvc:///shop/web", "round_robin"))
		}
		for _, each := range all {
			each.until("127.0.0.1")
		}
		if now := counted.now.Load(); now != 1 {
			t.Errorf("%d connections", now)
		}
		for _, each := range all {
			_ = each.Close()
		}
		if len(builder.clients) != 0 {
			t.Errorf("%d clients are left", len(builder.clients))
		}
	}
	round()
	before := scripted.Goroutines()
	for range 3 {
		round()
	}
	if left := scripted.MoreThan(before); left != "" {
		t.Error(left)
	}
	if ever := counted.ever.Load(); ever != 4 {
		t.Errorf("%d connections in 4 rounds", ever)
	}
}

func TestChannelThatWasIdleAsksAnew(t *testing.T) {
	port := backends(t, "127.0.0.1", "127.0.0.2")
	server := scripted.Serve(t, "")
	left := make(chan struct{})
	server.Then(func(s *scripted.Stream) error {
		defer close(left)
		return scripted.Sends(snapshot(1, port, "127.0.0.1"))(s)
	}, scripted.Sends(snapshot(1, port, "127.0.0.2")))
	builder := New(vmsvc.Config{Server: server.Address, Retry: atOnce})
	channel := call(t, builder, "vmsvc:///shop/web", "round_robin", grpc.WithIdleTimeout(50*time.Millisecond))
	channel.until("127.0.0.1")
	<-left
	channel.until("127.0.0.2")
}

func TestOutagesAreLoggedOnce(t *testing.T) {
	const failed, good = "failed", "good"
	for _, test := range []struct {
		steps  []string
		logged []bool
	}{
		{[]string{failed, failed, good, good}, []bool{true, false, true, false}},
		{[]string{good, failed, good, failed, good}, []bool{false, false, false, false, false}},
		{[]string{good, failed, failed, failed, good}, []bool{false, false, true, false, true}},
	} {
		var away outage
		var logged []bool
		for _, step := range test.steps {
			if step == failed {
				logged = append(logged, away.failed())
			} else {
				logged = append(logged, away.over())
			}
		}
		if !slices.Equal(logged, test.logged) {
			t.Errorf("%v: logged %v, want %v", test.steps, logged, test.logged)
		}
	}
}

// zoned is round_robin that lets a test see the zones of the endpoints that it is given.
const zoned = "test_zoned"

var zones = make(chan map[string]string, 100)

func init() { balancer.Register(zonedBuilder{}) }

type zonedBuilder struct{}

func (zonedBuilder) Name() string { return zoned }

func (zonedBuilder) Build(cc balancer.ClientConn, options balancer.BuildOptions) balancer.Balancer {
	return zonedBalancer{balancer.Get("round_robin").Build(cc, options)}
}

type zonedBalancer struct{ balancer.Balancer }

func (b zonedBalancer) UpdateClientConnState(state balancer.ClientConnState) error {
	found := map[string]string{}
	for _, each := range state.ResolverState.Endpoints {
		if known, ok := EndpointOf(each); ok {
			found[known.VMName] = known.Zone
		}
	}
	zones <- found
	return b.Balancer.UpdateClientConnState(state)
}

func TestPolicyKnowsTheZoneOfEachVM(t *testing.T) {
	manifests := t.TempDir()
	port := backends(t, "127.0.0.1", "127.0.0.2")
	serving.Write(t, manifests, "web", serving.Service("http:80:"+port))
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "127.0.0.1", Zone: "zone-a"}.Manifest())
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "127.0.0.2", Zone: "zone-b"}.Manifest())
	builder := New(vmsvc.Config{Server: serving.Start(t, manifests, "").Address, Retry: atOnce})
	call(t, builder, "vmsvc:///shop/web", zoned).until("127.0.0.1", "127.0.0.2")
	if got, want := <-zones, (map[string]string{"a": "zone-a", "b": "zone-b"}); !maps.Equal(got, want) {
		t.Errorf("zones %v", got)
	}
	// A VM that moves is told, though its address is as it was.
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "127.0.0.2", Zone: "zone-c"}.Manifest())
	if got := <-zones; got["b"] != "zone-c" {
		t.Errorf("zones %v", got)
	}
}

func TestTargetThatCannotBe(t *testing.T) {
	builder := New(vmsvc.Config{})
	for target, reason := range map[string]string{
		"vmsvc:///web":             "write for instance vmsvc:///shop/web:http",
		"vmsvc://nowhere/shop/web": "is not HOST:PORT",
	} {
		_, err := call(t, builder, target, "round_robin").once()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v", target, err)
		}
	}
}
