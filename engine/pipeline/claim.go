package pipeline

import (
	"fmt"

	"github.com/skiff-ml/skiff/api/kfp"
)

// claimName is the claim that a step mounts, named in the new way or in one of
// the three old ones.
func (x *execution) claimName(n *node, m kfp.PVCMount) (string, error) {
	spec := m.PVCNameParameter
	if spec == nil && (m.TaskOutputParameter != nil || m.ComponentInputParameter != "") {
		spec = &kfp.InputParameterSpec{TaskOutputParameter: m.TaskOutputParameter, ComponentInputParameter: m.ComponentInputParameter}
	}
	name, err := x.platformName(n, spec, m.Constant)
	if err == nil && name == "" {
		err = fmt.Errorf("no claim was named: the input holds nothing")
	}
	return name, err
}
