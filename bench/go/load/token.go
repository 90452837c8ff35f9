package main

import (
	"context"
	"fmt"
	"strings"
)

// A token of a ServiceAccount has about so many bytes.
const tokenBytes = 1000

// token is a bearer token, for calls over TLS alone.
type token string

// tokenOf is the token of a connection: its caller's name, and as much as makes it as long as real
// ones are.
func tokenOf(connection int) token {
	name := fmt.Sprintf("caller-%d.", connection)
	return token(name + strings.Repeat("x", tokenBytes-len(name)))
}

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (t token) RequireTransportSecurity() bool { return true }
