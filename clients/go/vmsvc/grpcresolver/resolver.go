package grpcresolver

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
)

// refusedWait is the longest wait before a server that refused is asked again: rights may be granted
// while a program runs. It waits for half of it at least.
const refusedWait = time.Minute

var log = grpclog.Component("vmsvc")

// Builder makes resolvers: give it to grpc.WithResolvers, or for all of a process to resolver.Register.
type Builder struct {
	config      vmsvc.Config
	refusedWait time.Duration

	mu      sync.Mutex
	clients map[string]*shared
}

// gRPC asks for these at run time.
var (
	_ resolver.Builder            = (*Builder)(nil)
	_ resolver.AuthorityOverrider = (*Builder)(nil)
)

// shared is a client of one server, and how many resolvers use it.
type shared struct {
	*vmsvc.Client
	users int
}

// New is a builder whose resolvers reach their servers as config says; a target that names a server is
// about that one. Whoever may choose targets chooses who is sent its token.
func New(config vmsvc.Config) *Builder {
	return &Builder{config: config, refusedWait: refusedWait, clients: map[string]*shared{}}
}

// Scheme is "vmsvc".
func (b *Builder) Scheme() string { return Scheme }

// OverrideAuthority is the name that calls to shop/web have as :authority, and TLS as the server's name:
// web.shop.svc, as in Kubernetes. grpc.WithAuthority comes before it.
func (b *Builder) OverrideAuthority(target resolver.Target) string {
	asked, err := read(target)
	if err != nil {
		return "invalid" // Build says what is wrong.
	}
	return asked.authority()
}

// Build is of grpc-go, which calls it when a channel is first used, and after it was idle.
func (b *Builder) Build(
	target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	asked, err := read(target)
	if err != nil {
		return nil, err
	}
	client, err := b.acquire(asked.server)
	if err != nil {
		return nil, err
	}
	// All endpoints, as the reason why none is ready counts them.
	watch := client.Watch(vmsvc.Scope{Services: []string{asked.service}, Readiness: vmsvc.All})
	ctx, cancel := context.WithCancel(context.Background())
	made := &following{
		cc: cc, watch: watch, service: asked.service, port: asked.port,
		refusedWait: b.refusedWait, cancel: cancel,
	}
	made.work.Go(func() {
		defer b.release(asked.server)
		made.follow(ctx)
	})
	return made, nil
}

func (b *Builder) acquire(server string) (*vmsvc.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held, ok := b.clients[server]
	if !ok {
		config := b.config
		if server != "" {
			config.Server = server
		}
		client, err := vmsvc.New(config)
		if err != nil {
			return nil, err
		}
		held = &shared{Client: client}
		b.clients[server] = held
	}
	held.users++
	return held.Client, nil
}

func (b *Builder) release(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.clients[server]
	if held.users--; held.users == 0 {
		delete(b.clients, server)
		_ = held.Close()
	}
}

// following is the resolver of one channel: it has the channel follow one service.
type following struct {
	cc          resolver.ClientConn
	watch       *vmsvc.Watch
	service     string
	port        string
	refusedWait time.Duration
	cancel      context.CancelFunc
	work        sync.WaitGroup

	// What the channel was told last, if anything.
	told bool
	last outcome
	away outage
}

// outage is a time in which a server does not answer. It is logged once, and not where a stream that was
// good is replaced by the next try: a server that is about to stop ends its streams.
type outage struct {
	good     bool
	failures int
}

// failed is for a try that failed, or a stream that ended; it says whether to log an outage.
func (o *outage) failed() bool {
	o.failures++
	return o.good && o.failures == 2 || !o.good && o.failures == 1
}

// over is for a stream that is good; it says whether to log that an outage is over.
func (o *outage) over() bool {
	logged := o.good && o.failures > 1 || !o.good && o.failures > 0
	*o = outage{good: true}
	return logged
}

// ResolveNow does nothing: what changes is told at once, and a server that is away is asked again soon.
func (f *following) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends it, and waits until it has ended.
func (f *following) Close() {
	f.cancel()
	f.work.Wait()
}

// follow tells the channel of each change until ctx is done.
func (f *following) follow(ctx context.Context) {
	for {
		err := f.read(ctx)
		if ctx.Err() != nil {
			return
		}
		f.unknown(err)
		// Others may have been refused at the same time: not all of them should ask again at once.
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.refusedWait/2 + rand.N(f.refusedWait/2)):
		}
	}
}

// read reads the watch to its error.
func (f *following) read(ctx context.Context) error {
	for event, err := range f.watch.Events(ctx) {
		if err != nil {
			return err
		}
		switch event := event.(type) {
		case vmsvc.ServiceState:
			f.tell(of(event, f.port))
		case vmsvc.Synced:
			if f.away.over() {
				log.Infof("the server of %s answers again", f.service)
			}
		case vmsvc.Disconnected:
			f.unknown(event.Err)
		}
	}
	return nil
}

// unknown is for a server that does not answer: the channel goes on with what it knows, if that is
// anything.
func (f *following) unknown(err error) {
	if f.away.failed() {
		log.Warningf("%s is not followed, until its server answers: %v", f.service, err)
	}
	if !f.told {
		// Without the status of our own call: gRPC would end calls with that, waiting ones as well.
		f.cc.ReportError(errors.New(err.Error()))
	}
}

func (f *following) tell(now outcome) {
	if f.told && f.last.equal(now) {
		return
	}
	f.told, f.last = true, now
	// That a policy does not like a state is seen by calls; asking anew would not change it.
	_ = f.cc.UpdateState(state(now))
	if now.reason != "" {
		f.cc.ReportError(errors.New(now.reason))
	}
}

// state is an outcome as gRPC takes it.
//
// Without endpoints it has one that has no address. From an empty state, policies that balance over
// endpoints forget the reason that is reported next, and fail calls with "no children to pick from"; of
// an endpoint without address they know that it cannot be reached, and the reason why. It has a key for
// ring_hash, which else takes the first address of each endpoint for one, and panics where there is none.
func state(of outcome) resolver.State {
	if of.reason != "" {
		nobody := ringhash.SetHashKey(resolver.Endpoint{}, "nobody")
		return resolver.State{Endpoints: []resolver.Endpoint{nobody}}
	}
	made := resolver.State{}
	for _, each := range of.endpoints {
		endpoint := resolver.Endpoint{Attributes: attributes.New(endpointKey{}, each.Endpoint)}
		for _, address := range each.addresses {
			endpoint.Addresses = append(endpoint.Addresses, resolver.Address{Addr: address})
		}
		made.Endpoints = append(made.Endpoints, endpoint)
		// For policies that do not know endpoints yet.
		made.Addresses = append(made.Addresses, endpoint.Addresses...)
	}
	return made
}

type endpointKey struct{}

// EndpointOf is what the server says of an endpoint that a load-balancing policy was given: its VM and
// zone. Of a VM with several addresses it has the first. False if this package did not make it.
func EndpointOf(endpoint resolver.Endpoint) (vmsvc.Endpoint, bool) {
	found, ok := endpoint.Attributes.Value(endpointKey{}).(vmsvc.Endpoint)
	return found, ok
}
