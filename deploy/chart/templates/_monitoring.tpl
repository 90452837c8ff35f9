{{- /* How Prometheus shows who it is: by a certificate of our own CA, or a token; empty if nobody asks. */ -}}
{{- define "vmsvc-grpc.scraper" -}}
{{- if ne .Values.auth "none" -}}
{{- if .Values.monitoring.podMonitor.tokenSecret -}}
token
{{- else if include "vmsvc-grpc.ownCa" . -}}
certificate
{{- else -}}
{{- fail "monitoring.podMonitor.enabled: Prometheus shows a certificate of the chart's own CA (tls.from=cert-manager, and no tls.issuer), or a token: set monitoring.podMonitor.tokenSecret, or auth=none" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Of an object that somebody else's program looks for: (list . SUFFIX SETTINGS), where settings may be labels, annotations and namespace. */ -}}
{{- define "vmsvc-grpc.monitoringMetadata" -}}
{{- $root := index . 0 -}}
{{- $settings := index . 2 -}}
name: {{ include "vmsvc-grpc.name" $root }}{{ index . 1 }}
namespace: {{ $settings.namespace | default $root.Release.Namespace }}
labels:
  {{- merge (deepCopy ($settings.labels | default dict)) (include "vmsvc-grpc.labels" $root | fromYaml) | toYaml | nindent 2 }}
{{- with $settings.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
