{{- /*
Rights for our account, in each of the namespaces, or else in all: (list . SUFFIX RULES), where RULES is
the name of a template.
*/ -}}
{{- define "vmsvc-grpc.granted" -}}
{{- $root := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- $rules := index . 2 -}}
{{- range $namespace := $root.Values.namespaces | uniq | sortAlpha | default (list "") }}
{{- $prefix := $namespace | empty | ternary "Cluster" "" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata:
  {{- include "vmsvc-grpc.clusterMetadata" (list $root $suffix) | nindent 2 }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
rules:
  {{- include $rules $root | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}RoleBinding
metadata:
  {{- include "vmsvc-grpc.clusterMetadata" (list $root $suffix) | nindent 2 }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $prefix }}Role
  name: {{ include "vmsvc-grpc.name" $root }}{{ $suffix }}
subjects:
  {{- include "vmsvc-grpc.account" $root | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "vmsvc-grpc.account" -}}
- kind: ServiceAccount
  name: {{ include "vmsvc-grpc.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
