// Package talk is how the programs here are spoken with: a JSON object a line on standard output,
// and the end of standard input when they are to end.
package talk

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"sync"
	"time"
)

var (
	mutex   sync.Mutex
	encoder = json.NewEncoder(os.Stdout)
)

// Say writes one line. For any goroutine.
func Say(line any) {
	mutex.Lock()
	defer mutex.Unlock()
	if err := encoder.Encode(line); err != nil {
		log.Fatal(err)
	}
}

// Event is a line that tells that something has happened, and when: in ns since 1970.
type Event struct {
	Event string `json:"event"`
	AtNS  int64  `json:"at_ns"`
}

// Now is the line that tells that something happens now.
func Now(event string) Event {
	return Event{Event: event, AtNS: time.Now().UnixNano()}
}

// UntilTold returns when standard input ends.
func UntilTold() {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}
