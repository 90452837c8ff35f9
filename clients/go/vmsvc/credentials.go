package vmsvc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Token gives the bearer token to use now; it is asked at each call, and may be asked by several at
// once. An error of gRPC's status is that of the call.
type Token func(ctx context.Context) (string, error)

// A token has some kilobytes; this is one too much for a header field.
const tokenBytesMax = 64 * 1024

var wellFormedToken = regexp.MustCompile(`^[\x21-\x7e]+$`)

// TokenFile is a token from a file, read anew at each call: Kubernetes replaces it before it expires.
func TokenFile(path string) Token {
	return func(context.Context) (string, error) {
		file, err := os.Open(path)
		if err != nil {
			return "", unauthenticated(path, err.(*os.PathError).Err.Error())
		}
		defer file.Close()
		raw, err := io.ReadAll(io.LimitReader(file, tokenBytesMax+1))
		if err != nil {
			return "", unauthenticated(path, err.Error())
		}
		token := bytes.TrimSpace(raw)
		switch {
		case len(token) == 0:
			return "", unauthenticated(path, "it is empty")
		case len(raw) > tokenBytesMax || !wellFormedToken.Match(token):
			return "", unauthenticated(path, "it holds no token")
		}
		return string(token), nil
	}
}

func unauthenticated(path, why string) error {
	return status.Errorf(codes.Unauthenticated, "token file %s: %s", path, why)
}

// bearer shows a token with each call. gRPC itself refuses to send one in the clear, unless loopback.
type bearer struct {
	token    Token
	loopback bool
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.token(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.loopback }

var loopbackServer = regexp.MustCompile(
	`^(dns:(///)?)?(localhost|127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]+$|^unix(-abstract)?:\S+$`)

// TLSFiles are credentials from files in PEM: the CAs to trust (empty: the system's), and a
// certificate of our own with its key (both or none). They are read anew for each connection, since
// Kubernetes and cert-manager replace certificates before they expire; while they are of no use, as in
// mid-change, those read last go on. An error names the file.
func TLSFiles(cacert, cert, key string) (credentials.TransportCredentials, error) {
	files := &tlsFiles{cacert: cacert, cert: cert, key: key, shared: &sync.Mutex{}}
	config, err := files.read()
	if err != nil {
		return nil, err
	}
	files.last = credentials.NewTLS(config)
	return files, nil
}

type tlsFiles struct {
	cacert, cert, key string

	shared *sync.Mutex
	last   credentials.TransportCredentials
}

func (f *tlsFiles) read() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.cacert != "" {
		roots, err := os.ReadFile(f.cacert)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.cacert)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("a certificate and its key go together; give both files")
	}
	if f.cert != "" {
		own, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", f.cert, f.key, err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// newest are the credentials of the files as they are now.
func (f *tlsFiles) newest() credentials.TransportCredentials {
	config, err := f.read()
	f.shared.Lock()
	defer f.shared.Unlock()
	if err == nil {
		f.last = credentials.NewTLS(config)
	}
	return f.last
}

func (f *tlsFiles) ClientHandshake(
	ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return f.newest().ClientHandshake(ctx, authority, conn)
}

func (f *tlsFiles) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a client's credentials")
}

func (f *tlsFiles) Info() credentials.ProtocolInfo {
	f.shared.Lock()
	defer f.shared.Unlock()
	return f.last.Info()
}

func (f *tlsFiles) Clone() credentials.TransportCredentials { return f }

// OverrideServerName is deprecated in gRPC, which calls it nowhere; [Config] has Authority.
func (f *tlsFiles) OverrideServerName(string) error {
	return errors.New("name the authority instead")
}
