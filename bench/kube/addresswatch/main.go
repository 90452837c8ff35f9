// Command addresswatch tells when each address is first seen: in a VM's status, in an Endpoints, in
// an EndpointSlice. It has client-go's informers, over protobuf where that can be, as kube-proxy.
//
// It says `synced` once it watches all three. Each address that is new to one of them is a line.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"vmsvc-grpc/bench/kube/internal/talk"
)

// seen is a line: an address is in a resource that did not have it before.
type seen struct {
	Resource string `json:"resource"`
	Address  string `json:"address"`
	AtNS     int64  `json:"at_ns"`
}

var vms = schema.GroupVersionResource{
	Group: "vmoperator.vmware.com", Version: "v1alpha6", Resource: "virtualmachines",
}

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
	// The API server says with each answer that Endpoints are old.
	config.WarningHandler = rest.NoWarnings{}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ofVMs := dynamicinformer.NewDynamicSharedInformerFactory(untyped, 0).ForResource(vms)
	ours := informers.NewSharedInformerFactory(typed, 0)
	all := map[string]cache.SharedIndexInformer{
		"virtualmachines": ofVMs.Informer(),
		"endpoints":       ours.Core().V1().Endpoints().Informer(),
		"endpointslices":  ours.Discovery().V1().EndpointSlices().Informer(),
	}
	for resource, informer := range all {
		if err := tell(resource, informer); err != nil {
			return err
		}
		go informer.Run(ctx.Done())
	}
	for resource, informer := range all {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return fmt.Errorf("%s are not synced", resource)
		}
	}
	talk.Say(talk.Now("synced"))
	talk.UntilTold()
	return nil
}

// tell says a line for each address of an informer's objects when it first comes. Its handler
// runs in one goroutine.
func tell(resource string, informer cache.SharedIndexInformer) error {
	known := map[string]bool{}
	take := func(object any) {
		now := time.Now().UnixNano()
		for _, address := range addresses(object) {
			if !known[address] {
				known[address] = true
				talk.Say(seen{resource, address, now})
			}
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    take,
		UpdateFunc: func(_, object any) { take(object) },
	})
	return err
}

func addresses(object any) []string {
	var found []string
	switch object := object.(type) {
	case *unstructured.Unstructured:
		address, _, _ := unstructured.NestedString(object.Object, "status", "network", "primaryIP4")
		found = append(found, address)
	case *corev1.Endpoints:
		for _, subset := range object.Subsets {
			for _, address := range subset.Addresses {
				found = append(found, address.IP)
			}
		}
	case *discoveryv1.EndpointSlice:
		for _, endpoint := range object.Endpoints {
			found = append(found, endpoint.Addresses...)
		}
	}
	return found
}
