{{- /* What everything is called: the release, with the chart's name in it. */ -}}
{{- define "vmsvc-grpc.name" -}}
{{- if contains "vmsvc-grpc" .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-vmsvc-grpc" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- /* The label by which Pods are found. It never changes: a Deployment's selector must not. */ -}}
{{- define "vmsvc-grpc.selector" -}}
app.kubernetes.io/name: {{ include "vmsvc-grpc.name" . }}
{{- end -}}

{{- define "vmsvc-grpc.labels" -}}
{{ include "vmsvc-grpc.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Of an object in the release's namespace: (list . SUFFIX). */ -}}
{{- define "vmsvc-grpc.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "vmsvc-grpc.name" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "vmsvc-grpc.labels" $root | nindent 2 }}
{{- end -}}

{{- /* Of an object of the cluster: (list . SUFFIX). */ -}}
{{- define "vmsvc-grpc.clusterMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "vmsvc-grpc.name" $root }}{{ index . 1 }}
labels:
  {{- include "vmsvc-grpc.labels" $root | nindent 2 }}
{{- end -}}

{{- define "vmsvc-grpc.secret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "vmsvc-grpc.name" .)) }}
{{- end -}}

{{- /* Whether cert-manager makes a CA for us alone. */ -}}
{{- define "vmsvc-grpc.ownCa" -}}
{{- if and (eq .Values.tls.from "cert-manager") (not .Values.tls.issuer) -}}
true
{{- end -}}
{{- end -}}

{{- /* The Lease of who writes, as the program names it: after the namespaces, whatever the release is called. */ -}}
{{- define "vmsvc-grpc.lease" -}}
{{- $namespaces := .Values.namespaces | uniq | sortAlpha -}}
{{- $name := prepend $namespaces "vmsvc-grpc" | join "." -}}
{{- if le (len $name) 253 -}}
{{ $name }}
{{- else -}}
vmsvc-grpc-namespaces.{{ $namespaces | join "," | sha256sum | trunc 32 }}
{{- end -}}
{{- end -}}

{{- /* Whether others may read along or ask without being asked; fails where that was not meant. */ -}}
{{- define "vmsvc-grpc.insecure" -}}
{{- if or (eq .Values.tls.from "none") (eq .Values.auth "none") -}}
{{- if not .Values.insecure -}}
{{- fail "tls.from=none lets everybody on the way read along, and auth=none lets everybody ask: if that is meant, set insecure=true, too" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}
