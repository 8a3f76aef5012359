{{- define "quantuner.chartName" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /*
The name of all objects: at most 50 characters, so that with a suffix (-dashboard) it is still a DNS label. A Service's
begins with a letter and has no dot, where a release's may have both.
*/}}
{{- define "quantuner.name" -}}
{{- $name := include "quantuner.chartName" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if regexMatch "^[0-9]" .Release.Name }}
{{- fail (printf "release %s: a Service's name must not begin with a digit; choose another release name, or set fullnameOverride" .Release.Name) }}
{{- else }}
{{- $release := .Release.Name | replace "." "-" }}
{{- $whole := ternary $release (printf "%s-%s" $release $name) (contains $name $release) }}
{{- regexReplaceAll "-+$" (trunc 50 $whole) "" }}
{{- end }}
{{- end }}

{{- define "quantuner.selector" -}}
app.kubernetes.io/name: {{ include "quantuner.chartName" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "quantuner.labels" -}}
{{ include "quantuner.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The labels of an object, with a user's own over them, from (dict "root" $ "labels" LABELS): each key once. */}}
{{- define "quantuner.labelsAnd" -}}
{{- merge (dict) (default (dict) .labels) (include "quantuner.labels" .root | fromYaml) | toYaml }}
{{- end }}

{{- define "quantuner.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "quantuner.name" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the existing account, or set serviceAccount.create=true" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* An image reference from (dict "image" VALUES "path" PATH-OF-VALUES "name" NAME "default" TAG). */}}
{{- define "quantuner.image" -}}
{{- $nowhere := "%s.repository is not set, and Quantuner's images are published nowhere: build images/%s/Containerfile, push it to a registry of yours, and name it by --set %s.repository=REGISTRY/quantuner/%s (README.md, On a cluster)" }}
{{- $repository := required (printf $nowhere .path .name .path .name) .image.repository }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .default .image.tag) }}
{{- end }}
{{- end }}

{{- /*
Matchers of the series that this release's own operator has, by the labels that a PodMonitor or ServiceMonitor gives
them. A pod's name is its Deployment's with two more words; of a long one Kubernetes cuts the dash between these.
*/}}
{{- define "quantuner.ownSeries" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "quantuner.name" . }}-[0-9a-z]+(-[0-9a-z]{5})?"
{{- end }}

{{- /* Matchers of the searches that this release serves: the label is the search's own namespace. None: all of them. */}}
{{- define "quantuner.servedSearches" -}}
{{- with .Values.watchNamespaces }}namespace=~"{{ join "|" . }}",{{ end }}
{{- end }}

{{- /* What the operator does to the objects of its namespaces: of a ClusterRole, or of a Role in each namespace. */}}
{{- define "quantuner.rules" -}}
# The resources it serves; only their status is written.
- apiGroups: [quantuner.dev]
  resources: [quantizationtunings]
  verbs: [get, list, watch]
- apiGroups: [quantuner.dev]
  resources: [quantizationtunings/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion need this where the admission plugin
# OwnerReferencesPermissionEnforcement runs (OpenShift, hardened clusters). No finalizer is set.
- apiGroups: [quantuner.dev]
  resources: [quantizationtunings/finalizers]
  verbs: [update]
# A change of workers or suspend replaces the MPIJob, whose spec cannot change: no patch.
- apiGroups: [kubeflow.org]
  resources: [mpijobs]
  verbs: [get, list, watch, create, delete]
# The resource as ranks read it, journal and result. get and patch are also what the launcher's Role
# gives: nobody can grant what he does not have.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
# The launcher's identity, which may write its own journal and result by name. Owner references delete it.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
# Why ranks do not start (image, scheduling, refused container) stands in their pods' status.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# What kubectl describe shows.
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
