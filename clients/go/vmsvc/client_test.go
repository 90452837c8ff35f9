package vmsvc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/scripted"
	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/internal/serving"
	vmsvcv1 "github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/v1"
)

func TestWhatAConfigCannotBe(t *testing.T) {
	token := TokenFile("token")
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{}, ""},
		{Config{Server: "[::1]:50051"}, ""},
		{Config{Server: "dns:///endpoints.example:50051"}, ""},
		{Config{Server: "unix:/run/vmsvc.sock", Token: token}, ""},
		{Config{Server: "endpoints.example"}, "is not HOST:PORT"},
		{Config{Server: "http://endpoints.example:50051"}, "is not HOST:PORT"},
		{Config{Server: "::1:50051"}, "is not HOST:PORT"},
		{Config{Server: "localhost:50051", Token: token}, ""},
		{Config{Server: "127.1.2.3:50051", Token: token}, ""},
		{Config{Server: "[::1]:50051", Token: token}, ""},
		{Config{Server: "dns:///localhost:50051", Token: token}, ""},
		{Config{Server: "dns:///localhost.example:50051", Token: token}, "without TLS, for all to read"},
		{Config{Server: "[fe80::1%eth0]:50051"}, ""},
		{Config{Server: "endpoints.example:50051", Token: token}, "without TLS, for all to read"},
		{Config{Server: "127.0.0.1.example:50051", Token: token}, "without TLS, for all to read"},
		{Config{Server: "endpoints.example:50051", Token: token, TLS: credentials.NewTLS(nil)}, ""},
	} {
		made, err := New(test.config)
		switch {
		case err == nil:
			_ = made.Close()
			if test.want != "" {
				t.Errorf("%q is taken", test.config.Server)
			}
		case test.want == "" || !strings.Contains(err.Error(), test.want):
			t.Errorf("%q: got %q, want %q", test.config.Server, err, test.want)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "token")
	for content, want := range map[string]string{
		" a.b-c \n":                      "a.b-c",
		"":                               "it is empty",
		"two words":                      "it holds no token",
		"a\x00":                          "it holds no token",
		strings.Repeat("a", 65536):       strings.Repeat("a", 65536),
		strings.Repeat("a", 65536) + "b": "it holds no token",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := TokenFile(file)(context.Background())
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(got, want) || (err != nil && status.Code(err) != codes.Unauthenticated) {
			t.Errorf("%.20q: got %.80q", content, got)
		}
	}
	if _, err := TokenFile(folder + "/none")(context.Background()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

func TestLookUpsOfTheRealServer(t *testing.T) {
	manifests := t.TempDir()
	serving.Write(t, manifests, "web", serving.Service("http:80:8080"))
	serving.Write(t, manifests, "a", serving.VM{Name: "a", IPv4: "10.0.0.1"}.Manifest())
	serving.Write(t, manifests, "b", serving.VM{Name: "b", IPv4: "10.0.0.2", NotReady: true}.Manifest())
	asked := client(t, Config{Server: serving.Start(t, manifests, "").Address})
	ctx := bounded(t)
	for readiness, want := range map[Readiness]string{
		ReadyOnly: "shop/web 10.0.0.1", All: "shop/web 10.0.0.1 (10.0.0.2)",
	} {
		if got, err := asked.Resolve(ctx, web, readiness); err != nil || text(got) != want {
			t.Errorf("got %v, %v", got, err)
		}
	}
	for service, code := range map[string]codes.Code{db: codes.NotFound, "web": codes.InvalidArgument} {
		var told *Error
		_, err := asked.Resolve(ctx, service, All)
		if !errors.As(err, &told) || told.Code != code || (len(told.Violations) == 1) != (service == "web") {
			t.Errorf("%s: got %v", service, err)
		}
	}
	for summary, err := range asked.List(ctx, "shop") {
		if err != nil || summary.GetService() != web || summary.GetReady() != 1 || summary.GetNotReady() != 1 {
			t.Errorf("got %v, %v", summary, err)
		}
	}
	explained, err := asked.Explain(ctx, web, "b")
	if err != nil || len(explained.GetVirtualMachines()) != 1 ||
		explained.GetVirtualMachines()[0].GetVerdict() != vmsvcv1.VirtualMachineExplanation_VERDICT_NOT_READY {
		t.Errorf("got %v, %v", explained, err)
	}
	version, err := asked.Version(ctx)
	if err != nil || !slices.Contains(version.GetPackages(), "vmsvc.v1") {
		t.Errorf("got %v, %v", version, err)
	}
	_ = asked.Close()
	if _, err := asked.Resolve(ctx, web, All); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAnswersOfSeveralPages(t *testing.T) {
	server := scripted.Serve(t, "")
	pages := map[string]string{"": "1", "1": "2", "2": ""}
	server.Answer = func(request any) (any, error) {
		switch request := request.(type) {
		case *vmsvcv1.ListServicesRequest:
			return &vmsvcv1.ListServicesResponse{
				Services:      []*vmsvcv1.ServiceSummary{{Service: request.Namespace + "/" + request.PageToken}},
				NextPageToken: pages[request.PageToken],
			}, nil
		case *vmsvcv1.ExplainEndpointsRequest:
			return &vmsvcv1.ExplainEndpointsResponse{
				Service:         request.Service,
				VirtualMachines: []*vmsvcv1.VirtualMachineExplanation{{VmName: "vm" + request.PageToken}},
				NextPageToken:   pages[request.PageToken], Matching: uint32(len(request.PageToken)),
			}, nil
		default:
			return nil, status.Error(codes.Unimplemented, "?")
		}
	}
	asked := client(t, Config{Server: server.Address})
	var listed []string
	for summary, err := range asked.List(bounded(t), "shop") {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, summary.GetService())
	}
	if want := []string{"shop/", "shop/1", "shop/2"}; !slices.Equal(listed, want) {
		t.Errorf("listed %q", listed)
	}
	explained, err := asked.Explain(bounded(t), web, "")
	if err != nil || explained.GetMatching() != 1 || len(explained.GetVirtualMachines()) != 3 {
		t.Errorf("got %v, %v", explained, err)
	}
}

func TestAnswersThatCannotBe(t *testing.T) {
	server := scripted.Serve(t, "")
	server.Answer = func(request any) (any, error) {
		switch request.(type) {
		case *vmsvcv1.ResolveEndpointsRequest:
			return &vmsvcv1.ResolveEndpointsResponse{EndpointSet: &vmsvcv1.EndpointSet{Service: db}}, nil
		case *vmsvcv1.ListServicesRequest:
			return &vmsvcv1.ListServicesResponse{NextPageToken: "again"}, nil
		default:
			return &vmsvcv1.ExplainEndpointsResponse{Service: web, NextPageToken: "again"}, nil
		}
	}
	asked := client(t, Config{Server: server.Address})
	_, err := asked.Resolve(bounded(t), web, All)
	internal(t, err, `service shop/web: the server answers about "shop/db"`)
	_, err = asked.Explain(bounded(t), db, "")
	internal(t, err, `service shop/db: the server answers about "shop/web"`)
	_, err = asked.Explain(bounded(t), web, "")
	internal(t, err, "the same page again")
	for _, err := range asked.List(bounded(t), "") {
		internal(t, err, "the same page again")
	}
}

func internal(t *testing.T, err error, sentence string) {
	t.Helper()
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), sentence) {
		t.Errorf("got %v", err)
	}
}

func TestLookUpIsTriedAgainWhileAServerIsUnavailable(t *testing.T) {
	server := scripted.Serve(t, "")
	tries := 0
	server.Answer = func(any) (any, error) {
		if tries++; tries < 3 {
			return nil, status.Error(codes.Unavailable, "about to stop")
		}
		return &vmsvcv1.ResolveEndpointsResponse{EndpointSet: snapshot(web, 1, "a").GetSnapshot()}, nil
	}
	got, err := client(t, Config{Server: server.Address}).Resolve(bounded(t), web, All)
	if err != nil || text(got) != "shop/web a" || tries != 3 {
		t.Errorf("got %v, %v after %d tries", got, err, tries)
	}
}

func TestLookUpEndsWithItsContext(t *testing.T) {
	server := scripted.Serve(t, "")
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(bounded(t))
	server.Answer = func(any) (any, error) {
		cancel(enough)
		<-ctx.Done()
		return nil, status.Error(codes.Unavailable, "too late")
	}
	_, err := client(t, Config{Server: server.Address}).Resolve(ctx, web, All)
	if !errors.Is(err, enough) || status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestLookUpAsksForItsTokenOnceMore(t *testing.T) {
	server := scripted.Serve(t, "")
	server.Accept("2")
	server.Answer = func(any) (any, error) {
		return &vmsvcv1.ResolveEndpointsResponse{EndpointSet: snapshot(web, 1, "a").GetSnapshot()}, nil
	}
	tokens := make(chan string, 9)
	config := Config{
		Server: server.Address, Token: func(context.Context) (string, error) { return <-tokens, nil },
	}
	asked := client(t, config)
	for _, each := range []string{"1", "2", "1", "3"} {
		tokens <- each
	}
	if _, err := asked.Resolve(bounded(t), web, All); err != nil {
		t.Error(err)
	}
	if _, err := asked.Resolve(bounded(t), web, All); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
	if len(tokens) != 0 {
		t.Errorf("%d tokens are left", len(tokens))
	}
}

// authority issues certificates for tests.
type authority struct {
	t    *testing.T
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, name: name}
	a.cert, a.key = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true}, nil)
	return a
}

func (a *authority) sign(about *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	about.SerialNumber = big.NewInt(1)
	about.Subject = pkix.Name{CommonName: a.name}
	about.NotBefore, about.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := about, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, about, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// write puts the CA, and a certificate by it for loopback with its key, into files.
func (a *authority) write(folder string) (ca, cert, key string) {
	a.t.Helper()
	leaf, private := a.sign(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"endpoints.example"},
	}, a)
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	put := func(name, kind string, content []byte) string {
		file := filepath.Join(folder, name)
		encoded := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
		if err := os.WriteFile(file, encoded, 0o600); err != nil {
			a.t.Fatal(err)
		}
		return file
	}
	return put("ca.crt", "CERTIFICATE", a.cert.Raw), put("tls.crt", "CERTIFICATE", leaf.Raw),
		put("tls.key", "EC PRIVATE KEY", der)
}

// serveTLS has a server of that authority, which takes clients of it alone.
func serveTLS(t *testing.T, a *authority, address string) *scripted.Server {
	t.Helper()
	_, cert, key := a.write(t.TempDir())
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	protected := credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{own}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	return scripted.Serve(t, address, grpc.Creds(protected))
}

func TestTLSFilesAreReadAnewForEachConnection(t *testing.T) {
	folder := t.TempDir()
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	ca, cert, key := first.write(folder)
	files, err := TLSFiles(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := serveTLS(t, first, "")
	events := read(t, bounded(t), client(t, Config{Server: server.Address, TLS: files}).Watch(one))
	server.Then(scripted.Sends(snapshot(web, 1, "a"), synced()))
	events.want("shop/web a", "synced")

	// In mid-change: the last ones go on.
	if err := os.WriteFile(cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	server = serveTLS(t, first, server.Address)
	server.Then(scripted.Sends(current(web, 1, "a"), synced()))
	if event := events.reconnected(); event != (Synced{}) {
		t.Errorf("got %q", text(event))
	}

	second.write(folder)
	server.Stop()
	server = serveTLS(t, second, server.Address)
	server.Then(scripted.Sends(current(web, 1, "a"), synced()))
	if event := events.reconnected(); event != (Synced{}) {
		t.Errorf("got %q", text(event))
	}
}

func TestServerOfAnotherAuthorityIsNotTrusted(t *testing.T) {
	ca, _, _ := newAuthority(t, "ours").write(t.TempDir())
	files, err := TLSFiles(ca, "", "")
	if err != nil {
		t.Fatal(err)
	}
	server := serveTLS(t, newAuthority(t, "theirs"), "")
	events := read(t, bounded(t), client(t, Config{Server: server.Address, TLS: files}).Watch(one))
	told := events.event().(Disconnected)
	if told.Err.Code != codes.Unavailable || !strings.Contains(told.Err.Error(), "cannot be trusted") {
		t.Errorf("got %v", told.Err)
	}
}

func TestServerHasToProveTheAuthority(t *testing.T) {
	ours := newAuthority(t, "ours")
	files, err := TLSFiles(ours.write(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	server := serveTLS(t, ours, "")
	server.Answer = func(any) (any, error) {
		return &vmsvcv1.ResolveEndpointsResponse{EndpointSet: snapshot(web, 1).GetSnapshot()}, nil
	}
	for authority, code := range map[string]codes.Code{
		"": codes.OK, "endpoints.example": codes.OK, "other.example": codes.Unavailable,
	} {
		asked := client(t, Config{Server: server.Address, TLS: files, Authority: authority})
		if _, err := asked.Resolve(bounded(t), web, All); status.Code(err) != code {
			t.Errorf("%q: got %v", authority, err)
		}
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	folder := t.TempDir()
	ca, cert, key := newAuthority(t, "ours").write(folder)
	for _, files := range [][3]string{
		{folder + "/none", "", ""}, {key, "", ""}, {ca, cert, ""}, {ca, "", key}, {ca, cert, ca},
	} {
		if _, err := TLSFiles(files[0], files[1], files[2]); err == nil {
			t.Errorf("%q are taken", files)
		}
	}
}
