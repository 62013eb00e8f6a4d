{{- define "voicefleet.labels" -}}
app.kubernetes.io/name: voicefleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: voicefleet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
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
