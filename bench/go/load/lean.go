package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What a lean connection lets the server send before it says that it has read: enough that the
// server never waits for it, as with streams of gRPC that read.
const leanWindow = 1 << 30

// lean is one connection that speaks just enough of HTTP/2 and gRPC to follow many streams with
// one goroutine: a stream of grpc-go takes some 20 KB and two goroutines, of which 100,000 would
// not leave a server its part of the machine. What fails is not tried again.
type lean struct {
	protocol protocol
	streams  []*stream
	framer   *http2.Framer
	unread   int               // Bytes that came since the connection's window was opened last.
	parts    map[uint32][]byte // By stream: a message of which the rest is to come.
	opened   func()            // Called once a stream: when its first answers are complete.
}

// leanly follows streams on a connection of their own until it ends, or `ctx` does; then all that
// were not open count as opened.
func (c *client) leanly(ctx context.Context, streams []*stream, opened func()) {
	due := len(streams)
	l := &lean{protocol: c.protocol, streams: streams, parts: map[uint32][]byte{}}
	l.opened = func() {
		due--
		opened()
	}
	if err := l.run(ctx, c); ctx.Err() == nil {
		for _, s := range streams {
			s.ended(err)
		}
	}
	for due > 0 {
		l.opened()
	}
}

func (l *lean) run(ctx context.Context, c *client) error {
	conn, err := c.dial(ctx, c.target)
	if err != nil {
		return err
	}
	var once sync.Once
	closed := func() { once.Do(func() { conn.Close() }) }
	defer closed()
	defer context.AfterFunc(ctx, closed)()
	if err := l.open(conn, c.target); err != nil {
		return err
	}
	for {
		if err := l.next(); err != nil {
			return err
		}
	}
}

// open sends the preface, and the request of each stream.
func (l *lean) open(conn net.Conn, authority string) error {
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	l.framer = http2.NewFramer(conn, conn)
	l.framer.SetReuseFrames()
	l.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	window := http2.Setting{ID: http2.SettingInitialWindowSize, Val: leanWindow}
	if err := l.framer.WriteSettings(window); err != nil {
		return err
	}
	if err := l.framer.WriteWindowUpdate(0, leanWindow); err != nil {
		return err
	}
	for n, s := range l.streams {
		if err := l.request(uint32(2*n+1), s, authority); err != nil {
			return err
		}
	}
	return nil
}

func (l *lean) request(id uint32, s *stream, authority string) error {
	method, _ := l.protocol.call()
	var block headerBlock
	for _, field := range [...][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", method},
		{":authority", authority},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		block.add(field[0], field[1])
	}
	head := http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}
	if err := l.framer.WriteHeaders(head); err != nil {
		return err
	}
	message := l.protocol.request(s.service, s.offered(false))
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return l.framer.WriteData(id, true, append(framed, message...))
}

// headerBlock is header fields that need no table: each as it is, and new (RFC 7541, 6.2.2).
type headerBlock []byte

// add appends a field; both texts are shorter than 127 bytes.
func (b *headerBlock) add(name, value string) {
	*b = append(*b, 0, byte(len(name)))
	*b = append(*b, name...)
	*b = append(*b, byte(len(value)))
	*b = append(*b, value...)
}

// next takes in one frame. An error ends the connection.
func (l *lean) next() error {
	frame, err := l.framer.ReadFrame()
	if err != nil {
		return err
	}
	switch frame := frame.(type) {
	case *http2.DataFrame:
		return l.data(frame)
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return l.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return l.framer.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		if frame.StreamEnded() {
			return l.over(frame)
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("a stream is reset: %v", frame.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("sent away: %v %s", frame.ErrCode, frame.DebugData())
	}
	return nil
}

// over is why a stream was ended, and with it the connection: nothing here ends by right.
func (l *lean) over(frame *http2.MetaHeadersFrame) error {
	said := "without a status"
	for _, field := range frame.Fields {
		if field.Name == "grpc-status" || field.Name == "grpc-message" {
			said += " " + field.Value
		}
	}
	return errors.New("a stream has ended: " + said)
}

// data takes in a piece of a stream, and all messages that are whole with it.
func (l *lean) data(frame *http2.DataFrame) error {
	at := time.Now()
	id, piece := frame.StreamID, frame.Data()
	n := int(id) / 2
	if n >= len(l.streams) {
		return fmt.Errorf("there is no stream %d", id)
	}
	l.unread += len(piece)
	if l.unread > leanWindow/2 {
		if err := l.framer.WriteWindowUpdate(0, uint32(l.unread)); err != nil {
			return err
		}
		l.unread = 0
	}
	if before, ok := l.parts[id]; ok {
		piece = append(before, piece...)
	}
	for len(piece) >= 5 {
		end := 5 + int(binary.BigEndian.Uint32(piece[1:]))
		if len(piece) < end {
			break
		}
		if err := l.message(l.streams[n], piece[5:end], at); err != nil {
			return err
		}
		piece = piece[end:]
	}
	if len(piece) == 0 {
		delete(l.parts, id)
	} else {
		l.parts[id] = append([]byte(nil), piece...)
	}
	return nil
}

func (l *lean) message(s *stream, message []byte, at time.Time) error {
	told, answer, err := s.take(l.protocol, message, at)
	if err == nil && answer != nil {
		err = errors.New("a lean client only listens")
	}
	if err == nil && told != nil && l.protocol.completes(told) {
		l.opened()
	}
	return err
}
