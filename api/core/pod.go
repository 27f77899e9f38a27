package core

import "time"

// PodKind is the kind string of a Pod.
const PodKind = "Pod"

// Pod is the one unit that runs in skiff (core/v1 Pod). Engines make Pods, the
// scheduler grants them a claim, a runtime backend runs them.
type Pod struct {
	TypeMeta
	ObjectMeta `json:"metadata"`
	Spec       PodSpec   `json:"spec"`
	Status     PodStatus `json:"status,omitzero"`
}

// PodSpec is what is asked for; it does not change after creation, except that
// a scheduling gate may be lifted together with the fields it guarded.
type PodSpec struct {
	InitContainers                []Container         `json:"initContainers,omitempty"`
	Containers                    []Container         `json:"containers"`
	Volumes                       []Volume            `json:"volumes,omitempty"`
	RestartPolicy                 string              `json:"restartPolicy,omitempty"` // Always, OnFailure, Never
	TerminationGracePeriodSeconds *int64              `json:"terminationGracePeriodSeconds,omitempty"`
	ActiveDeadlineSeconds         *int64              `json:"activeDeadlineSeconds,omitempty"`
	NodeSelector                  map[string]string   `json:"nodeSelector,omitempty"`
	Affinity                      *Affinity           `json:"affinity,omitempty"`
	Tolerations                   []Toleration        `json:"tolerations,omitempty"`
	ServiceAccountName            string              `json:"serviceAccountName,omitempty"`
	NodeName                      string              `json:"nodeName,omitempty"`
	HostNetwork                   bool                `json:"hostNetwork,omitempty"`
	HostPID                       bool                `json:"hostPID,omitempty"`
	HostIPC                       bool                `json:"hostIPC,omitempty"`
	SecurityContext               *PodSecurityContext `json:"securityContext,omitempty"`
	ImagePullSecrets              []LocalReference    `json:"imagePullSecrets,omitempty"`
	Hostname                      string              `json:"hostname,omitempty"`
	PriorityClassName             string              `json:"priorityClassName,omitempty"`
	Priority                      *int32              `json:"priority,omitempty"`
	SchedulingGates               []SchedulingGate    `json:"schedulingGates,omitempty"`

	// Skiff holds what skiff adds to the published shape.
	Skiff *PodExtension `json:"skiff,omitempty"`
}

// SchedulingGate holds a pod back from running its command until it is lifted.
type SchedulingGate struct {
	Name string `json:"name"`
}

// GateInputs is the gate of a pod whose container may be created and started
// while its command waits for inputs that do not exist yet.
const GateInputs = "skiff.dev/inputs"

// PodFinalizer keeps a pod in the store until its containers and its folder are
// gone.
const PodFinalizer = "skiff.dev/pod"

// PodExtension is skiff's addition to a pod's desired state.
type PodExtension struct {
	// Directories are created, with their parents, before the command starts.
	Directories []string `json:"directories,omitempty"`
	// Outputs are files the launcher reads after the command has ended.
	Outputs []OutputFile `json:"outputs,omitempty"`
	// Links and Collect carry KFP's custom artifact paths; see runtime/launch.
	Links   []Link   `json:"links,omitempty"`
	Collect *Collect `json:"collect,omitempty"`
	// Queue names the scheduler's queue; empty means the namespace's own.
	Queue string `json:"queue,omitempty"`
	// Gang names a group of pods that are admitted all or none; GangSize is
	// how many belong to it.
	Gang     string `json:"gang,omitempty"`
	GangSize int    `json:"gangSize,omitempty"`
	// Pools are named semaphores and how many units of each the pod holds.
	Pools map[string]int64 `json:"pools,omitempty"`
	// Network is "" (the profile's network) or "none".
	Network string `json:"network,omitempty"`
	// Stop asks the pod to end with its grace period; it then fails with reason
	// Cancelled and stays readable, logs included. It is never taken back.
	Stop bool `json:"stop,omitempty"`
	// HoldOnFailureSeconds keeps the first container, with the pod's claim, when
	// its command has failed, for people to look around in: for so long, or until
	// Release is set. The pod is Running with reason ReasonPaused meanwhile; it
	// fails when that is over. 0 keeps nothing.
	HoldOnFailureSeconds int64 `json:"holdOnFailureSeconds,omitempty"`
	// Release ends such a hold. It is never taken back.
	Release bool `json:"release,omitempty"`
	// Environment is a package prelude that the engine recognised at the head
	// of the command. A backend without images prepares it once and then runs
	// Command in place of the container's; others run the command as it is.
	Environment *Environment `json:"environment,omitempty"`
	// Images pins images by reference: the one that runs must have one of the
	// digests or ids.
	Images map[string][]string `json:"images,omitempty"`
	// InfrastructureRetries counts how often the pod's work was started anew
	// because of a fault that was not the user's.
	InfrastructureRetries int `json:"infrastructureRetries,omitempty"`
}

// ReasonPaused is the reason of a running pod, and of its task, whose command has
// failed and whose container is kept (PodExtension.HoldOnFailureSeconds).
const ReasonPaused = "PausedOnFailure"

// Environment is what a lightweight component asks pip for before it runs.
type Environment struct {
	Calls []PipCall `json:"calls"`
	// Command is the container's command without the prelude.
	Command []string `json:"command"`
}

// PipCall is one "pip install": its options and its packages, in order.
type PipCall struct {
	Options  []string `json:"options,omitempty"`
	Packages []string `json:"packages"`
}

// Link is a symbolic link made inside the container before the command starts;
// a relative path is below the working directory, and an optional link is left
// out where it cannot be made.
type Link struct {
	Path     string `json:"path"`
	Target   string `json:"target"`
	Optional bool   `json:"optional,omitempty"`
}

// Collect names a file in which the command lists artifacts that it wrote to
// paths of its own choosing, and for each artifact the path where it is kept.
type Collect struct {
	Manifest string            `json:"manifest"`
	Paths    map[string]string `json:"paths"`
}

// OutputFile is a file whose contents are part of the pod's result.
type OutputFile struct {
	Name string `json:"name"`
	// Path is absolute, inside the container.
	Path string `json:"path"`
}

// Container is one process tree of a pod (core/v1 Container).
type Container struct {
	Name string `json:"name"`
	// Image is a reference as the user wrote it.
	Image           string               `json:"image,omitempty"`
	Command         []string             `json:"command,omitempty"`
	Args            []string             `json:"args,omitempty"`
	WorkingDir      string               `json:"workingDir,omitempty"`
	Env             []EnvVar             `json:"env,omitempty"`
	Resources       ResourceRequirements `json:"resources,omitzero"`
	VolumeMounts    []VolumeMount        `json:"volumeMounts,omitempty"`
	Ports           []ContainerPort      `json:"ports,omitempty"`
	ImagePullPolicy string               `json:"imagePullPolicy,omitempty"` // Always, IfNotPresent, Never
	SecurityContext *SecurityContext     `json:"securityContext,omitempty"`
	RestartPolicy   string               `json:"restartPolicy,omitempty"`
}

// EnvVar is one variable; Value may hold $(NAME) references to earlier ones.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// ValueFrom, in place of Value, is looked up when the container gets its
	// command.
	ValueFrom *EnvVarSource `json:"valueFrom,omitempty"`
}

// EnvVarSource is where a variable's value comes from. Exactly one is set.
type EnvVarSource struct {
	FieldRef        *FieldSelector `json:"fieldRef,omitempty"`
	SecretKeyRef    *KeySelector   `json:"secretKeyRef,omitempty"`
	ConfigMapKeyRef *KeySelector   `json:"configMapKeyRef,omitempty"`
}

// FieldSelector names a field of the pod, such as metadata.labels['app'].
type FieldSelector struct {
	FieldPath string `json:"fieldPath"`
}

// KeySelector is a key of a Secret or ConfigMap of the namespace. Where it is
// optional and not there, the variable is left out.
type KeySelector struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// ContainerPort is a port the container listens on.
type ContainerPort struct {
	Name          string `json:"name,omitempty"`
	ContainerPort int32  `json:"containerPort"`
	HostPort      int32  `json:"hostPort,omitempty"`
	Protocol      string `json:"protocol,omitempty"`
}

// ResourceRequirements maps resource names (ResourceCPU and so on) to quantities.
type ResourceRequirements struct {
	Requests map[string]Quantity `json:"requests,omitempty"`
	Limits   map[string]Quantity `json:"limits,omitempty"`
}

// Resource names with a meaning of their own.
const (
	ResourceCPU    = "cpu"
	ResourceMemory = "memory"
	// ResourceGPU is the name under which whole devices are asked for. Other
	// accelerator names of the form vendor/type count as the same devices.
	ResourceGPU = "nvidia.com/gpu"
)

// VolumeMount places a volume in a container.
type VolumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	SubPath   string `json:"subPath,omitempty"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

// Volume is a directory that containers of the pod can mount. Exactly one
// source is set.
type Volume struct {
	Name                  string                       `json:"name"`
	EmptyDir              *EmptyDirVolume              `json:"emptyDir,omitempty"`
	HostPath              *HostPathVolume              `json:"hostPath,omitempty"`
	Secret                *SecretVolume                `json:"secret,omitempty"`
	ConfigMap             *ConfigMapVolume             `json:"configMap,omitempty"`
	Ephemeral             *EphemeralVolume             `json:"ephemeral,omitempty"`
	PersistentVolumeClaim *PersistentVolumeClaimVolume `json:"persistentVolumeClaim,omitempty"`
	// Image mounts what is in an image, read-only.
	Image *ImageVolume `json:"image,omitempty"`
	// Artifact mounts a part of the namespace's artifact repository.
	Artifact *ArtifactVolume `json:"artifact,omitempty"`
}

// EmptyDirVolume lives as long as the pod.
type EmptyDirVolume struct {
	Medium    string   `json:"medium,omitempty"` // "" or "Memory"
	SizeLimit Quantity `json:"sizeLimit,omitzero"`
}

// SecretVolume is the keys of a secret as files, read-only. They lie in the
// pod's folder on the host, which only the daemon can enter, and go with the
// pod's end.
type SecretVolume struct {
	SecretName string `json:"secretName"`
	Optional   *bool  `json:"optional,omitempty"`
}

// ConfigMapVolume is the keys of a config map as files, read-only.
type ConfigMapVolume struct {
	Name     string `json:"name"`
	Optional *bool  `json:"optional,omitempty"`
}

// EphemeralVolume lives as long as the pod; on one machine it is an emptyDir
// whose size is noted and not enforced.
type EphemeralVolume struct {
	VolumeClaimTemplate *ClaimTemplate `json:"volumeClaimTemplate,omitempty"`
}

// ClaimTemplate describes an ephemeral volume.
type ClaimTemplate struct {
	ObjectMeta `json:"metadata,omitzero"`
	Spec       PersistentVolumeClaimSpec `json:"spec"`
}

// HostPathVolume is a directory of the host; only allow-listed ones are let through.
type HostPathVolume struct {
	Path string `json:"path"`
	Type string `json:"type,omitempty"`
}

// PersistentVolumeClaimVolume names a claim of the pod's namespace.
type PersistentVolumeClaimVolume struct {
	ClaimName string `json:"claimName"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

// ImageVolume is the file system of an image (core/v1 ImageVolumeSource). A
// mount's subPath is the folder in it; without one it is all there is.
type ImageVolume struct {
	Reference  string `json:"reference"`
	PullPolicy string `json:"pullPolicy,omitempty"` // Always, IfNotPresent, Never
}

// ArtifactVolume is a folder of the namespace's artifact repository.
type ArtifactVolume struct {
	// Key is the folder below the repository's root, slash-separated; empty
	// means the whole root, which can only be mounted read-only.
	Key string `json:"key,omitempty"`
}

// PodSecurityContext and SecurityContext carry the identity a container runs as.
type PodSecurityContext struct {
	RunAsUser    *int64 `json:"runAsUser,omitempty"`
	RunAsGroup   *int64 `json:"runAsGroup,omitempty"`
	RunAsNonRoot *bool  `json:"runAsNonRoot,omitempty"`
	FSGroup      *int64 `json:"fsGroup,omitempty"`
}

// SecurityContext is the part of core/v1 SecurityContext that skiff reads.
type SecurityContext struct {
	RunAsUser    *int64 `json:"runAsUser,omitempty"`
	RunAsGroup   *int64 `json:"runAsGroup,omitempty"`
	RunAsNonRoot *bool  `json:"runAsNonRoot,omitempty"`
	Privileged   *bool  `json:"privileged,omitempty"`
}

// LocalReference names an object of the same namespace.
type LocalReference struct {
	Name string `json:"name"`
}

// PodPhase is where a pod stands in its life.
//
//	Pending ──► Running ──► Succeeded
//	   │           ├──────► Failed
//	   └───────────┴──────► (deleted)
type PodPhase string

// The phases of core/v1.
const (
	PodPending   PodPhase = "Pending"
	PodRunning   PodPhase = "Running"
	PodSucceeded PodPhase = "Succeeded"
	PodFailed    PodPhase = "Failed"
)

// Terminal reports whether the phase is final.
func (p PodPhase) Terminal() bool { return p == PodSucceeded || p == PodFailed }

// PodStatus is what was observed of a pod.
type PodStatus struct {
	Phase PodPhase `json:"phase,omitempty"`
	// Reason is one word for machines (Unschedulable, ImagePullBackOff,
	// OOMKilled, ContainerLost, DeadlineExceeded, Cancelled …); Message is the
	// sentence for people. A waiting pod's message says why it waits and for whom.
	Reason            string            `json:"reason,omitempty"`
	Message           string            `json:"message,omitempty"`
	Conditions        []Condition       `json:"conditions,omitempty"`
	PodIP             string            `json:"podIP,omitempty"`
	StartTime         time.Time         `json:"startTime,omitzero"`
	ContainerStatuses []ContainerStatus `json:"containerStatuses,omitempty"`

	// Claim is what the scheduler granted. It is written in the same
	// transaction as the admission and cleared when nothing runs any more.
	Claim *Claim `json:"claim,omitempty"`
	// Skiff holds what skiff adds to the published shape.
	Skiff *PodResult `json:"skiff,omitempty"`
}

// Claim is a durable allocation of exact units of the node.
type Claim struct {
	CPUMilli    int64            `json:"cpuMilli,omitempty"`
	MemoryBytes int64            `json:"memoryBytes,omitempty"`
	GPUs        []string         `json:"gpus,omitempty"` // device UUIDs
	Pools       map[string]int64 `json:"pools,omitempty"`
	HostPorts   []int32          `json:"hostPorts,omitempty"`
	GrantedAt   time.Time        `json:"grantedAt,omitzero"`
}

// ContainerStatus is what was observed of one container.
type ContainerStatus struct {
	Name  string `json:"name"`
	Image string `json:"image,omitempty"`
	// ImageID is the digest (or, for an image without one, the id) that ran.
	ImageID      string               `json:"imageID,omitempty"`
	ContainerID  string               `json:"containerID,omitempty"`
	RestartCount int32                `json:"restartCount,omitempty"`
	Started      bool                 `json:"started,omitempty"`
	StartedAt    time.Time            `json:"startedAt,omitzero"`
	Terminated   *ContainerTerminated `json:"terminated,omitempty"`
}

// ContainerTerminated says how a container ended.
type ContainerTerminated struct {
	ExitCode   int32     `json:"exitCode"`
	Signal     int32     `json:"signal,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
}

// PodResult is skiff's addition to a pod's observed state.
type PodResult struct {
	// Outputs maps OutputFile names to what the file held. A declared file
	// that was not there is absent from the map.
	Outputs map[string][]byte `json:"outputs,omitempty"`
	// LogBytes is what the command wrote; LogDropped what the cap discarded.
	LogBytes   int64 `json:"logBytes,omitempty"`
	LogDropped int64 `json:"logDropped,omitempty"`
	// Infrastructure is true where the failure was not the user's doing, so
	// that it does not consume a user's retry.
	Infrastructure bool `json:"infrastructure,omitempty"`
}
