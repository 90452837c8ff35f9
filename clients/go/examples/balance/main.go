// Balance calls shop/web over and over, and prints who answers.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc"
	"github.com/vmsvc-grpc/vmsvc-grpc/clients/go/vmsvc/grpcresolver"
)

func main() {
	builder := grpcresolver.New(vmsvc.Config{Server: "127.0.0.1:50051"})
	conn, err := grpc.NewClient("vmsvc:///shop/web:grpc",
		grpc.WithResolvers(builder),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for web := healthv1.NewHealthClient(conn); ; time.Sleep(200 * time.Millisecond) {
		var from peer.Peer
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if _, err := web.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&from)); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("answered by", from.Addr)
		}
		cancel()
	}
}
