package pipeline

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
)

// shmPath is where shared memory appears.
const shmPath = "/dev/shm"

// mountPath is a path in a container; a relative one counts from the root.
func mountPath(at string) string { return path.Clean("/" + at) }

// volumeNamed adds a volume, once, under the name by which the package's init
// containers mount it.
func volumeNamed(pod *core.Pod, volume core.Volume) core.Volume {
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v core.Volume) bool { return v.Name == volume.Name }) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, volume)
	}
	return volume
}

func mountMain(pod *core.Pod, m core.VolumeMount) {
	main := &pod.Spec.Containers[0]
	m.MountPath = mountPath(m.MountPath)
	main.VolumeMounts = append(main.VolumeMounts, m)
}

// applySettingVolumes mounts secrets and config maps.
func (x *execution) applySettingVolumes(pod *core.Pod, s *step) error {
	for i, setting := range s.platform.SecretAsVolume {
		name, err := x.settingName(s.n, setting.SecretNameParameter, setting.SecretName, setting.Optional)
		if err != nil {
			return fmt.Errorf("secretAsVolume[%d]: %w", i, err)
		}
		if name == "" {
			continue
		}
		v := volumeNamed(pod, core.Volume{Name: "secret-" + name, Secret: &core.SecretVolume{SecretName: name, Optional: setting.Optional}})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: setting.MountPath, ReadOnly: true})
	}
	for i, setting := range s.platform.ConfigMapAsVolume {
		name, err := x.settingName(s.n, setting.ConfigMapNameParameter, setting.ConfigMapName, setting.Optional)
		if err != nil {
			return fmt.Errorf("configMapAsVolume[%d]: %w", i, err)
		}
		if name == "" {
			continue
		}
		v := volumeNamed(pod, core.Volume{Name: "configmap-" + name, ConfigMap: &core.ConfigMapVolume{Name: name, Optional: setting.Optional}})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: setting.MountPath, ReadOnly: true})
	}
	return nil
}

// applyVolumes mounts claims, and the volumes that live as long as the pod.
func (x *execution) applyVolumes(pod *core.Pod, s *step) error {
	for i, m := range s.platform.PVCMount {
		claim, err := x.claimName(s.n, m)
		if err != nil {
			return fmt.Errorf("pvcMount[%d]: %w", i, err)
		}
		v := volumeNamed(pod, core.Volume{Name: "claim-" + claim, PersistentVolumeClaim: &core.PersistentVolumeClaimVolume{ClaimName: claim}})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: m.MountPath, SubPath: m.SubPath})
	}
	for i, m := range s.platform.GenericEphemeralVolume {
		size, err := quantity(m.Size)
		if err != nil {
			return fmt.Errorf("genericEphemeralVolume[%d].size: %w", i, err)
		}
		template := &core.ClaimTemplate{Spec: core.PersistentVolumeClaimSpec{AccessModes: m.AccessModes}}
		if m.Size != "" {
			template.Spec.Resources.Requests = map[string]core.Quantity{core.ResourceStorage: size}
		}
		if !m.DefaultStorageClass {
			template.Spec.StorageClassName = &m.StorageClassName
		}
		if m.Metadata != nil {
			template.Labels, template.Annotations = m.Metadata.Labels, m.Metadata.Annotations
		}
		v := volumeNamed(pod, core.Volume{Name: cmp.Or(m.VolumeName, fmt.Sprintf("ephemeral-%d", i)), Ephemeral: &core.EphemeralVolume{VolumeClaimTemplate: template}})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: m.MountPath})
	}
	for i, m := range s.platform.EmptyDirMounts {
		volume := &core.EmptyDirVolume{}
		if m.Medium != nil {
			volume.Medium = *m.Medium
		}
		if m.SizeLimit != nil {
			limit, err := quantity(*m.SizeLimit)
			if err != nil {
				return fmt.Errorf("emptyDirMounts[%d].sizeLimit: %w", i, err)
			}
			volume.SizeLimit = limit
		}
		v := volumeNamed(pod, core.Volume{Name: cmp.Or(m.VolumeName, fmt.Sprintf("empty-%d", i)), EmptyDir: volume})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: m.MountPath})
	}
	if m := s.platform.EnabledSharedMemory; m != nil {
		size, err := quantity(m.Size)
		if err != nil {
			return fmt.Errorf("enabledSharedMemory.size: %w", err)
		}
		v := volumeNamed(pod, core.Volume{Name: cmp.Or(m.VolumeName, "shm"), EmptyDir: &core.EmptyDirVolume{Medium: "Memory", SizeLimit: size}})
		mountMain(pod, core.VolumeMount{Name: v.Name, MountPath: shmPath})
	}
	return nil
}

func quantity(text string) (core.Quantity, error) {
	if text == "" {
		return core.Quantity{}, nil
	}
	return core.ParseQuantity(text)
}

// applyInitContainers adds the containers that run before the step, and those
// that run beside it.
func (x *execution) applyInitContainers(pod *core.Pod, s *step) error {
	for _, given := range s.platform.InitContainers {
		c := core.Container{Name: given.Name, ImagePullPolicy: s.platform.ImagePullPolicy, SecurityContext: pod.Spec.Containers[0].SecurityContext}
		err := error(nil)
		if given.RestartPolicy != nil {
			c.RestartPolicy = *given.RestartPolicy
		}
		if c.Image, err = expr.ResolveString(given.Image, s.context); err != nil {
			return fmt.Errorf("initContainers %s: image: %w", given.Name, err)
		}
		if c.Command, c.Args, err = expr.Resolve(given.Command, given.Args, s.context); err != nil {
			return fmt.Errorf("initContainers %s: %w", given.Name, err)
		}
		for _, variable := range given.Env {
			value, err := expr.ResolveString(variable.Value, s.context)
			if err != nil {
				return fmt.Errorf("initContainers %s: env %s: %w", given.Name, variable.Name, err)
			}
			c.Env = append(c.Env, core.EnvVar{Name: variable.Name, Value: value})
		}
		if given.Resources != nil {
			for _, group := range []struct {
				from map[string]string
				to   *map[string]core.Quantity
			}{{given.Resources.Requests, &c.Resources.Requests}, {given.Resources.Limits, &c.Resources.Limits}} {
				for name, text := range group.from {
					amount, err := quantity(text)
					if err != nil {
						return fmt.Errorf("initContainers %s: resources %s: %w", given.Name, name, err)
					}
					if *group.to == nil {
						*group.to = map[string]core.Quantity{}
					}
					(*group.to)[name] = amount
				}
			}
		}
		for _, m := range given.VolumeMounts {
			name, err := volumeFor(pod, m.VolumeName)
			if err != nil {
				return fmt.Errorf("initContainers %s: %w", given.Name, err)
			}
			c.VolumeMounts = append(c.VolumeMounts, core.VolumeMount{Name: name, MountPath: mountPath(m.MountPath)})
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	return nil
}

// volumeFor finds the volume that a package calls by a name: its own, or that
// of the secret, config map or claim behind it.
func volumeFor(pod *core.Pod, name string) (string, error) {
	for _, known := range []string{name, "secret-" + name, "configmap-" + name, "claim-" + name} {
		if slices.ContainsFunc(pod.Spec.Volumes, func(v core.Volume) bool { return v.Name == known }) {
			return known, nil
		}
	}
	return "", fmt.Errorf("volumeMounts: the step has no volume %q; mount it in the step, too", name)
}
