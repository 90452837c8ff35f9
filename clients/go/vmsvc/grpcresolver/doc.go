// Package grpcresolver has grpc-go find the VMs behind a VirtualMachineService, and follow each change.
//
//	builder := grpcresolver.New(vmsvc.Config{Server: "127.0.0.1:50051"})
//	conn, err := grpc.NewClient("vmsvc:///shop/web:http", grpc.WithResolvers(builder), ...)
//
// A target is vmsvc://SERVER/NAMESPACE/NAME:PORT. SERVER is HOST:PORT of the vmsvc-grpc server; without
// it, the one of the builder's configuration is asked. PORT is the name of one of the service's ports,
// or its number (that of the service, not of the VMs); a service with one TCP port needs none.
//
// # What calls see
//
// Only endpoints that are ready get calls. A VM with an IPv4 and an IPv6 address is one endpoint of gRPC
// with two addresses. Which of them gets a call is the load-balancing policy's matter; this package sets
// none, and gRPC's own default is pick_first: set for instance round_robin in the service config. A policy
// of your own must bear an endpoint without addresses: it is given that one alone where nobody gets calls,
// so that it has whom to report the reason of.
//
// If the service does not exist, is refused, lacks the port, or has no endpoint that is ready, no endpoint
// is left to gRPC, and calls fail with UNAVAILABLE and the reason, unless they wait for ready. While the
// server is away, or lets the client no longer ask, gRPC keeps the endpoints known last; if there are none
// yet, calls fail with UNAVAILABLE and the server's error.
//
// # Connections
//
// All channels of a builder share one connection to each server, closed with the last of them. A server
// lets a connection have some thousand calls (its --calls-per-connection-max): a program of more channels
// than that needs a builder for each so many, or the others wait for a turn.
package grpcresolver
