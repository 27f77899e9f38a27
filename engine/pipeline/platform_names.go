package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

// platformValue is the value behind a platform setting that is given as an
// input: a constant, an input of the pipeline around the task, or an output of
// another task there. It is nil where there is none.
func (x *execution) platformValue(n *node, spec *kfp.InputParameterSpec) (any, error) {
	if from := spec.TaskOutputParameter; from != nil && n.scope.nodes[from.ProducerTask] == nil {
		return nil, fmt.Errorf("there is no task %q beside this one to take a value from", from.ProducerTask)
	}
	value, err := x.resolveParameter(n, spec)
	if err != nil || value != nil || spec.ComponentInputParameter == "" {
		return value, err
	}
	// A component that stands alone finds the input among its own.
	return n.inputs.params[spec.ComponentInputParameter], nil
}

// platformName is a name given as an input or, in older packages, plainly. It
// is empty where the input holds nothing.
func (x *execution) platformName(n *node, spec *kfp.InputParameterSpec, plain string) (string, error) {
	if spec == nil {
		return plain, nil
	}
	value, err := x.platformValue(n, spec)
	if err != nil {
		return "", err
	}
	name, isText := value.(string)
	if !isText && value != nil {
		return "", fmt.Errorf("want a name, got %.80v", value)
	}
	return name, nil
}

// platformJSON decodes an input that holds a part of a pod in its published
// shape, as a value or as its JSON text; false where it holds nothing.
func (x *execution) platformJSON(n *node, spec *kfp.InputParameterSpec, into any) (bool, error) {
	value, err := x.platformValue(n, spec)
	if err != nil || value == nil || value == "" {
		return false, err
	}
	data, isText := []byte(nil), false
	if text, ok := value.(string); ok {
		data, isText = []byte(text), true
	}
	if !isText {
		if data, err = json.Marshal(value); err != nil {
			return false, err
		}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("%.80s: %w", data, err)
	}
	return string(data) != "null", nil
}

// errUnnamed is why a setting that is required cannot be given.
var errUnnamed = errors.New("no name was given: the input holds nothing; give it, or mark the setting optional")

// settingName is the name of a secret or config map; empty, to be left out,
// where it is optional and none was given.
func (x *execution) settingName(n *node, spec *kfp.InputParameterSpec, plain string, optional *bool) (string, error) {
	name, err := x.platformName(n, spec, plain)
	if err == nil && name == "" && (optional == nil || !*optional) {
		err = errUnnamed
	}
	return name, err
}

// applyVariables gives the main container variables of secrets, config maps and
// fields. One of the component's own of the same name comes first and loses, as
// on the cluster.
func (x *execution) applyVariables(pod *core.Pod, s *step) error {
	main := &pod.Spec.Containers[0]
	for i, setting := range s.platform.SecretAsEnv {
		name, err := x.settingName(s.n, setting.SecretNameParameter, setting.SecretName, setting.Optional)
		if err != nil {
			return fmt.Errorf("secretAsEnv[%d]: %w", i, err)
		}
		for _, entry := range setting.KeyToEnv {
			if name != "" {
				main.Env = append(main.Env, core.EnvVar{Name: entry.EnvVar, ValueFrom: &core.EnvVarSource{
					SecretKeyRef: &core.KeySelector{Name: name, Key: entry.SecretKey, Optional: setting.Optional},
				}})
			}
		}
	}
	for i, setting := range s.platform.ConfigMapAsEnv {
		name, err := x.settingName(s.n, setting.ConfigMapNameParameter, setting.ConfigMapName, setting.Optional)
		if err != nil {
			return fmt.Errorf("configMapAsEnv[%d]: %w", i, err)
		}
		for _, entry := range setting.KeyToEnv {
			if name != "" {
				main.Env = append(main.Env, core.EnvVar{Name: entry.EnvVar, ValueFrom: &core.EnvVarSource{
					ConfigMapKeyRef: &core.KeySelector{Name: name, Key: entry.ConfigMapKey, Optional: setting.Optional},
				}})
			}
		}
	}
	for _, field := range s.platform.FieldPathAsEnv {
		main.Env = append(main.Env, core.EnvVar{Name: field.Name, ValueFrom: &core.EnvVarSource{
			FieldRef: &core.FieldSelector{FieldPath: field.FieldPath},
		}})
	}
	return nil
}
