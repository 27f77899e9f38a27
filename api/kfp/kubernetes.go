package kfp

import "reflect"

// KubernetesExecutorConfig is what a package asks of Kubernetes for one
// executor (kfp_kubernetes.KubernetesExecutorConfig).
type KubernetesExecutorConfig struct {
	SecretAsVolume         []SecretAsVolume         `json:"secretAsVolume,omitempty"`
	SecretAsEnv            []SecretAsEnv            `json:"secretAsEnv,omitempty"`
	PVCMount               []PVCMount               `json:"pvcMount,omitempty"`
	NodeSelector           *NodeSelector            `json:"nodeSelector,omitempty"`
	PodMetadata            *PodMetadata             `json:"podMetadata,omitempty"`
	ImagePullSecret        []ImagePullSecret        `json:"imagePullSecret,omitempty"`
	ImagePullPolicy        string                   `json:"imagePullPolicy,omitempty"`
	ConfigMapAsVolume      []ConfigMapAsVolume      `json:"configMapAsVolume,omitempty"`
	ConfigMapAsEnv         []ConfigMapAsEnv         `json:"configMapAsEnv,omitempty"`
	ActiveDeadlineSeconds  int64                    `json:"activeDeadlineSeconds,omitempty"`
	FieldPathAsEnv         []FieldPathAsEnv         `json:"fieldPathAsEnv,omitempty"`
	Tolerations            []Toleration             `json:"tolerations,omitempty"`
	GenericEphemeralVolume []GenericEphemeralVolume `json:"genericEphemeralVolume,omitempty"`
	NodeAffinity           []NodeAffinityTerm       `json:"nodeAffinity,omitempty"`
	PodAffinity            []PodAffinityTerm        `json:"podAffinity,omitempty"`
	EnabledSharedMemory    *SharedMemory            `json:"enabledSharedMemory,omitempty"`
	EmptyDirMounts         []EmptyDirMount          `json:"emptyDirMounts,omitempty"`
	SecurityContext        *SecurityContext         `json:"securityContext,omitempty"`
	InitContainers         []InitContainer          `json:"initContainers,omitempty"`
	PodResourceClaims      []PodResourceClaim       `json:"podResourceClaims,omitempty"`
}

// PlatformFeatures names the fields that a configuration uses, in the order of
// the published message, so that one not honoured can be refused by its name.
func PlatformFeatures(config *KubernetesExecutorConfig) []string {
	if config == nil {
		return nil
	}
	var used []string
	v := reflect.ValueOf(config).Elem()
	for i := range v.NumField() {
		if field := v.Field(i); !field.IsZero() {
			used = append(used, jsonName(v.Type().Field(i)))
		}
	}
	return used
}

// SecretAsVolume mounts a secret's keys as files.
type SecretAsVolume struct {
	SecretName          string              `json:"secretName,omitempty"`
	MountPath           string              `json:"mountPath,omitempty"`
	Optional            *bool               `json:"optional,omitempty"`
	SecretNameParameter *InputParameterSpec `json:"secretNameParameter,omitempty"`
}

// SecretAsEnv puts a secret's keys into the environment.
type SecretAsEnv struct {
	SecretName          string              `json:"secretName,omitempty"`
	KeyToEnv            []SecretKeyToEnv    `json:"keyToEnv,omitempty"`
	Optional            *bool               `json:"optional,omitempty"`
	SecretNameParameter *InputParameterSpec `json:"secretNameParameter,omitempty"`
}

// SecretKeyToEnv maps one key to one variable.
type SecretKeyToEnv struct {
	SecretKey string `json:"secretKey,omitempty"`
	EnvVar    string `json:"envVar,omitempty"`
}

// PVCMount mounts a claim, named by one of the first three (deprecated) or by
// PVCNameParameter.
type PVCMount struct {
	TaskOutputParameter     *TaskOutputParameterSpec `json:"taskOutputParameter,omitempty"`
	Constant                string                   `json:"constant,omitempty"`
	ComponentInputParameter string                   `json:"componentInputParameter,omitempty"`
	MountPath               string                   `json:"mountPath,omitempty"`
	PVCNameParameter        *InputParameterSpec      `json:"pvcNameParameter,omitempty"`
	SubPath                 string                   `json:"subPath,omitempty"`
}

// NodeSelector is labels that a node must have.
type NodeSelector struct {
	Labels           map[string]string   `json:"labels,omitempty"`
	NodeSelectorJSON *InputParameterSpec `json:"nodeSelectorJson,omitempty"`
}

// PodMetadata is labels and annotations of the pod.
type PodMetadata struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ImagePullSecret names a secret with registry credentials.
type ImagePullSecret struct {
	SecretName          string              `json:"secretName,omitempty"`
	SecretNameParameter *InputParameterSpec `json:"secretNameParameter,omitempty"`
}

// ConfigMapAsVolume mounts a config map's keys as files.
type ConfigMapAsVolume struct {
	ConfigMapName          string              `json:"configMapName,omitempty"`
	MountPath              string              `json:"mountPath,omitempty"`
	Optional               *bool               `json:"optional,omitempty"`
	ConfigMapNameParameter *InputParameterSpec `json:"configMapNameParameter,omitempty"`
}

// ConfigMapAsEnv puts a config map's keys into the environment.
type ConfigMapAsEnv struct {
	ConfigMapName          string              `json:"configMapName,omitempty"`
	KeyToEnv               []ConfigMapKeyToEnv `json:"keyToEnv,omitempty"`
	ConfigMapNameParameter *InputParameterSpec `json:"configMapNameParameter,omitempty"`
	Optional               *bool               `json:"optional,omitempty"`
}

// ConfigMapKeyToEnv maps one key to one variable.
type ConfigMapKeyToEnv struct {
	ConfigMapKey string `json:"configMapKey,omitempty"`
	EnvVar       string `json:"envVar,omitempty"`
}

// FieldPathAsEnv puts a field of the pod into the environment.
type FieldPathAsEnv struct {
	Name      string `json:"name,omitempty"`
	FieldPath string `json:"fieldPath,omitempty"`
}

// Toleration of a node's taint.
type Toleration struct {
	Key               string              `json:"key,omitempty"`
	Operator          string              `json:"operator,omitempty"`
	Value             string              `json:"value,omitempty"`
	Effect            string              `json:"effect,omitempty"`
	TolerationSeconds *int64              `json:"tolerationSeconds,omitempty"`
	TolerationJSON    *InputParameterSpec `json:"tolerationJson,omitempty"`
}

// GenericEphemeralVolume is a volume that lives as long as the pod.
type GenericEphemeralVolume struct {
	VolumeName          string       `json:"volumeName,omitempty"`
	MountPath           string       `json:"mountPath,omitempty"`
	AccessModes         []string     `json:"accessModes,omitempty"`
	Size                string       `json:"size,omitempty"`
	DefaultStorageClass bool         `json:"defaultStorageClass,omitempty"`
	StorageClassName    string       `json:"storageClassName,omitempty"`
	Metadata            *PodMetadata `json:"metadata,omitempty"`
}

// SelectorRequirement is one term of a selector.
type SelectorRequirement struct {
	Key      string   `json:"key,omitempty"`
	Operator string   `json:"operator,omitempty"`
	Values   []string `json:"values,omitempty"`
}

// NodeAffinityTerm says where the pod may or would rather run.
type NodeAffinityTerm struct {
	MatchExpressions []SelectorRequirement `json:"matchExpressions,omitempty"`
	MatchFields      []SelectorRequirement `json:"matchFields,omitempty"`
	Weight           *int32                `json:"weight,omitempty"`
	NodeAffinityJSON *InputParameterSpec   `json:"nodeAffinityJson,omitempty"`
}

// PodAffinityTerm says beside which pods the pod may or would rather run.
type PodAffinityTerm struct {
	MatchPodExpressions       []SelectorRequirement `json:"matchPodExpressions,omitempty"`
	MatchPodLabels            map[string]string     `json:"matchPodLabels,omitempty"`
	TopologyKey               string                `json:"topologyKey,omitempty"`
	Namespaces                []string              `json:"namespaces,omitempty"`
	MatchNamespaceExpressions []SelectorRequirement `json:"matchNamespaceExpressions,omitempty"`
	MatchNamespaceLabels      map[string]string     `json:"matchNamespaceLabels,omitempty"`
	Weight                    *int32                `json:"weight,omitempty"`
	Anti                      *bool                 `json:"anti,omitempty"`
}

// SharedMemory asks for a larger /dev/shm.
type SharedMemory struct {
	VolumeName string `json:"volumeName,omitempty"`
	Size       string `json:"size,omitempty"`
}

// EmptyDirMount is an empty volume of the pod.
type EmptyDirMount struct {
	VolumeName string  `json:"volumeName,omitempty"`
	MountPath  string  `json:"mountPath,omitempty"`
	Medium     *string `json:"medium,omitempty"`
	SizeLimit  *string `json:"sizeLimit,omitempty"`
}

// SecurityContext is the identity that the container runs as.
type SecurityContext struct {
	RunAsUser    *int64 `json:"runAsUser,omitempty"`
	RunAsGroup   *int64 `json:"runAsGroup,omitempty"`
	RunAsNonRoot *bool  `json:"runAsNonRoot,omitempty"`
}

// InitContainer runs before the main container, or beside it where its restart
// policy is Always.
type InitContainer struct {
	Name          string               `json:"name,omitempty"`
	Image         string               `json:"image,omitempty"`
	Command       []string             `json:"command,omitempty"`
	Args          []string             `json:"args,omitempty"`
	Env           []EnvVar             `json:"env,omitempty"`
	VolumeMounts  []InitVolumeMount    `json:"volumeMounts,omitempty"`
	RestartPolicy *string              `json:"restartPolicy,omitempty"`
	Resources     *InitContainerLimits `json:"resources,omitempty"`
}

// InitVolumeMount places a volume of the pod in an init container.
type InitVolumeMount struct {
	VolumeName string `json:"volumeName,omitempty"`
	MountPath  string `json:"mountPath,omitempty"`
}

// InitContainerLimits maps resource names to quantities.
type InitContainerLimits struct {
	Requests map[string]string `json:"requests,omitempty"`
	Limits   map[string]string `json:"limits,omitempty"`
}

// PodResourceClaim asks for a device by a claim template.
type PodResourceClaim struct {
	ResourceClaimTemplateName string              `json:"resourceClaimTemplateName,omitempty"`
	ResourceClaimJSON         *InputParameterSpec `json:"resourceClaimJson,omitempty"`
}
