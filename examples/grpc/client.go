// Asks a VM of shop/web for its health, whichever is next.
package main

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	_ "google.golang.org/grpc/xds" // knows targets that begin with xds:
)

func main() {
	channel, err := grpc.NewClient("xds:///web.shop:80", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	request := new(health.HealthCheckRequest)
	response, err := health.NewHealthClient(channel).Check(context.Background(), request, grpc.WaitForReady(true))
	fmt.Println(response, err)
}
