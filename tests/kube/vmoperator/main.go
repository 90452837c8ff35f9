// Command vmoperator is a double of VM Operator's controller of VirtualMachineServices: the second
// writer that ours lives beside.
//
// It holds the same Service, Endpoints, finalizer and status in the same way: by merge patches
// from what its caches hold, with subsets packed by Kubernetes' own RepackSubsets. VM Operator's
// gaps are here too: one bad address keeps all Endpoints from being written, an adopted Service
// keeps its selector, failures reach only the log. So is what it writes without a look: types that it
// does not support, blanks in source ranges, an externalName on any type, addresses of the other
// family or with leading zeros. Two things it does not do: delete a Service that the VMService does
// not control (which a test would want to look at), and write events.
//
// It reads v1alpha6. Once it has listed everything, it logs "ready" and where its counts are
// served. SIGTERM ends it after the VMService under way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` that says how to reach the API server")
	namespace := flag.String("namespace", "", "the only `namespace` to act in (default all)")
	listen := flag.String("listen", "127.0.0.1:0", "`address` where the counts of writes are served")
	provider := flag.String("load-balancer-provider", "", "`name` of whose marks to put on Services")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(*kubeconfig, *namespace, *listen, *provider); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig, namespace, listen, provider string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// The API server bounds the rate by itself, and says with each answer that Endpoints are old.
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}

	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	store := &cluster{client: client, informers: factory, writes: map[write]int{}}
	controller, err := newController(store, provider)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: store}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	factory.Start(ctx.Done())
	for resource, isSynced := range factory.WaitForCacheSync(ctx.Done()) {
		if !isSynced {
			return fmt.Errorf("ended before %s were listed", resource.Resource)
		}
	}
	log.Printf("ready, counts at http://%s", listener.Addr())
	controller.work(ctx)
	return server.Close()
}
