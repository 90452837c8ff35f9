// Package vmsvc asks a vmsvc-grpc server which virtual machines (VMs) stand behind a
// VirtualMachineService of VM Operator, now and at each change.
//
// A [Client] looks services up ([Client.Resolve], [Client.List], [Client.Explain]) and follows them
// ([Client.Watch]). Package grpcresolver, beside this one, has grpc-go balance over the endpoints.
package vmsvc
