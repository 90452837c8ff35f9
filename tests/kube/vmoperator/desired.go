package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	packing "k8s.io/kubernetes/pkg/api/v1/endpoints"
)

// own makes the VMService the controller of an object, by its newest API version. It refuses an
// object that has another controller.
func own(s *vmService, object *metav1.ObjectMeta) error {
	mine := *metav1.NewControllerRef(s, vmServiceKind.gvk())
	same := func(other metav1.OwnerReference) bool {
		return other.Name == mine.Name && other.Kind == mine.Kind && groupOf(other) == group
	}
	if controller := metav1.GetControllerOf(object); controller != nil && !same(*controller) {
		return fmt.Errorf("%s/%s is controlled by %s %s",
			object.Namespace, object.Name, controller.Kind, controller.Name)
	}
	if i := slices.IndexFunc(object.OwnerReferences, same); i >= 0 {
		object.OwnerReferences[i] = mine
	} else {
		object.OwnerReferences = append(object.OwnerReferences, mine)
	}
	return nil
}

func groupOf(owner metav1.OwnerReference) string {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return ""
	}
	return version.Group
}

// changeService brings a Service, stored or new, in line with its VMService.
func changeService(s *vmService, service *corev1.Service) error {
	if err := own(s, &service.ObjectMeta); err != nil {
		return err
	}
	service.Labels = overlaid(service.Labels, s.Labels)
	service.Annotations = overlaid(service.Annotations, s.Annotations)
	for _, managed := range []string{trafficPolicyAnnotation, healthCheckAnnotation} {
		if _, asked := s.Annotations[managed]; !asked {
			delete(service.Annotations, managed)
		}
	}

	spec := &service.Spec
	if service.ResourceVersion == "" {
		spec.ClusterIP = s.Spec.ClusterIP
	}
	spec.Type = s.Spec.Type
	spec.ExternalName = s.Spec.ExternalName
	spec.LoadBalancerIP = s.Spec.LoadBalancerIP
	spec.LoadBalancerSourceRanges = s.Spec.LoadBalancerSourceRanges
	if len(s.Spec.IPFamilies) > 0 {
		spec.IPFamilies = s.Spec.IPFamilies
	}
	if s.Spec.IPFamilyPolicy != nil {
		spec.IPFamilyPolicy = s.Spec.IPFamilyPolicy
	}
	spec.Ports = servicePorts(s.Spec.Ports, spec.Ports)

	spec.AllocateLoadBalancerNodePorts = nil
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		spec.AllocateLoadBalancerNodePorts = new(bool)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer || spec.Type == corev1.ServiceTypeNodePort {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	// On a ClusterIP Service too, where the API server then refuses it.
	policy := corev1.ServiceExternalTrafficPolicy(service.Annotations[trafficPolicyAnnotation])
	switch policy {
	case corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyCluster:
		spec.ExternalTrafficPolicy = policy
	}
	return nil
}

// markVMService puts NSX's marks on a VMService; its Service takes them from there.
func markVMService(s *vmService) {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if s.Annotations[trafficPolicyAnnotation] == string(corev1.ServiceExternalTrafficPolicyLocal) {
		s.Labels = overlaid(s.Labels, map[string]string{nsxProxyLabel: nsxProxy})
	}
	if port, asked := s.Annotations[healthCheckAnnotation]; asked {
		s.Annotations = overlaid(s.Annotations, map[string]string{nsxHealthCheckAnnotation: port})
	}
}

// unmarkService takes NSX's marks off a Service, not off the VMService, when nobody asks for them.
func unmarkService(s *vmService, service *corev1.Service) {
	local := string(corev1.ServiceExternalTrafficPolicyLocal)
	if s.Annotations[trafficPolicyAnnotation] != local {
		delete(service.Labels, nsxProxyLabel)
	}
	if _, asked := s.Annotations[healthCheckAnnotation]; !asked {
		delete(service.Annotations, nsxHealthCheckAnnotation)
	}
	if _, asked := s.Annotations[nsxHostnameAnnotation]; !asked {
		delete(service.Annotations, nsxHostnameAnnotation)
	}
}

// servicePorts are the VMService's; each keeps the node port that one of its name has.
func servicePorts(asked []vmServicePort, stored []corev1.ServicePort) []corev1.ServicePort {
	nodePorts := make(map[string]int32, len(stored))
	for _, port := range stored {
		nodePorts[port.Name] = port.NodePort
	}
	ports := make([]corev1.ServicePort, 0, len(asked))
	for _, port := range asked {
		ports = append(ports, corev1.ServicePort{
			Name:       port.Name,
			Protocol:   port.Protocol,
			Port:       port.Port,
			TargetPort: intstr.FromInt32(port.TargetPort),
			NodePort:   nodePorts[port.Name],
		})
	}
	return ports
}

// changeEndpoints brings Endpoints, stored or new, in line with the Service and its VMs.
func changeEndpoints(
	s *vmService, service *corev1.Service, vms []*virtualMachine, endpoints *corev1.Endpoints,
) error {
	if err := own(s, &endpoints.ObjectMeta); err != nil {
		return err
	}
	subsets := unpackedSubsets(service, vms, readyUIDs(endpoints))
	endpoints.Labels = service.Labels
	endpoints.Annotations = service.Annotations
	endpoints.Subsets = packing.RepackSubsets(subsets)
	return nil
}

// readyUIDs are those of the VMs that Endpoints have a ready address of.
func readyUIDs(endpoints *corev1.Endpoints) map[types.UID]bool {
	ready := map[types.UID]bool{}
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			if address.TargetRef != nil {
				ready[address.TargetRef.UID] = true
			}
		}
	}
	return ready
}

// unpackedSubsets has one subset for each address of each VM.
func unpackedSubsets(
	service *corev1.Service, vms []*virtualMachine, readyBefore map[types.UID]bool,
) []corev1.EndpointSubset {
	var ports []corev1.EndpointPort
	for _, port := range service.Spec.Ports {
		ports = append(ports, corev1.EndpointPort{
			Name: port.Name, Port: port.TargetPort.IntVal, Protocol: port.Protocol,
		})
	}
	var subsets []corev1.EndpointSubset
	for _, vm := range vms {
		facts := vm.facts()
		if facts.deleting {
			continue
		}
		for _, ip := range facts.addresses(service.Spec.IPFamilies) {
			address := []corev1.EndpointAddress{{IP: ip, TargetRef: reference(vm)}}
			subset := corev1.EndpointSubset{Ports: ports}
			if facts.isReady(readyBefore[vm.UID]) {
				subset.Addresses = address
			} else {
				subset.NotReadyAddresses = address
			}
			subsets = append(subsets, subset)
		}
	}
	return subsets
}

func reference(vm *virtualMachine) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: vmKind.GroupVersion().String(),
		Kind:       vmKind.name,
		Namespace:  vm.Namespace,
		Name:       vm.Name,
		UID:        vm.UID,
	}
}

// changeStatus brings a VMService's status in line with its Service's.
func changeStatus(s *vmService, service *corev1.Service) {
	s.Status.LoadBalancer.Ingress = nil
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, given := range service.Status.LoadBalancer.Ingress {
			s.Status.LoadBalancer.Ingress = append(
				s.Status.LoadBalancer.Ingress, ingress{IP: given.IP, Hostname: given.Hostname})
		}
	}
	s.Status.Conditions = withCondition(s.Status.Conditions, mirrored(service.Status.Conditions))
}

// mirrored is the VMService's condition for the Ready of a Service's conditions.
func mirrored(conditions []metav1.Condition) metav1.Condition {
	condition := metav1.Condition{
		Type:    "VirtualMachineServiceServiceReady",
		Status:  metav1.ConditionUnknown,
		Reason:  "ServiceReadyNotPresent",
		Message: "Underlying Service does not have Ready condition",
	}
	i := slices.IndexFunc(conditions, func(c metav1.Condition) bool { return c.Type == "Ready" })
	if i < 0 {
		return condition
	}
	ready := conditions[i]
	switch ready.Status {
	case metav1.ConditionTrue:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "True", ""
		return condition
	case metav1.ConditionFalse:
		condition.Status, condition.Reason = metav1.ConditionFalse, "ServiceNotReady"
		condition.Message = "Underlying Service is not ready"
	default:
		condition.Reason = "ServiceReadinessUnknown"
		condition.Message = "Underlying Service readiness is unknown"
	}
	if ready.Reason != "" {
		condition.Reason = ready.Reason
	}
	if ready.Message != "" {
		condition.Message = ready.Message
	}
	return condition
}

// withCondition is conditions, sorted by type, with one of them set; its time changes only with
// what it says.
func withCondition(conditions []metav1.Condition, set metav1.Condition) []metav1.Condition {
	isSame := func(c metav1.Condition) bool {
		return c.Type == set.Type && c.Status == set.Status &&
			c.Reason == set.Reason && c.Message == set.Message
	}
	if slices.ContainsFunc(conditions, isSame) {
		return conditions
	}
	set.LastTransitionTime = metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	others := slices.DeleteFunc(slices.Clone(conditions), func(c metav1.Condition) bool {
		return c.Type == set.Type
	})
	others = append(others, set)
	slices.SortFunc(others, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return others
}
