// Watch prints what a watch yields as `vmsvc watch -o json` does, an object a line: how the
// conformance table of clients drives this one.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config := vmsvc.Config{}
	scope := vmsvc.Scope{}
	flag.StringVar(&config.Server, "server", vmsvc.DefaultServer, "whom to ask, HOST:PORT")
	flag.Func("token-file", "show the bearer token of this file", func(path string) error {
		config.Token = vmsvc.TokenFile(path)
		return nil
	})
	flag.BoolFunc("all", "endpoints that are not ready, too", func(string) error {
		scope.Readiness = vmsvc.All
		return nil
	})
	flag.Func("n", "all services of this namespace; may be given several times", func(namespace string) error {
		scope.Namespaces = append(scope.Namespaces, namespace)
		return nil
	})
	flag.BoolVar(&scope.AllServices, "A", false, "all services of all namespaces")
	flag.Parse()
	scope.Services = flag.Args()
	if len(scope.Services) == 0 && len(scope.Namespaces) == 0 {
		scope.AllServices = true
	}
	client, err := vmsvc.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := json.NewEncoder(os.Stdout)
	lines.SetEscapeHTML(false)
	for event, err := range client.Watch(scope).Events(ctx) {
		if err != nil {
			return err
		}
		if err := lines.Encode(line(event, time.Now())); err != nil {
			return err
		}
	}
	return nil
}

// line is an event as an object.
func line(event vmsvc.Event, at time.Time) any {
	type about struct {
		Time  string `json:"time"`
		Event string `json:"event"`
	}
	when := at.UTC().Format("2006-01-02T15:04:05.000-07:00")
	switch event := event.(type) {
	case vmsvc.ServiceState:
		return struct {
			about
			Present bool `json:"present"`
			vmsvc.ServiceState
		}{about{when, "state"}, event.Present(), event}
	case vmsvc.Disconnected:
		return struct {
			about
			Code     string  `json:"code"`
			Error    string  `json:"error"`
			RetryInS float64 `json:"retry_in_s"`
		}{
			about{when, "disconnected"},
			code.Code_name[int32(event.Err.Code)], event.Err.Message, event.RetryIn.Seconds(),
		}
	default:
		return about{when, "synced"}
	}
}
