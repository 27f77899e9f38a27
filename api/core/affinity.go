package core

import "slices"

// Affinity says where a pod may or would rather run (core/v1 Affinity). There
// is one node: node affinity is compared with its labels, pod affinity is kept
// and has no effect.
type Affinity struct {
	NodeAffinity    *NodeAffinity `json:"nodeAffinity,omitempty"`
	PodAffinity     *PodAffinity  `json:"podAffinity,omitempty"`
	PodAntiAffinity *PodAffinity  `json:"podAntiAffinity,omitempty"`
}

// NodeAffinity is what the node must, or had better, be like.
type NodeAffinity struct {
	Required  *NodeSelector       `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`
	Preferred []PreferredNodeTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// NodeSelector matches where one of its terms does.
type NodeSelector struct {
	NodeSelectorTerms []NodeSelectorTerm `json:"nodeSelectorTerms"`
}

// NodeSelectorTerm matches where all of its expressions do; an empty one
// matches nothing.
type NodeSelectorTerm struct {
	MatchExpressions []SelectorRequirement `json:"matchExpressions,omitempty"`
	MatchFields      []SelectorRequirement `json:"matchFields,omitempty"`
}

// SelectorRequirement compares one label or field: In, NotIn, Exists,
// DoesNotExist, Gt or Lt.
type SelectorRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// PreferredNodeTerm is a term with its weight, 1 to 100.
type PreferredNodeTerm struct {
	Weight     int32            `json:"weight"`
	Preference NodeSelectorTerm `json:"preference"`
}

// PodAffinity is beside which pods a pod must or would rather run.
type PodAffinity struct {
	Required  []PodAffinityTerm         `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`
	Preferred []WeightedPodAffinityTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// PodAffinityTerm selects pods.
type PodAffinityTerm struct {
	LabelSelector     *LabelSelector `json:"labelSelector,omitempty"`
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	Namespaces        []string       `json:"namespaces,omitempty"`
	TopologyKey       string         `json:"topologyKey,omitempty"`
}

// WeightedPodAffinityTerm is a term with its weight, 1 to 100.
type WeightedPodAffinityTerm struct {
	Weight          int32           `json:"weight"`
	PodAffinityTerm PodAffinityTerm `json:"podAffinityTerm"`
}

// LabelSelector selects by labels (meta/v1 LabelSelector).
type LabelSelector struct {
	MatchLabels      map[string]string     `json:"matchLabels,omitempty"`
	MatchExpressions []SelectorRequirement `json:"matchExpressions,omitempty"`
}

// Toleration of a node's taint. This node has none, so there is nothing to
// tolerate; they are kept for those who read the pod.
type Toleration struct {
	Key               string `json:"key,omitempty"`
	Operator          string `json:"operator,omitempty"`
	Value             string `json:"value,omitempty"`
	Effect            string `json:"effect,omitempty"`
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// Matches reports whether labels fulfil the requirement. An operator that is
// not known fulfils nothing.
func (r SelectorRequirement) Matches(labels map[string]string) bool {
	value, there := labels[r.Key]
	switch r.Operator {
	case "In":
		return there && slices.Contains(r.Values, value)
	case "NotIn":
		return !there || !slices.Contains(r.Values, value)
	case "Exists":
		return there
	case "DoesNotExist":
		return !there
	case "Gt", "Lt":
		if !there || len(r.Values) != 1 {
			return false
		}
		have, errHave := ParseQuantity(value)
		want, errWant := ParseQuantity(r.Values[0])
		if errHave != nil || errWant != nil {
			return false
		}
		if r.Operator == "Gt" {
			return have.Value() > want.Value()
		}
		return have.Value() < want.Value()
	}
	return false
}

// Matches reports whether a node of that name and those labels fulfils the term.
func (t NodeSelectorTerm) Matches(name string, labels map[string]string) bool {
	for _, r := range t.MatchExpressions {
		if !r.Matches(labels) {
			return false
		}
	}
	for _, r := range t.MatchFields {
		if !r.Matches(map[string]string{"metadata.name": name}) {
			return false
		}
	}
	return len(t.MatchExpressions)+len(t.MatchFields) > 0
}
