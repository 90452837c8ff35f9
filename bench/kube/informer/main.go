// Command informer holds all VMs and VMServices as a controller does that has no generated types:
// in client-go's shared informers over its dynamic client. What ours is compared with at the start.
//
// It says `requesting` just before it asks for the first time and `synced` once both informers are.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/clientcmd"

	"vmsvc-grpc/bench/kube/internal/talk"
)

var group = schema.GroupVersion{Group: "vmoperator.vmware.com", Version: "v1alpha6"}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` that says how to reach the API server")
	flag.Parse()
	if err := run(*kubeconfig); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	for _, resource := range []string{"virtualmachines", "virtualmachineservices"} {
		factory.ForResource(group.WithResource(resource))
	}
	talk.Say(talk.Now("requesting"))
	factory.Start(ctx.Done())
	for resource, isSynced := range factory.WaitForCacheSync(ctx.Done()) {
		if !isSynced {
			return fmt.Errorf("%s are not synced", resource.Resource)
		}
	}
	talk.Say(talk.Now("synced"))
	talk.UntilTold()
	return nil
}
