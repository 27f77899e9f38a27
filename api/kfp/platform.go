package kfp

// PlatformSpec is the second document of a package.
type PlatformSpec struct {
	Platforms Platforms `json:"platforms,omitzero"`
}

// Platforms holds the settings of each platform. The published form is a map
// with any names; settings of a platform that nobody here would read are
// refused as unknown.
type Platforms struct {
	Kubernetes *KubernetesPlatform `json:"kubernetes,omitempty"`
}

// KubernetesPlatform is the one platform that is known
// (ml_pipelines.SinglePlatformSpec with kfp_kubernetes executors).
type KubernetesPlatform struct {
	DeploymentSpec PlatformDeployment `json:"deploymentSpec,omitzero"`
	Platform       string             `json:"platform,omitempty"`
	Config         map[string]any     `json:"config,omitempty"`
	PipelineConfig *PipelineConfig    `json:"pipelineConfig,omitempty"`
}

// SinglePlatformSpec is a platform's settings inside a component.
type SinglePlatformSpec = KubernetesPlatform

// PlatformDeployment holds the settings of each executor, by label.
type PlatformDeployment struct {
	Executors map[string]*KubernetesExecutorConfig `json:"executors,omitempty"`
}

// PipelineConfig holds settings of the run as a whole.
type PipelineConfig struct {
	// ResourceTTL… are how long finished runs are kept, in seconds.
	ResourceTTLOnCompletion int              `json:"resourceTtlOnCompletion,omitempty"`
	ResourceTTLOnSuccess    int              `json:"resourceTtlOnSuccess,omitempty"`
	ResourceTTLOnFailure    int              `json:"resourceTtlOnFailure,omitempty"`
	Workspace               *WorkspaceConfig `json:"workspace,omitempty"`
	// ActiveDeadlineSeconds bounds the whole run.
	ActiveDeadlineSeconds int `json:"activeDeadlineSeconds,omitempty"`
}

// WorkspaceConfig asks for a volume that the run's tasks share.
type WorkspaceConfig struct {
	// Size is a quantity ("10Gi").
	Size       string               `json:"size,omitempty"`
	Kubernetes *WorkspaceKubernetes `json:"kubernetes,omitempty"`
}

// WorkspaceKubernetes patches the volume's claim.
type WorkspaceKubernetes struct {
	PVCSpecPatch map[string]any `json:"pvcSpecPatch,omitempty"`
}

// Executor is the settings of one executor, nil where there are none.
func (p *KubernetesPlatform) Executor(label string) *KubernetesExecutorConfig {
	if p == nil {
		return nil
	}
	return p.DeploymentSpec.Executors[label]
}

// Workspace is the run's shared volume, nil where there is none.
func (p *KubernetesPlatform) Workspace() *WorkspaceConfig {
	if p == nil || p.PipelineConfig == nil {
		return nil
	}
	return p.PipelineConfig.Workspace
}

// ActiveDeadlineSeconds bounds the whole run; 0 for no bound.
func (p *KubernetesPlatform) ActiveDeadlineSeconds() int64 {
	if p == nil || p.PipelineConfig == nil {
		return 0
	}
	return int64(p.PipelineConfig.ActiveDeadlineSeconds)
}
