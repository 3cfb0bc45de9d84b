{{/* Names, labels, and the parts that the manifests of the services share. Each takes a dict of `root` and `name`. */}}

{{- define "portcullis.name" -}}
{{ printf "%s-%s" .root.Release.Name .name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "portcullis.selector" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: portcullis
{{- end }}

{{- define "portcullis.tag" -}}
{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "portcullis.image" -}}
{{ .root.Values.image.registry }}portcullis/{{ .name }}:{{ include "portcullis.tag" . }}
{{- end }}

{{- define "portcullis.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .root.Values.runAsUser }}
  runAsGroup: {{ .root.Values.runAsGroup }}
  # The group that may read the Secrets.
  fsGroup: {{ .root.Values.runAsGroup }}
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "portcullis.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* The gRPC port of a service; its ops port is 1000 more. */}}
{{- define "portcullis.port" -}}
{{ get (dict "auth" 50051 "inventory" 50052 "payment" 50053) .name }}
{{- end }}

{{/* `name` is also the name of the values. */}}
{{- define "portcullis.values" -}}
{{ toYaml (get .root.Values .name) }}
{{- end }}

{{- define "portcullis.services" -}}
{{- $names := list "auth" -}}
{{- range $name := list "inventory" "payment" -}}
{{- if (get $.Values $name).enabled -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}
{{ toJson $names }}
{{- end }}
