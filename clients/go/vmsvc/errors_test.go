package vmsvc

import (
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestSentences(t *testing.T) {
	for _, test := range []struct {
		code    codes.Code
		message string
		want    string
	}{
		{codes.NotFound, "there is none", "there is none"},
		{codes.NotFound, "", "server s:1: NotFound"},
		{codes.Unavailable, "about to stop", "server s:1: about to stop"},
		{codes.DeadlineExceeded, "context deadline exceeded", "server s:1 did not answer in time"},
		{codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`,
			"server s:1 cannot be reached, at 127.0.0.1:1: connection refused"},
		{codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial tcp s:1: connect: connection refused"`,
			"server s:1 cannot be reached: connection refused"},
		{codes.Unavailable, "name resolver error: produced zero addresses",
			"server s:1 cannot be reached: its name has no address"},
		{codes.Unavailable,
			`connection error: desc = "error reading server preface: http2: frame too large"`,
			"server s:1 speaks no gRPC; is that its port for HTTP, or does it take only TLS?"},
		{codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial tcp: lookup nowhere: no such host"`,
			"server s:1 cannot be reached: dial tcp: lookup nowhere: no such host"},
		{codes.Unavailable,
			`connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`,
			"server s:1 cannot be trusted, or does not trust us: tls: first record does not look like a TLS handshake"},
	} {
		err := failure("s:1", status.Error(test.code, test.message))
		if err.Error() != test.want || err.Code != test.code || status.Code(err) != test.code {
			t.Errorf("%s %q: got %q, want %q", test.code, test.message, err, test.want)
		}
	}
}

func TestDetails(t *testing.T) {
	detailed, err := status.New(codes.InvalidArgument, "wrong").WithDetails(
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "service", Description: "has no namespace"},
		}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
	)
	if err != nil {
		t.Fatal(err)
	}
	var got *Error
	if !errors.As(error(failure("s:1", detailed.Err())), &got) {
		t.Fatal("it is an Error")
	}
	if got.RetryAfter != 1500*time.Millisecond ||
		!slices.Equal(got.Violations, []FieldViolation{{"service", "has no namespace"}}) {
		t.Errorf("got %+v", got)
	}
}

func TestStatusOfAnError(t *testing.T) {
	for _, test := range []struct {
		err     *Error
		code    codes.Code
		message string
	}{
		{failure("s:1", status.Error(codes.Unavailable, "about to stop")), codes.Unavailable, "about to stop"},
		{failure("s:1", errors.New("?")), codes.Unknown, "server s:1: ?"},
		{violation(web, "?"), codes.Internal, "service shop/web: ?"},
		{endedWithOK("s:1"), codes.Unknown, "server s:1 ended the stream"},
	} {
		if got := status.Convert(test.err); got.Code() != test.code || got.Message() != test.message {
			t.Errorf("%v: got %v", test.err, got)
		}
	}
}
