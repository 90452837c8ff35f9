// Package rawcodec has gRPC carry messages as the bytes they are: nothing is encoded or
// decoded a stream, so those who send one message to thousands share its bytes.
package rawcodec

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// Codec sends a []byte, and receives into a *mem.Buffer, which the receiver frees.
type Codec struct{}

// Marshal takes a []byte, which must not change any more.
func (Codec) Marshal(message any) (mem.BufferSlice, error) {
	bytes, ok := message.([]byte)
	if !ok {
		return nil, fmt.Errorf("rawcodec sends []byte and not %T", message)
	}
	return mem.BufferSlice{mem.SliceBuffer(bytes)}, nil
}

// Unmarshal gives the message to a *mem.Buffer: what was received itself, where it is in one
// piece.
func (Codec) Unmarshal(data mem.BufferSlice, message any) error {
	buffer, ok := message.(*mem.Buffer)
	if !ok {
		return fmt.Errorf("rawcodec receives *mem.Buffer and not %T", message)
	}
	*buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}

// Name is that of what the bytes are.
func (Codec) Name() string { return "proto" }
