{{- define "voicefleet.labels" -}}
{{ include "voicefleet.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* Of pods: no version in it, or every release of the chart would restart Redis, and the flow cache with it. */ -}}
{{- define "voicefleet.podLabels" -}}
app.kubernetes.io/name: voicefleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: voicefleet
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "voicefleet.redisUrl" -}}
{{- if .Values.redis.externalUrl -}}{{ .Values.redis.externalUrl }}
{{- else if .Values.redis.embedded -}}redis://voicefleet-redis:6379/0
{{- end -}}
{{- end -}}

{{- define "voicefleet.redisSecret" -}}
{{- if .Values.redis.externalUrl -}}{{ .Values.redis.externalPasswordSecret }}
{{- else if .Values.redis.embedded -}}voicefleet-redis
{{- end -}}
{{- end -}}

{{- define "voicefleet.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}
