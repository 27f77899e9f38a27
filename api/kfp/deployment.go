package kfp

// DeploymentSpec says how components are executed
// (ml_pipelines.PipelineDeploymentConfig).
type DeploymentSpec struct {
	Executors map[string]*ExecutorSpec `json:"executors,omitempty"`
}

// ExecutorSpec is one way to execute a component. Exactly one field is set.
type ExecutorSpec struct {
	Container *ContainerSpec `json:"container,omitempty"`
	Importer  *ImporterSpec  `json:"importer,omitempty"`
	// Resolver and CustomJob are part of the published form, which no open
	// backend executes; Validate refuses them by name.
	Resolver  *ResolverSpec  `json:"resolver,omitempty"`
	CustomJob *CustomJobSpec `json:"customJob,omitempty"`
}

// ContainerSpec is a container; every text in it may hold placeholders.
type ContainerSpec struct {
	Image string `json:"image,omitempty"`
	// Command replaces the image's entrypoint where it is not empty.
	Command   []string      `json:"command,omitempty"`
	Args      []string      `json:"args,omitempty"`
	Lifecycle *Lifecycle    `json:"lifecycle,omitempty"`
	Resources *ResourceSpec `json:"resources,omitempty"`
	// Env is ordered: $(NAME) refers to an earlier variable.
	Env []EnvVar `json:"env,omitempty"`
}

// Lifecycle holds a check that the open backend does not run; skiff neither.
type Lifecycle struct {
	PreCacheCheck *ExecSpec `json:"preCacheCheck,omitempty"`
}

// ExecSpec is a command.
type ExecSpec struct {
	Command []string `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
}

// EnvVar is one environment variable.
type EnvVar struct {
	Name  string `json:"name,omitempty"`
	Value string `json:"value,omitempty"`
}

// ResourceSpec is what a container asks for, as numbers (cores, and units of
// 10^9 bytes) or as quantities in text that may hold placeholders. Text wins.
type ResourceSpec struct {
	CPULimit              float64            `json:"cpuLimit,omitempty"`
	MemoryLimit           float64            `json:"memoryLimit,omitempty"`
	CPURequest            float64            `json:"cpuRequest,omitempty"`
	MemoryRequest         float64            `json:"memoryRequest,omitempty"`
	ResourceCPULimit      string             `json:"resourceCpuLimit,omitempty"`
	ResourceMemoryLimit   string             `json:"resourceMemoryLimit,omitempty"`
	ResourceCPURequest    string             `json:"resourceCpuRequest,omitempty"`
	ResourceMemoryRequest string             `json:"resourceMemoryRequest,omitempty"`
	Accelerator           *AcceleratorConfig `json:"accelerator,omitempty"`
}

// AcceleratorConfig asks for devices, in the older form or as text that may
// hold placeholders. Text wins.
type AcceleratorConfig struct {
	Type          string `json:"type,omitempty"`
	Count         int64  `json:"count,omitempty"`
	ResourceType  string `json:"resourceType,omitempty"`
	ResourceCount string `json:"resourceCount,omitempty"`
}

// ImporterSpec makes an artifact of something that exists elsewhere.
type ImporterSpec struct {
	ArtifactURI ValueOrRuntimeParameter `json:"artifactUri,omitzero"`
	TypeSchema  ArtifactTypeSchema      `json:"typeSchema,omitzero"`
	// Properties and CustomProperties are the deprecated form of Metadata.
	Properties       map[string]*ValueOrRuntimeParameter `json:"properties,omitempty"`
	CustomProperties map[string]*ValueOrRuntimeParameter `json:"customProperties,omitempty"`
	// Reimport makes a new artifact even where the same one is known.
	Reimport bool `json:"reimport,omitempty"`
	// Metadata may hold placeholders in keys and values.
	Metadata            map[string]any `json:"metadata,omitempty"`
	DownloadToWorkspace bool           `json:"downloadToWorkspace,omitempty"`
}

// ResolverSpec looks artifacts up by a query.
type ResolverSpec struct {
	OutputArtifactQueries map[string]*ArtifactQuerySpec `json:"outputArtifactQueries,omitempty"`
}

// ArtifactQuerySpec is one such query.
type ArtifactQuerySpec struct {
	Filter string `json:"filter,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

// CustomJobSpec is a job of one cloud's own service.
type CustomJobSpec struct {
	CustomJob map[string]any `json:"customJob,omitempty"`
}
