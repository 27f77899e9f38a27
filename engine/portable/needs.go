package portable

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

// needs collects what pipelines ask for that does not travel, and the images
// that they name.
type needs struct {
	found  map[string]*bundle.Need
	images map[string]bool
}

func newNeeds() *needs { return &needs{found: map[string]*bundle.Need{}, images: map[string]bool{}} }

// add looks through one pipeline.
func (n *needs) add(spec, platform json.RawMessage) error {
	pkg, err := kfp.Decode(spec, platform)
	if err != nil {
		return err
	}
	for label, executor := range pkg.Spec.DeploymentSpec.Executors {
		if executor.Container != nil {
			n.image(executor.Container.Image)
		}
		n.executor(pkg.Platform.Executor(label))
	}
	return nil
}

func (n *needs) executor(c *kfp.KubernetesExecutorConfig) {
	if c == nil {
		return
	}
	for _, s := range c.SecretAsEnv {
		keys := make([]string, 0, len(s.KeyToEnv))
		for _, k := range s.KeyToEnv {
			keys = append(keys, k.SecretKey)
		}
		n.need(core.SecretKind, s.SecretName, s.SecretNameParameter, s.Optional, keys...)
	}
	for _, s := range c.SecretAsVolume {
		n.need(core.SecretKind, s.SecretName, s.SecretNameParameter, s.Optional)
	}
	for _, s := range c.ImagePullSecret {
		n.need(core.SecretKind, s.SecretName, s.SecretNameParameter, nil)
	}
	for _, m := range c.ConfigMapAsEnv {
		keys := make([]string, 0, len(m.KeyToEnv))
		for _, k := range m.KeyToEnv {
			keys = append(keys, k.ConfigMapKey)
		}
		n.need(core.ConfigMapKind, m.ConfigMapName, m.ConfigMapNameParameter, m.Optional, keys...)
	}
	for _, m := range c.ConfigMapAsVolume {
		n.need(core.ConfigMapKind, m.ConfigMapName, m.ConfigMapNameParameter, m.Optional)
	}
	for _, m := range c.PVCMount {
		if m.TaskOutputParameter == nil && (m.PVCNameParameter == nil || m.PVCNameParameter.TaskOutputParameter == nil) {
			spec := m.PVCNameParameter
			if m.ComponentInputParameter != "" {
				spec = &kfp.InputParameterSpec{ComponentInputParameter: m.ComponentInputParameter}
			}
			n.need(core.PersistentVolumeClaimKind, m.Constant, spec, nil)
		}
	}
	for _, container := range c.InitContainers {
		n.image(container.Image)
	}
}

// image notes an image that is written plainly and stands for no operation of
// the engine.
func (n *needs) image(ref string) {
	if ref != "" && !strings.Contains(ref, "{{") && !strings.HasPrefix(ref, "argostub/") {
		n.images[ref] = true
	}
}

func (n *needs) need(kind, name string, input *kfp.InputParameterSpec, optional *bool, keys ...string) {
	from := ""
	if input != nil {
		name = ""
		switch value := input.RuntimeValue; {
		case value != nil && value.Constant != nil:
			name, _ = value.Constant.(string)
		case value != nil:
			from = value.RuntimeParameter
		case input.TaskOutputParameter != nil:
			from = input.TaskOutputParameter.ProducerTask + "/" + input.TaskOutputParameter.OutputParameterKey
		default:
			from = input.ComponentInputParameter
		}
	}
	if name == "" && from == "" {
		return
	}
	id := kind + separator + name + separator + from
	need := n.found[id]
	if need == nil {
		need = &bundle.Need{Kind: kind, Name: name, Input: from, Optional: true}
		n.found[id] = need
	}
	need.Optional = need.Optional && optional != nil && *optional
	need.Keys = append(need.Keys, keys...)
}

// list is everything that is needed, in a fixed order.
func (n *needs) list() []bundle.Need {
	var all []bundle.Need
	for _, need := range n.found {
		slices.Sort(need.Keys)
		need.Keys = slices.Compact(need.Keys)
		all = append(all, *need)
	}
	slices.SortFunc(all, func(a, b bundle.Need) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(a.Input, b.Input))
	})
	return all
}
