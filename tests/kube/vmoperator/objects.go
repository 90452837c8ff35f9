package main

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

const (
	group        = "vmoperator.vmware.com"
	finalizer    = group + "/virtualmachineservice"
	oldFinalizer = "virtualmachineservice." + group

	trafficPolicyAnnotation = "virtualmachineservice." + group + "/service.externalTrafficPolicy"
	healthCheckAnnotation   = "virtualmachineservice." + group + "/service.healthCheckNodePort"

	nsxProvider              = "nsx-t-lb"
	nsxProxyLabel            = "service.kubernetes.io/service-proxy-name"
	nsxProxy                 = "nsx-t"
	nsxHealthCheckAnnotation = "ncp/healthCheckNodePort"
	nsxHostnameAnnotation    = "nsx.vmware.com/hostname"
)

// kind is a kind of object, and where it is read and written.
type kind struct {
	schema.GroupVersionResource
	name string
}

var (
	vmKind        = kind{vmOperator("virtualmachines"), "VirtualMachine"}
	vmServiceKind = kind{vmOperator("virtualmachineservices"), "VirtualMachineService"}
	serviceKind   = kind{corev1.SchemeGroupVersion.WithResource("services"), "Service"}
	endpointsKind = kind{corev1.SchemeGroupVersion.WithResource("endpoints"), "Endpoints"}
)

func vmOperator(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: "v1alpha6", Resource: resource}
}

func (k kind) gvk() schema.GroupVersionKind {
	return k.GroupVersion().WithKind(k.name)
}

// virtualMachine has the fields of a VirtualMachine that the controller reads.
type virtualMachine struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		ReadinessProbe *struct {
			TCPSocket      *struct{} `json:"tcpSocket"`
			GuestHeartbeat *struct{} `json:"guestHeartbeat"`
			GuestInfo      []any     `json:"guestInfo"`
		} `json:"readinessProbe"`
	} `json:"spec"`

	Status struct {
		Network struct {
			PrimaryIP4 string `json:"primaryIP4"`
			PrimaryIP6 string `json:"primaryIP6"`
		} `json:"network"`
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// vmFacts is all that Endpoints depend on in a VM, but for its name, uid and labels.
type vmFacts struct {
	deleting bool
	ip4, ip6 string
	probed   bool
	// Of the Ready condition; empty if there is none.
	ready metav1.ConditionStatus
}

func (vm *virtualMachine) facts() vmFacts {
	probe := vm.Spec.ReadinessProbe
	facts := vmFacts{
		deleting: vm.DeletionTimestamp != nil,
		ip4:      vm.Status.Network.PrimaryIP4,
		ip6:      vm.Status.Network.PrimaryIP6,
		probed: probe != nil &&
			(probe.TCPSocket != nil || probe.GuestHeartbeat != nil || len(probe.GuestInfo) > 0),
	}
	for _, condition := range vm.Status.Conditions {
		if condition.Type == "Ready" {
			facts.ready = condition.Status
		}
	}
	return facts
}

// addresses are those of the families that a Service has, IPv4 first.
func (facts vmFacts) addresses(families []corev1.IPFamily) []string {
	var found []string
	if facts.ip4 != "" && slices.Contains(families, corev1.IPv4Protocol) {
		found = append(found, facts.ip4)
	}
	if facts.ip6 != "" && slices.Contains(families, corev1.IPv6Protocol) {
		found = append(found, facts.ip6)
	}
	return found
}

// isReady tells it by the probe's result; until there is one, by what it was before.
func (facts vmFacts) isReady(before bool) bool {
	if !facts.probed {
		return true
	}
	if facts.ready == "" {
		return before
	}
	return facts.ready == metav1.ConditionTrue
}

// vmService has the fields of a VirtualMachineService that the controller reads and writes.
type vmService struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Type                     corev1.ServiceType     `json:"type"`
		Ports                    []vmServicePort        `json:"ports"`
		Selector                 map[string]string      `json:"selector"`
		ClusterIP                string                 `json:"clusterIp"`
		LoadBalancerIP           string                 `json:"loadBalancerIP"`
		LoadBalancerSourceRanges []string               `json:"loadBalancerSourceRanges"`
		ExternalName             string                 `json:"externalName"`
		IPFamilies               []corev1.IPFamily      `json:"ipFamilies"`
		IPFamilyPolicy           *corev1.IPFamilyPolicy `json:"ipFamilyPolicy"`
	} `json:"spec"`

	Status struct {
		LoadBalancer loadBalancer       `json:"loadBalancer"`
		Conditions   []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

type vmServicePort struct {
	Name       string          `json:"name"`
	Protocol   corev1.Protocol `json:"protocol"`
	Port       int32           `json:"port"`
	TargetPort int32           `json:"targetPort"`
}

type loadBalancer struct {
	Ingress []ingress `json:"ingress"`
}

type ingress struct {
	IP       string `json:"ip,omitempty"`
	Hostname string `json:"hostname,omitempty"`
}

// controls tells whether the VMService is the controller of an object.
func (s *vmService) controls(object metav1.Object) bool {
	controller := metav1.GetControllerOf(object)
	return controller != nil && controller.UID == s.UID
}

// key is where the VMService and what belongs to it are found.
func (s *vmService) key() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// overlaid is old with the pairs of over on top; nil if there are none.
func overlaid(old, over map[string]string) map[string]string {
	if len(old)+len(over) == 0 {
		return nil
	}
	both := make(map[string]string, len(old)+len(over))
	maps.Copy(both, old)
	maps.Copy(both, over)
	return both
}
