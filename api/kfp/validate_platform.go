package kfp

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
)

// kubernetes checks the platform settings, as far as they can be wrong in
// themselves. Whether the engine honours a feature is its own to say.
func (v *validator) kubernetes() {
	p := v.pkg.Platform
	if p == nil {
		return
	}
	top := (*place)(nil).keys("platforms", "kubernetes")
	if p.Platform != "" && p.Platform != "kubernetes" {
		v.add(top.key("platform"), "want kubernetes, got %q", clip(p.Platform, 40))
	}
	v.pipelineConfig(top.key("pipelineConfig"), p.PipelineConfig)
	executors := top.keys("deploymentSpec", "executors")
	for _, label := range sorted(p.DeploymentSpec.Executors) {
		if v.full() {
			return
		}
		if v.spec.DeploymentSpec.Executors[label] == nil {
			v.add(executors.key(label), "the pipeline has no executor of this name").
				Hint = didYouMean(label, sorted(v.spec.DeploymentSpec.Executors), "executors")
			continue
		}
		v.executorConfig(executors.key(label), p.DeploymentSpec.Executors[label])
	}
}

func (v *validator) pipelineConfig(at *place, c *PipelineConfig) {
	if c == nil {
		return
	}
	for _, entry := range []struct {
		field string
		value int
	}{
		{"resourceTtlOnCompletion", c.ResourceTTLOnCompletion}, {"resourceTtlOnSuccess", c.ResourceTTLOnSuccess},
		{"resourceTtlOnFailure", c.ResourceTTLOnFailure}, {"activeDeadlineSeconds", c.ActiveDeadlineSeconds},
	} {
		if entry.value < 0 {
			v.add(at.key(entry.field), "must not be negative, got %d", entry.value)
		}
	}
	if c.Workspace == nil {
		return
	}
	if c.Workspace.Size == "" {
		v.add(at.keys("workspace", "size"), "required: the workspace has no size").Hint = "want an amount such as 10Gi"
	} else {
		v.quantity(at.keys("workspace", "size"), c.Workspace.Size)
	}
}

func (v *validator) quantity(at *place, text string) {
	if text == "" || strings.Contains(text, "{{") {
		return
	}
	if _, err := core.ParseQuantity(text); err != nil {
		v.add(at, "%w", err)
	}
}

func (v *validator) mountPath(at *place, mount string) {
	switch {
	case mount == "":
		v.add(at, "required: no path is given")
	case path.Clean("/"+mount) == "/": // a relative path counts from the root
		v.add(at, "cannot be the root of the file system")
	case strings.ContainsAny(mount, "\x00:") || slices.Contains(strings.Split(mount, "/"), ".."):
		v.add(at, "%q is not a plain path", clip(mount, 80))
	}
}

func (v *validator) oneOf(at *place, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(at, "unknown value %q", clip(value, 40)).Hint = didYouMean(value, slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), "values")
	}
}

// named checks that something is named, in the old or the new way.
func (v *validator) named(at *place, what, name string, parameter *InputParameterSpec, field string) {
	switch {
	case parameter != nil:
		v.oneSource(at.key(field), parameter)
	case name == "":
		v.add(at, "no %s is named", what).Hint = "want " + field
	}
}

func (v *validator) executorConfig(at *place, c *KubernetesExecutorConfig) {
	v.secrets(at, c)
	v.volumes(at, c)
	if c.ImagePullPolicy != "" {
		v.oneOf(at.key("imagePullPolicy"), c.ImagePullPolicy, "Always", "IfNotPresent", "Never")
	}
	if c.ActiveDeadlineSeconds < 0 {
		v.add(at.key("activeDeadlineSeconds"), "must not be negative, got %d", c.ActiveDeadlineSeconds)
	}
	for i, f := range c.FieldPathAsEnv {
		here := at.key("fieldPathAsEnv").at(i)
		v.variable(here.key("name"), f.Name)
		if f.FieldPath == "" {
			v.add(here.key("fieldPath"), "required: no field is named").Hint = "such as metadata.name"
		} else if err := core.CheckFieldPath(f.FieldPath); err != nil {
			v.add(here.key("fieldPath"), "%w", err)
		}
	}
	for i, t := range c.Tolerations {
		here := at.key("tolerations").at(i)
		v.oneOf(here.key("operator"), t.Operator, "", "Equal", "Exists", "Lt", "Gt")
		v.oneOf(here.key("effect"), t.Effect, "", "NoSchedule", "PreferNoSchedule", "NoExecute")
	}
	if s := c.SecurityContext; s != nil {
		for _, entry := range []struct {
			field string
			value *int64
		}{{"runAsUser", s.RunAsUser}, {"runAsGroup", s.RunAsGroup}} {
			if entry.value != nil && (*entry.value < 0 || *entry.value > 1<<32-2) {
				v.add(at.keys("securityContext", entry.field), "want an id from 0 to %d, got %d", int64(1<<32-2), *entry.value)
			}
		}
		if s.RunAsNonRoot != nil && *s.RunAsNonRoot && s.RunAsUser != nil && *s.RunAsUser == 0 {
			v.add(at.keys("securityContext", "runAsUser"), "0 is root, and runAsNonRoot forbids it")
		}
	}
	v.initContainers(at, c)
}

func (v *validator) secrets(at *place, c *KubernetesExecutorConfig) {
	for i, s := range c.SecretAsVolume {
		here := at.key("secretAsVolume").at(i)
		v.named(here, "secret", s.SecretName, s.SecretNameParameter, "secretNameParameter")
		v.mountPath(here.key("mountPath"), s.MountPath)
	}
	for i, s := range c.SecretAsEnv {
		here := at.key("secretAsEnv").at(i)
		v.named(here, "secret", s.SecretName, s.SecretNameParameter, "secretNameParameter")
		for j, k := range s.KeyToEnv {
			v.variable(here.key("keyToEnv").at(j).key("envVar"), k.EnvVar)
		}
	}
	for i, s := range c.ConfigMapAsVolume {
		here := at.key("configMapAsVolume").at(i)
		v.named(here, "config map", s.ConfigMapName, s.ConfigMapNameParameter, "configMapNameParameter")
		v.mountPath(here.key("mountPath"), s.MountPath)
	}
	for i, s := range c.ConfigMapAsEnv {
		here := at.key("configMapAsEnv").at(i)
		v.named(here, "config map", s.ConfigMapName, s.ConfigMapNameParameter, "configMapNameParameter")
		for j, k := range s.KeyToEnv {
			v.variable(here.key("keyToEnv").at(j).key("envVar"), k.EnvVar)
		}
	}
	for i, s := range c.ImagePullSecret {
		v.named(at.key("imagePullSecret").at(i), "secret", s.SecretName, s.SecretNameParameter, "secretNameParameter")
	}
}

func (v *validator) volumes(at *place, c *KubernetesExecutorConfig) {
	for i, m := range c.PVCMount {
		here := at.key("pvcMount").at(i)
		if m.TaskOutputParameter == nil && m.ComponentInputParameter == "" {
			v.named(here, "claim", m.Constant, m.PVCNameParameter, "pvcNameParameter")
		}
		v.mountPath(here.key("mountPath"), m.MountPath)
	}
	for i, m := range c.GenericEphemeralVolume {
		here := at.key("genericEphemeralVolume").at(i)
		v.mountPath(here.key("mountPath"), m.MountPath)
		v.quantity(here.key("size"), m.Size)
	}
	for i, m := range c.EmptyDirMounts {
		here := at.key("emptyDirMounts").at(i)
		v.mountPath(here.key("mountPath"), m.MountPath)
		if m.Medium != nil {
			v.oneOf(here.key("medium"), *m.Medium, "", "Memory")
		}
		if m.SizeLimit != nil {
			v.quantity(here.key("sizeLimit"), *m.SizeLimit)
		}
	}
	if c.EnabledSharedMemory != nil {
		v.quantity(at.keys("enabledSharedMemory", "size"), c.EnabledSharedMemory.Size)
	}
}

func (v *validator) initContainers(at *place, c *KubernetesExecutorConfig) {
	seen := map[string]bool{}
	for i, container := range c.InitContainers {
		here := at.key("initContainers").at(i)
		switch name := container.Name; {
		case name == "":
			v.add(here.key("name"), "required: the container has no name")
		case seen[name] || name == "main" || name == "kfp-launcher":
			v.add(here.key("name"), "the name %q is taken", clip(name, 60))
		}
		seen[container.Name] = true
		if container.Image == "" {
			v.add(here.key("image"), "required: the container has no image")
		} else if err := CheckImage(container.Image); err != nil && !strings.Contains(container.Image, "{{") {
			v.add(here.key("image"), "%w", err)
		}
		if container.RestartPolicy != nil {
			v.oneOf(here.key("restartPolicy"), *container.RestartPolicy, "", "Always")
		}
		for j, variable := range container.Env {
			v.variable(here.key("env").at(j).key("name"), variable.Name)
		}
		for j, m := range container.VolumeMounts {
			v.mountPath(here.key("volumeMounts").at(j).key("mountPath"), m.MountPath)
		}
		if container.Resources == nil {
			continue
		}
		for group, amounts := range map[string]map[string]string{"requests": container.Resources.Requests, "limits": container.Resources.Limits} {
			for _, name := range sorted(amounts) {
				if _, err := core.ParseQuantity(amounts[name]); err != nil {
					v.add(here.keys("resources", group, name), "%w", fmt.Errorf("amount: %w", err))
				}
			}
		}
	}
}
