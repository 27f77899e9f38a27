package pipeline

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/skiff"
)

// metrics are the numbers that the run's steps reported, for the run itself to
// hold: lists go by them without looking at tasks. A result that was taken from
// an earlier run is as good as one of its own.
func (x *execution) metrics() map[string]json.RawMessage {
	var steps []*node
	x.root.each(func(n *node) {
		if n.kind == skiff.TaskContainer && len(n.results) > 0 {
			steps = append(steps, n)
		}
	})
	slices.SortFunc(steps, func(a, b *node) int {
		return cmp.Or(a.task.Status.StartedAt.Compare(b.task.Status.StartedAt), strings.Compare(a.path, b.path))
	})
	var scalars, classifications []skiff.Metric
	for _, n := range steps {
		for _, output := range sortedKeys(n.results) {
			for _, a := range n.results[output].items {
				name := cmp.Or(a.Spec.DisplayName, a.Spec.Output)
				scalars = append(scalars, skiff.ScalarMetrics(n.path, name, &a.Spec)...)
				classifications = append(classifications, skiff.ClassificationMetrics(n.path, name, &a.Spec)...)
			}
		}
	}
	return skiff.SummarizeMetrics(scalars, classifications)
}

// each calls fn for every node of the scope and of those within.
func (s *scope) each(fn func(*node)) {
	if s == nil {
		return
	}
	for _, key := range s.order {
		s.nodes[key].each(fn)
	}
}

func (n *node) each(fn func(*node)) {
	fn(n)
	n.inner.each(fn)
	for _, pass := range n.passes {
		pass.each(fn)
	}
}
