package skiff

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
)

// Metric is one number that a task reported through a metrics artifact. Value is
// a JSON number.
type Metric struct {
	// Task is the task's path in the run, Artifact the artifact's name.
	Task     string          `json:"task"`
	Artifact string          `json:"artifact"`
	Name     string          `json:"name"`
	Value    json.RawMessage `json:"value"`
}

// MaxRunMetrics bounds RunStatus.Metrics: a loop that reports a thousand times is
// no reason for a run of a megabyte.
const MaxRunMetrics = 256

// ScalarMetrics are the numbers that an artifact of one of the metrics types
// holds by name. An imported one reports nothing of the run.
func ScalarMetrics(task, artifact string, a *ArtifactSpec) []Metric {
	if a.Imported || !strings.HasPrefix(a.SchemaTitle, "system.") || !strings.HasSuffix(a.SchemaTitle, "Metrics") {
		return nil
	}
	var all []Metric
	for _, name := range slices.Sorted(maps.Keys(a.Metadata)) {
		var number json.Number
		value := a.Metadata[name]
		// The display name is metadata of the artifact, and a number in quotes
		// decodes as one: what is not a bare number is no metric.
		if len(value) == 0 || value[0] == '"' || json.Unmarshal(value, &number) != nil || number == "" {
			continue
		}
		all = append(all, Metric{Task: task, Artifact: artifact, Name: name, Value: value})
	}
	return all
}

// ClassificationMetrics are the numbers that sum up a classification's metrics,
// in the shape that the kfp SDK gives their metadata: the area under the ROC
// curve, and of the confusion matrix (a row for each true category) the accuracy
// and the unweighted means over the categories.
func ClassificationMetrics(task, artifact string, a *ArtifactSpec) []Metric {
	if a.SchemaTitle != "system.ClassificationMetrics" || a.Imported {
		return nil
	}
	var all []Metric
	add := func(name string, value float64) {
		if text, err := json.Marshal(value); err == nil {
			all = append(all, Metric{Task: task, Artifact: artifact, Name: name, Value: text})
		}
	}
	var curve []rocPoint
	if json.Unmarshal(a.Metadata["confidenceMetrics"], &curve) == nil && len(curve) > 1 {
		add("auc", area(curve))
	}
	var matrix struct {
		Rows []struct {
			Row []float64 `json:"row"`
		} `json:"rows"`
	}
	if json.Unmarshal(a.Metadata["confusionMatrix"], &matrix) != nil {
		return all
	}
	rows := make([][]float64, 0, len(matrix.Rows))
	for _, r := range matrix.Rows {
		rows = append(rows, r.Row)
	}
	if s, ok := summarize(rows); ok {
		add("accuracy", s.accuracy)
		add("f1_macro", s.f1)
		add("precision_macro", s.precision)
		add("recall_macro", s.recall)
		add("samples", s.samples)
	}
	return all
}

// QualifiedNames names a run's metrics: by their name alone where only one has
// it, else with the task, and with the artifact where a task has several. The
// order is that of the run.
func QualifiedNames(metrics []Metric) (names []string) {
	byName, byTask := map[string]int{}, map[string]int{}
	for _, m := range metrics {
		byName[m.Name]++
		byTask[m.Task+"/"+m.Name]++
	}
	for _, m := range metrics {
		switch {
		case byName[m.Name] == 1:
			names = append(names, m.Name)
		case byTask[m.Task+"/"+m.Name] == 1:
			names = append(names, m.Task+"/"+m.Name)
		default:
			names = append(names, m.Task+"/"+m.Artifact+"/"+m.Name)
		}
	}
	return names
}

// SummarizeMetrics is RunStatus.Metrics: the numbers of a run by their qualified
// names and by their names alone, of which the latest task's counts. Both lists
// are in the order of the run; where no scalar has a name, the summary of a
// classification may. There are MaxRunMetrics at most, names alone before others.
func SummarizeMetrics(scalars, classifications []Metric) map[string]json.RawMessage {
	alone, qualified := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for _, metrics := range [][]Metric{classifications, scalars} {
		names := QualifiedNames(metrics)
		for i, m := range metrics {
			alone[m.Name], qualified[names[i]] = m.Value, m.Value
		}
	}
	if len(alone) == 0 {
		return nil
	}
	all := map[string]json.RawMessage{}
	for _, values := range []map[string]json.RawMessage{alone, qualified} {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if _, known := all[name]; !known && len(all) < MaxRunMetrics {
				all[name] = values[name]
			}
		}
	}
	return all
}

type rocPoint struct {
	Recall            float64 `json:"recall"`
	FalsePositiveRate float64 `json:"falsePositiveRate"`
}

// area is that under the curve from (0,0) to (1,1), by trapezoids.
func area(curve []rocPoint) float64 {
	curve = append(slices.Clone(curve), rocPoint{}, rocPoint{Recall: 1, FalsePositiveRate: 1})
	slices.SortFunc(curve, func(a, b rocPoint) int {
		return cmp.Or(cmp.Compare(a.FalsePositiveRate, b.FalsePositiveRate), cmp.Compare(a.Recall, b.Recall))
	})
	sum := 0.0
	for i := 1; i < len(curve); i++ {
		sum += (curve[i].FalsePositiveRate - curve[i-1].FalsePositiveRate) * (curve[i].Recall + curve[i-1].Recall) / 2
	}
	return sum
}

type summary struct{ accuracy, precision, recall, f1, samples float64 }

// summarize is false for what is no square matrix of counts.
func summarize(rows [][]float64) (summary, bool) {
	n := len(rows)
	var s summary
	hits := 0.0
	columns := make([]float64, n)
	for i, row := range rows {
		if len(row) != n {
			return s, false
		}
		for j, count := range row {
			if count < 0 || math.IsInf(count, 0) {
				return s, false
			}
			columns[j] += count
			s.samples += count
		}
		hits += row[i]
	}
	if s.samples == 0 {
		return s, false
	}
	s.accuracy = hits / s.samples
	for i, row := range rows {
		truth := 0.0
		for _, count := range row {
			truth += count
		}
		precision, recall := ratio(row[i], columns[i]), ratio(row[i], truth)
		s.precision += precision / float64(n)
		s.recall += recall / float64(n)
		s.f1 += ratio(2*precision*recall, precision+recall) / float64(n)
	}
	return s, true
}

// ratio of nothing to nothing is 0, as the common libraries have it.
func ratio(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}
