package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"sort"

	"github.com/skiff-ml/skiff/api/skiff"
)

// decoded reads a stored value. What the engine stored is JSON; anything else
// would be damage that the store's checksum has already refused.
func decoded(raw json.RawMessage) any {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil
	}
	return v
}

// encoded is how values are stored. Every value came from JSON, so it can be
// written as JSON again.
func (v values) encoded() map[string]json.RawMessage {
	if len(v) == 0 {
		return nil
	}
	raw := make(map[string]json.RawMessage, len(v))
	for name, value := range v {
		if data, err := json.Marshal(value); err == nil {
			raw[name] = data
		}
	}
	return raw
}

// names is how artifacts are stored: by the names of their objects.
func (m artifactMap) names() map[string][]string {
	if len(m) == 0 {
		return nil
	}
	names := make(map[string][]string, len(m))
	for key, list := range m {
		ids := make([]string, len(list.items))
		for i, a := range list.items {
			ids[i] = a.Name
		}
		names[key] = ids
	}
	return names
}

// with is the inputs of one pass: the loop's own and its item.
func (in inputs) with(n *node, it item) (inputs, error) {
	out := inputs{params: maps.Clone(in.params), artifacts: maps.Clone(in.artifacts)}
	if n.spec.ArtifactIterator != nil {
		out.artifacts[n.spec.ArtifactIterator.ItemInput] = artifactList{items: []*skiff.Artifact{it.artifact}}
		return out, nil
	}
	name := n.spec.ParameterIterator.ItemInput
	value := it.param
	if def := n.component.InputDefinitions.Parameters[name]; def != nil && value != nil {
		checked, err := def.Coerce(value)
		if err != nil {
			return out, fmt.Errorf("loop item %q: %w", name, err)
		}
		value = checked
	}
	out.params[name] = value
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
