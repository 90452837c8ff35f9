package vmsvc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

// DefaultServer is who is asked if no server is named.
const DefaultServer = "127.0.0.1:50051"

const (
	// A peer that vanished is noticed within the sum of these two.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	connectTimeout   = 5 * time.Second

	// All endpoints of a service come in one message; some 400,000 fit.
	messageBytesMax = 64 * 1024 * 1024

	// A client that stalls should hold few stale messages in flight, and then get the newest. Left to
	// itself, grpc-go has a stream's window grow to 16 MiB.
	streamWindowBytes = 64 * 1024
	// For all streams of the connection. One that stalls does not use this up for the others, as
	// grpc-go gives a connection's window back when bytes arrive.
	connectionWindowBytes = 1024 * 1024
)

// Reads may be tried again. A server that is about to stop has a successor soon.
const serviceConfig = `{
  "loadBalancingConfig": [{"pick_first": {}}],
  "methodConfig": [{
    "name": [
      {"service": "vmsvc.v1.EndpointService", "method": "ResolveEndpoints"},
      {"service": "vmsvc.v1.EndpointService", "method": "ListServices"},
      {"service": "vmsvc.v1.EndpointService", "method": "ExplainEndpoints"},
      {"service": "vmsvc.v1.ServerService", "method": "GetVersion"}
    ],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

var hostAndPort = regexp.MustCompile(`^(\[[\w:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}$`)
var grpcName = regexp.MustCompile(`^(dns|unix|unix-abstract):\S+$`)

// Config is whom a client asks, and how. Its zero value is for a server of this machine.
type Config struct {
	// Server is HOST:PORT, [DefaultServer] if empty, or a name of gRPC such as dns:///HOST:PORT.
	Server string
	// TLS protects the connection; nil: nothing does. See [TLSFiles].
	TLS credentials.TransportCredentials
	// Token is shown with each call, if given, and asked once more where the server does not know the
	// caller (UNAUTHENTICATED); a watch does so each time its token expires. Without TLS it is sent to
	// this machine only. See [TokenFile].
	Token Token
	// Authority is the name that the server has to prove, if it is not that of its address.
	Authority string
	// Retry is how watches reconnect.
	Retry RetryPolicy
	// DialOptions come after the client's own.
	DialOptions []grpc.DialOption
}

// Client asks one server. It connects when first asked, by one connection for all calls and watches,
// and is safe for concurrent use.
type Client struct {
	server    string
	retry     RetryPolicy
	renewable bool
	conn      *grpc.ClientConn
	stub      vmsvcv1.EndpointServiceClient
	closing   sync.Once
	closed    chan struct{}
}

// New is a client of config; nothing is sent yet. An error says what of config cannot be.
func New(config Config) (*Client, error) {
	server := config.Server
	if server == "" {
		server = DefaultServer
	}
	if !hostAndPort.MatchString(server) && !grpcName.MatchString(server) {
		return nil, fmt.Errorf("server %q is not HOST:PORT; write for instance %s", server, DefaultServer)
	}
	loopback := loopbackServer.MatchString(server)
	if config.Token != nil && config.TLS == nil && !loopback {
		return nil, fmt.Errorf("a token would be sent to %s without TLS, for all to read; give TLS", server)
	}
	policy := config.Retry.withDefaults()
	// gRPC reads a URL: the % of an IPv6 zone is no escape in it.
	target := server
	if hostAndPort.MatchString(server) {
		target = "dns:///" + strings.ReplaceAll(server, "%", "%25")
	}
	conn, err := grpc.NewClient(target, append(config.options(policy, loopback), config.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		server:    server,
		retry:     policy,
		renewable: config.Token != nil,
		conn:      conn,
		stub:      vmsvcv1.NewEndpointServiceClient(conn),
		closed:    make(chan struct{}),
	}, nil
}

func (c Config) options(policy RetryPolicy, loopback bool) []grpc.DialOption {
	protection := c.TLS
	if protection == nil {
		protection = insecure.NewCredentials()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(protection),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // None from DNS.
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connectionWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		// The connection's back-off follows that of the watches on it.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: policy.Initial, Multiplier: 2, Jitter: 0.2, MaxDelay: policy.Max,
			},
			MinConnectTimeout: connectTimeout,
		}),
	}
	if c.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer{c.Token, loopback}))
	}
	if c.Authority != "" {
		options = append(options, grpc.WithAuthority(c.Authority))
	}
	return options
}

// Close ends every call and watch of this client, with [ErrClosed], and its connection. It may be
// called twice.
func (c *Client) Close() error {
	var err error
	c.closing.Do(func() {
		close(c.closed)
		err = c.conn.Close()
	})
	return err
}

// Resolve is the endpoints of "namespace/name" as they are now. An error has code NotFound if there is
// no such service, FailedPrecondition if its specification is not valid.
func (c *Client) Resolve(ctx context.Context, service string, readiness Readiness) (ServiceState, error) {
	request := &vmsvcv1.ResolveEndpointsRequest{Service: service, Readiness: readiness.number()}
	response, err := answer(ctx, c, c.stub.ResolveEndpoints, request)
	if err != nil {
		return ServiceState{}, err
	}
	if err := answersAbout(service, response.GetEndpointSet().GetService()); err != nil {
		return ServiceState{}, err
	}
	return present(response.GetEndpointSet()), nil
}

// answersAbout is an error where an answer is about another service than was asked for.
func answersAbout(asked, answered string) error {
	if answered != asked {
		return violation(asked, fmt.Sprintf("the server answers about %.300q", answered))
	}
	return nil
}

// following is the token of the page after the one asked for by token, if there is one. One that leads
// to itself is an error, as it would do so for ever.
func following(token, next string) (string, error) {
	if next != "" && next == token {
		return "", broken("the server gives the same page again and again")
	}
	return next, nil
}

// List is the services of a namespace, or of all if it is empty, by name; fetched page by page. After
// an error nothing comes.
func (c *Client) List(ctx context.Context, namespace string) iter.Seq2[*vmsvcv1.ServiceSummary, error] {
	return func(yield func(*vmsvcv1.ServiceSummary, error) bool) {
		request := &vmsvcv1.ListServicesRequest{Namespace: namespace}
		for {
			page, err := answer(ctx, c, c.stub.ListServices, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, service := range page.GetServices() {
				if !yield(service, nil) {
					return
				}
			}
			if request.PageToken, err = following(request.PageToken, page.GetNextPageToken()); err != nil {
				yield(nil, err)
				return
			}
			if request.PageToken == "" {
				return
			}
		}
	}
}

// Explain is why each VM is in "namespace/name", or is not; or one VM of its namespace alone, unless
// vmName is empty. Fetched page by page, and told as one. An error has code NotFound if there is no
// such service, or no such VM.
func (c *Client) Explain(
	ctx context.Context, service, vmName string,
) (*vmsvcv1.ExplainEndpointsResponse, error) {
	request := &vmsvcv1.ExplainEndpointsRequest{Service: service, VmName: vmName}
	var vms []*vmsvcv1.VirtualMachineExplanation
	for {
		page, err := answer(ctx, c, c.stub.ExplainEndpoints, request)
		if err != nil {
			return nil, err
		}
		if err := answersAbout(service, page.GetService()); err != nil {
			return nil, err
		}
		vms = append(vms, page.GetVirtualMachines()...)
		if request.PageToken, err = following(request.PageToken, page.GetNextPageToken()); err != nil {
			return nil, err
		}
		if request.PageToken == "" {
			// All but the VMs is told anew on each page; the last one is the newest.
			page.VirtualMachines = vms
			return page, nil
		}
	}
}

// Version is the release that answers, its protobuf packages, what it runs on, and since when it serves.
// A server of release 0.1.0 does not say: Unimplemented.
func (c *Client) Version(ctx context.Context) (*vmsvcv1.GetVersionResponse, error) {
	return answer(ctx, c, vmsvcv1.NewServerServiceClient(c.conn).GetVersion, &vmsvcv1.GetVersionRequest{})
}

// Watch follows the services of scope. Nothing is sent before it is read.
func (c *Client) Watch(scope Scope) *Watch {
	return &Watch{
		client: c,
		session: session{
			state:     newWatchState(scope),
			server:    c.server,
			retry:     newRetry(c.retry),
			renewable: c.renewable,
		},
	}
}

// answer is that of a unary call, asked once more if another token may be there by now.
func answer[Request, Response any](
	ctx context.Context,
	client *Client,
	method func(context.Context, *Request, ...grpc.CallOption) (*Response, error),
	request *Request,
) (*Response, error) {
	response, err := method(ctx, request)
	if err == nil {
		return response, nil
	}
	if status.Code(err) == codes.Unauthenticated && client.renewable {
		if response, err = method(ctx, request); err == nil {
			return response, nil
		}
	}
	if ctx.Err() != nil {
		// Of a context that is done, gRPC's error does not know.
		err = errors.Join(err, context.Cause(ctx))
	}
	return nil, client.failure(err)
}

// failure is the error of a call that ended with err.
func (c *Client) failure(err error) *Error {
	select {
	case <-c.closed:
		return &Error{Code: codes.Canceled, Message: ErrClosed.Error(), cause: errors.Join(ErrClosed, err)}
	default:
		return failure(c.server, err)
	}
}
