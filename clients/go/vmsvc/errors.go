package vmsvc

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrClosed is the error of calls and watches of a client that was closed.
var ErrClosed = errors.New("the client is closed")

// FieldViolation is what is wrong with one field of a request.
type FieldViolation struct{ Field, Description string }

// Error is how a call failed. It wraps gRPC's own error, if there is one, so that errors.Is sees through
// it, and status.Code has its Code.
//
//	NotFound            there is no such service
//	FailedPrecondition  it exists, but its specification is not valid
//	InvalidArgument     the request is wrong; Violations name the fields
//	Unavailable         not reachable, not ready, or about to stop: try again
//	ResourceExhausted   a limit of the server is reached
//	Unauthenticated, PermissionDenied  the server does not let you
//	Unimplemented       what answers is no endpoint server
//	Internal            the server broke its contract; a watch starts afresh after it
//	OK                  of a watch: the server ended the stream without an error
type Error struct {
	Code codes.Code
	// Message is one sentence for a person.
	Message    string
	Violations []FieldViolation
	// RetryAfter is how long the server asks to wait before the next attempt; 0 if it does not say.
	RetryAfter time.Duration

	protocol bool
	cause    error
}

func (e *Error) Error() string { return e.Message }

// Unwrap is the error of gRPC, or of a context; nil for a stream that ended with OK.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is it as gRPC has it, with the server's own message and details. Of a stream that ended with
// OK it is UNKNOWN: an error is never OK.
func (e *Error) GRPCStatus() *status.Status {
	if of := statusOf(e.cause); of != nil {
		return of
	}
	if e.Code == codes.OK {
		return status.New(codes.Unknown, e.Message)
	}
	return status.New(e.Code, e.Message)
}

// statusOf is the status of an error of gRPC, without the texts of errors beside it; nil of any other.
func statusOf(err error) *status.Status {
	var of interface{ GRPCStatus() *status.Status }
	if errors.As(err, &of) {
		return of.GRPCStatus()
	}
	return nil
}

// failure is the error for one of gRPC. server is named where the fault may lie in the way to it.
func failure(server string, cause error) *Error {
	found := statusOf(cause)
	if found == nil {
		found = status.Convert(cause)
	}
	err := &Error{Code: found.Code(), cause: cause}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			for _, v := range detail.GetFieldViolations() {
				err.Violations = append(err.Violations, FieldViolation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			err.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	err.Message = sentence(server, found.Code(), found.Message())
	return err
}

// broken is the error for a server that broke its contract, by messages that gRPC finds no fault with.
func broken(message string) *Error {
	cause := status.Error(codes.Internal, message)
	return &Error{Code: codes.Internal, Message: message, protocol: true, cause: cause}
}

// endedWithOK is the error of a stream that the server ended without one.
func endedWithOK(server string) *Error {
	return &Error{Code: codes.OK, Message: fmt.Sprintf("server %s ended the stream", server)}
}

// What grpc-go says of an address that it cannot connect to. The last clause is the reason.
var (
	dialFailed      = regexp.MustCompile(`Error while dialing: (?:dial \S+ (\S+): )?(.*?)"?$`)
	handshakeFailed = regexp.MustCompile(`authentication handshake failed: (.*?)"?$`)
	// The first bytes of HTTP/1.1, or of TLS, as those of an HTTP/2 frame.
	notHTTP2 = regexp.MustCompile(`error reading server preface: http2: (frame too large|.*HTTP/1\.1)`)
)

// What grpc-go says where DNS does not know a name.
const noAddress = "name resolver error: produced zero addresses"

func sentence(server string, code codes.Code, message string) string {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition:
		if message != "" {
			return message
		}
	case codes.DeadlineExceeded:
		return fmt.Sprintf("server %s did not answer in time", server)
	}
	if found := dialFailed.FindStringSubmatch(message); found != nil {
		reason := strings.TrimPrefix(found[2], "connect: ")
		if at := found[1]; at != "" && at != server {
			// One of the addresses of its name; or a proxy that the environment names.
			return fmt.Sprintf("server %s cannot be reached, at %s: %s", server, at, reason)
		}
		return fmt.Sprintf("server %s cannot be reached: %s", server, reason)
	}
	if message == noAddress {
		return fmt.Sprintf("server %s cannot be reached: its name has no address", server)
	}
	if notHTTP2.MatchString(message) {
		return fmt.Sprintf("server %s speaks no gRPC; is that its port for HTTP, or does it take only TLS?", server)
	}
	if found := handshakeFailed.FindStringSubmatch(message); found != nil {
		return fmt.Sprintf("server %s cannot be trusted, or does not trust us: %s", server, found[1])
	}
	if message == "" {
		message = code.String()
	}
	return fmt.Sprintf("server %s: %s", server, message)
}
