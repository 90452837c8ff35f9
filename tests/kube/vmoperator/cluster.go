package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
)

// cluster reads from the informers' caches, writes to the API server, and counts the writes.
type cluster struct {
	client    dynamic.Interface
	informers dynamicinformer.DynamicSharedInformerFactory

	mutex  sync.Mutex
	writes map[write]int
}

// write is what was asked of the API server, whatever it answered.
type write struct {
	Resource  string `json:"resource"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Verb      string `json:"verb"`
}

// ServeHTTP tells each write and how often it was asked for.
func (c *cluster) ServeHTTP(response http.ResponseWriter, _ *http.Request) {
	type counted struct {
		write
		Count int `json:"count"`
	}
	rows := []counted{}
	c.mutex.Lock()
	for asked, count := range c.writes {
		rows = append(rows, counted{asked, count})
	}
	c.mutex.Unlock()
	response.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(response).Encode(rows); err != nil {
		log.Printf("counts: %v", err)
	}
}

func (c *cluster) count(resource string, key types.NamespacedName, verb string) {
	log.Printf("%s %s %s", verb, resource, key)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.writes[write{resource, key.Namespace, key.Name, verb}]++
}

// read is the cached object, or the API server's error NotFound.
func read[T any](c *cluster, of kind, key types.NamespacedName) (*T, error) {
	lister := c.informers.ForResource(of.GroupVersionResource).Lister()
	object, err := lister.ByNamespace(key.Namespace).Get(key.Name)
	if err != nil {
		return nil, err
	}
	return decode[T](object)
}

// list is the cached objects of a namespace that a selector takes.
func list[T any](c *cluster, of kind, namespace string, by labels.Selector) ([]*T, error) {
	lister := c.informers.ForResource(of.GroupVersionResource).Lister()
	objects, err := lister.ByNamespace(namespace).List(by)
	if err != nil {
		return nil, err
	}
	decoded := make([]*T, 0, len(objects))
	for _, object := range objects {
		one, err := decode[T](object)
		if err != nil {
			return nil, err
		}
		decoded = append(decoded, one)
	}
	return decoded, nil
}

// decode never shares maps or slices with the object, which is the cache's.
func decode[T any](object runtime.Object) (*T, error) {
	decoded := new(T)
	source := object.(*unstructured.Unstructured).Object
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(source, decoded)
	return decoded, err
}

// createOrPatch changes the cached object and writes what that changed: the whole of a new one; of
// an old one a merge patch, which holds no resourceVersion; nothing if nothing changed. It returns
// what the API server made of it.
func createOrPatch[T any](
	ctx context.Context, c *cluster, of kind, key types.NamespacedName, change func(*T) error,
) (*T, error) {
	object, err := read[T](c, of, key)
	isNew := apierrors.IsNotFound(err)
	if isNew {
		named := &unstructured.Unstructured{}
		named.SetGroupVersionKind(of.gvk())
		named.SetNamespace(key.Namespace)
		named.SetName(key.Name)
		object, err = decode[T](named)
	}
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	if err := change(object); err != nil {
		return nil, err
	}
	after, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	var written *unstructured.Unstructured
	if isNew {
		written, err = c.create(ctx, of, key, after)
	} else {
		diff, broken := jsonpatch.CreateMergePatch(before, after)
		if broken != nil || string(diff) == "{}" {
			return object, broken
		}
		written, err = c.patch(ctx, of, key, diff)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", of.Resource, key, err)
	}
	return decode[T](written)
}

func (c *cluster) create(
	ctx context.Context, of kind, key types.NamespacedName, data []byte,
) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	c.count(of.Resource, key, "create")
	in := c.client.Resource(of.GroupVersionResource).Namespace(key.Namespace)
	return in.Create(ctx, object, metav1.CreateOptions{})
}

func (c *cluster) patch(
	ctx context.Context, of kind, key types.NamespacedName, diff []byte, subresources ...string,
) (*unstructured.Unstructured, error) {
	resource := of.Resource
	for _, subresource := range subresources {
		resource += "/" + subresource
	}
	c.count(resource, key, "patch")
	in := c.client.Resource(of.GroupVersionResource).Namespace(key.Namespace)
	return in.Patch(ctx, key.Name, types.MergePatchType, diff, metav1.PatchOptions{}, subresources...)
}

// deleteOwned deletes an object that the VMService controls. One that is gone, or another's, is
// left alone.
func (c *cluster) deleteOwned(ctx context.Context, of kind, s *vmService) error {
	in := c.client.Resource(of.GroupVersionResource).Namespace(s.Namespace)
	object, err := in.Get(ctx, s.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && !s.controls(object) {
		return nil
	}
	if err != nil {
		return err
	}
	c.count(of.Resource, s.key(), "delete")
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(object.GetUID()))}
	if err := in.Delete(ctx, s.Name, options); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
