package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// controller brings one VMService after the other in line, whenever something of it changed.
type controller struct {
	*cluster
	provider string
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
}

func newController(store *cluster, provider string) (*controller, error) {
	limiter := workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]()
	queue := workqueue.NewTypedRateLimitingQueue(limiter)
	c := &controller{cluster: store, provider: provider, queue: queue}
	for of, enqueue := range map[kind]func(was, is *unstructured.Unstructured){
		vmServiceKind: c.enqueueItself,
		serviceKind:   c.enqueueOwners,
		endpointsKind: c.enqueueOwners,
		vmKind:        c.enqueueSelecting,
	} {
		informer := store.informers.ForResource(of.GroupVersionResource).Informer()
		if _, err := informer.AddEventHandler(handler(enqueue)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// handler tells enqueue what an object was and is; nil before it came, and after it went.
func handler(enqueue func(was, is *unstructured.Unstructured)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(is any) { enqueue(nil, is.(*unstructured.Unstructured)) },
		UpdateFunc: func(was, is any) {
			enqueue(was.(*unstructured.Unstructured), is.(*unstructured.Unstructured))
		},
		DeleteFunc: func(was any) {
			if missed, ok := was.(cache.DeletedFinalStateUnknown); ok {
				was = missed.Obj
			}
			enqueue(was.(*unstructured.Unstructured), nil)
		},
	}
}

func (c *controller) enqueueItself(was, is *unstructured.Unstructured) {
	for _, object := range present(was, is) {
		c.queue.Add(types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()})
	}
}

func (c *controller) enqueueOwners(was, is *unstructured.Unstructured) {
	for _, object := range present(was, is) {
		for _, owner := range object.GetOwnerReferences() {
			if owner.Kind == vmServiceKind.name && groupOf(owner) == group {
				c.queue.Add(types.NamespacedName{Namespace: object.GetNamespace(), Name: owner.Name})
			}
		}
	}
}

// enqueueSelecting adds the VMServices that select the VM or did so, if it changed for them.
func (c *controller) enqueueSelecting(was, is *unstructured.Unstructured) {
	if was != nil && is != nil && !changed(was, is) {
		return
	}
	namespace := present(was, is)[0].GetNamespace()
	services, err := list[vmService](c.cluster, vmServiceKind, namespace, labels.Everything())
	if err != nil {
		log.Printf("%s: %v", namespace, err)
		return
	}
	for _, s := range services {
		selects := func(vm *unstructured.Unstructured) bool {
			return len(s.Spec.Selector) > 0 &&
				labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(vm.GetLabels()))
		}
		if slices.ContainsFunc(present(was, is), selects) {
			c.queue.Add(s.key())
		}
	}
}

func present(objects ...*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o == nil })
}

func changed(was, is *unstructured.Unstructured) bool {
	before, errBefore := decode[virtualMachine](was)
	after, errAfter := decode[virtualMachine](is)
	return errBefore != nil || errAfter != nil ||
		!maps.Equal(before.Labels, after.Labels) || before.facts() != after.facts()
}

// work takes keys from the queue until ctx is done, and finishes the one under way.
func (c *controller) work(ctx context.Context) {
	context.AfterFunc(ctx, c.queue.ShutDown)
	for {
		key, isShutDown := c.queue.Get()
		if isShutDown {
			return
		}
		if err := c.reconcile(context.WithoutCancel(ctx), key); err != nil {
			log.Printf("%s: %v", key, err)
			c.queue.AddRateLimited(key)
		} else {
			c.queue.Forget(key)
		}
		c.queue.Done(key)
	}
}

// reconcile patches the VMService last, and even where its objects could not be written.
func (c *controller) reconcile(ctx context.Context, key types.NamespacedName) error {
	before, err := read[vmService](c.cluster, vmServiceKind, key)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	after, err := read[vmService](c.cluster, vmServiceKind, key)
	if err != nil {
		return err
	}
	if before.DeletionTimestamp == nil {
		err = c.hold(ctx, after)
	} else {
		err = c.release(ctx, after)
	}
	return errors.Join(err, c.patchVMService(ctx, before, after))
}

// hold writes the VMService's Service and Endpoints, and changes s to what it should be.
func (c *controller) hold(ctx context.Context, s *vmService) error {
	if !slices.Contains(s.Finalizers, finalizer) {
		s.Finalizers = append(without(s.Finalizers, oldFinalizer), finalizer)
	}
	if c.provider == nsxProvider {
		markVMService(s)
	}
	service, err := createOrPatch(ctx, c.cluster, serviceKind, s.key(),
		func(service *corev1.Service) error {
			err := changeService(s, service)
			if err == nil && c.provider == nsxProvider {
				unmarkService(s, service)
			}
			return err
		})
	if err != nil {
		return err
	}
	if len(s.Spec.Selector) > 0 {
		selector := labels.SelectorFromSet(s.Spec.Selector)
		vms, err := list[virtualMachine](c.cluster, vmKind, s.Namespace, selector)
		if err != nil {
			return err
		}
		if _, err := createOrPatch(ctx, c.cluster, endpointsKind, s.key(),
			func(endpoints *corev1.Endpoints) error {
				return changeEndpoints(s, service, vms, endpoints)
			}); err != nil {
			return err
		}
	}
	changeStatus(s, service)
	return nil
}

// release deletes what belongs to the VMService, and then lets it go.
func (c *controller) release(ctx context.Context, s *vmService) error {
	kept := without(s.Finalizers, finalizer, oldFinalizer)
	if len(kept) == len(s.Finalizers) {
		return nil
	}
	for _, of := range []kind{endpointsKind, serviceKind} {
		if err := c.deleteOwned(ctx, of, s); err != nil {
			return err
		}
	}
	s.Finalizers = kept
	return nil
}

func without(finalizers []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(finalizers), func(name string) bool {
		return slices.Contains(names, name)
	})
}

// patchVMService writes what changed: conditions, which others write too, by their
// resourceVersion; then finalizers and a provider's marks; then the rest of the status.
func (c *controller) patchVMService(ctx context.Context, before, after *vmService) error {
	var failures []error
	patch := func(diff map[string]any, subresources ...string) {
		data, err := json.Marshal(diff)
		if err == nil {
			_, err = c.patch(ctx, vmServiceKind, before.key(), data, subresources...)
		}
		failures = append(failures, err)
	}
	was, is := before.Status, after.Status
	if !reflect.DeepEqual(was.Conditions, is.Conditions) {
		patch(map[string]any{
			"metadata": map[string]any{"resourceVersion": before.ResourceVersion},
			"status":   map[string]any{"conditions": is.Conditions},
		}, "status")
	}
	metadata := map[string]any{}
	if !slices.Equal(before.Finalizers, after.Finalizers) {
		metadata["finalizers"] = after.Finalizers
	}
	if !maps.Equal(before.Labels, after.Labels) {
		metadata["labels"] = after.Labels
	}
	if !maps.Equal(before.Annotations, after.Annotations) {
		metadata["annotations"] = after.Annotations
	}
	if len(metadata) > 0 {
		patch(map[string]any{"metadata": metadata})
	}
	if !slices.Equal(was.LoadBalancer.Ingress, is.LoadBalancer.Ingress) {
		patch(map[string]any{"status": map[string]any{"loadBalancer": is.LoadBalancer}}, "status")
	}
	return errors.Join(failures...)
}
