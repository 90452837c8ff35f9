// Package wire reads and writes single fields of protobuf messages, for messages of which a
// few fields are all that is wanted.
package wire

import "google.golang.org/protobuf/encoding/protowire"

// Value is what a field holds: Varint or Bytes, whichever its type on the wire is. Bytes are
// part of the message read.
type Value struct {
	Varint uint64
	Bytes  []byte
}

// Each gives every field of an encoded message to `visit`, in their order, until one is
// refused. An error if the message is not well-formed. Fields of fixed size are passed over.
func Each(message []byte, visit func(number protowire.Number, v Value) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var v Value
		known := true
		switch kind {
		case protowire.VarintType:
			v.Varint, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			v.Bytes, n = protowire.ConsumeBytes(message)
		default:
			known, n = false, protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if !known {
			continue
		}
		if err := visit(number, v); err != nil {
			return err
		}
	}
	return nil
}

// AppendString appends a field of text, unless it is empty.
func AppendString(b []byte, number protowire.Number, text string) []byte {
	if text == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), text)
}

// AppendVarint appends a field of a number, unless it is 0.
func AppendVarint(b []byte, number protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), value)
}

// AppendMessage appends a field of an encoded message, an empty one too.
func AppendMessage(b []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), message)
}
