package pipeline

import (
	"fmt"
	"maps"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

// applyPlacement gives the pod its wishes about nodes. There is one node: they
// are compared with its labels when the pod is admitted, and stop nothing.
func (x *execution) applyPlacement(pod *core.Pod, s *step) error {
	if err := x.applyNodeSelector(pod, s); err != nil {
		return err
	}
	for i, t := range s.platform.Tolerations {
		list, err := x.tolerations(s.n, t)
		if err != nil {
			return fmt.Errorf("tolerations[%d]: %w", i, err)
		}
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, list...)
	}
	for i, t := range s.platform.NodeAffinity {
		if err := x.applyNodeAffinity(pod, s.n, t); err != nil {
			return fmt.Errorf("nodeAffinity[%d]: %w", i, err)
		}
	}
	for _, t := range s.platform.PodAffinity {
		applyPodAffinity(pod, t)
	}
	return nil
}

func (x *execution) applyNodeSelector(pod *core.Pod, s *step) error {
	selector := s.platform.NodeSelector
	if selector == nil {
		return nil
	}
	labels := maps.Clone(selector.Labels)
	if selector.NodeSelectorJSON != nil {
		var given map[string]string
		if _, err := x.platformJSON(s.n, selector.NodeSelectorJSON, &given); err != nil {
			return fmt.Errorf("nodeSelector: want a mapping of labels: %w", err)
		}
		labels = given
	}
	pod.Spec.NodeSelector = labels
	return nil
}

// tolerations are one that is written out, or an input that holds one or a list.
func (x *execution) tolerations(n *node, t kfp.Toleration) ([]core.Toleration, error) {
	if t.TolerationJSON == nil {
		return []core.Toleration{{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect, TolerationSeconds: t.TolerationSeconds}}, nil
	}
	var list []core.Toleration
	if _, err := x.platformJSON(n, t.TolerationJSON, &list); err == nil {
		return list, nil
	}
	var one core.Toleration
	given, err := x.platformJSON(n, t.TolerationJSON, &one)
	if err != nil || !given {
		return nil, err
	}
	return []core.Toleration{one}, nil
}

func (x *execution) applyNodeAffinity(pod *core.Pod, n *node, t kfp.NodeAffinityTerm) error {
	affinity := &core.NodeAffinity{}
	switch {
	case t.NodeAffinityJSON != nil:
		given, err := x.platformJSON(n, t.NodeAffinityJSON, affinity)
		if err != nil || !given {
			return err
		}
	case t.Weight != nil:
		affinity.Preferred = []core.PreferredNodeTerm{{Weight: *t.Weight, Preference: nodeTerm(t)}}
	default:
		affinity.Required = &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{nodeTerm(t)}}
	}
	all := affinityOf(pod)
	if all.NodeAffinity == nil {
		all.NodeAffinity = &core.NodeAffinity{}
	}
	if affinity.Required != nil {
		if all.NodeAffinity.Required == nil {
			all.NodeAffinity.Required = &core.NodeSelector{}
		}
		all.NodeAffinity.Required.NodeSelectorTerms = append(all.NodeAffinity.Required.NodeSelectorTerms, affinity.Required.NodeSelectorTerms...)
	}
	all.NodeAffinity.Preferred = append(all.NodeAffinity.Preferred, affinity.Preferred...)
	return nil
}

func nodeTerm(t kfp.NodeAffinityTerm) core.NodeSelectorTerm {
	return core.NodeSelectorTerm{MatchExpressions: requirements(t.MatchExpressions), MatchFields: requirements(t.MatchFields)}
}

func requirements(list []kfp.SelectorRequirement) []core.SelectorRequirement {
	var out []core.SelectorRequirement
	for _, r := range list {
		out = append(out, core.SelectorRequirement{Key: r.Key, Operator: r.Operator, Values: r.Values})
	}
	return out
}

func affinityOf(pod *core.Pod) *core.Affinity {
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &core.Affinity{}
	}
	return pod.Spec.Affinity
}

func applyPodAffinity(pod *core.Pod, t kfp.PodAffinityTerm) {
	term := core.PodAffinityTerm{TopologyKey: t.TopologyKey, Namespaces: t.Namespaces}
	if len(t.MatchPodExpressions)+len(t.MatchPodLabels) > 0 {
		term.LabelSelector = &core.LabelSelector{MatchLabels: t.MatchPodLabels, MatchExpressions: requirements(t.MatchPodExpressions)}
	}
	if len(t.MatchNamespaceExpressions)+len(t.MatchNamespaceLabels) > 0 {
		term.NamespaceSelector = &core.LabelSelector{MatchLabels: t.MatchNamespaceLabels, MatchExpressions: requirements(t.MatchNamespaceExpressions)}
	}
	all := affinityOf(pod)
	place := &all.PodAffinity
	if t.Anti != nil && *t.Anti {
		place = &all.PodAntiAffinity
	}
	if *place == nil {
		*place = &core.PodAffinity{}
	}
	if t.Weight != nil {
		(*place).Preferred = append((*place).Preferred, core.WeightedPodAffinityTerm{Weight: *t.Weight, PodAffinityTerm: term})
	} else {
		(*place).Required = append((*place).Required, term)
	}
}
