// A client of grpc-go's xDS: calls each target again and again, and prints who answers.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	pause    = 2 * time.Millisecond
	patience = 20 * time.Second
)

func callForEver(target string) {
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	for {
		fmt.Print(target + " " + call(channel) + "\n")
		time.Sleep(pause)
	}
}

func call(channel *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer := new(wrapperspb.StringValue)
	err := channel.Invoke(ctx, "/test.Who/Am", new(wrapperspb.StringValue), answer, grpc.WaitForReady(true))
	if err != nil {
		return "!" + strings.ToUpper(status.Code(err).String())
	}
	return answer.Value
}

func main() {
	for _, target := range os.Args[1:] {
		go callForEver(target)
	}
	select {}
}
