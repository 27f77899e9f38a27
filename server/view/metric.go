package view

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"unicode"
)

// Direction says which values of a metric are better.
type Direction string

// The directions; none means that no value is the best one.
const (
	Higher      Direction = "higher"
	Lower       Direction = "lower"
	NoDirection Direction = ""
)

// DirectionOf guesses from a metric's name: any word of it that names a loss, an
// error or a cost means lower, any that names a score means higher. Names that
// hold neither have no direction.
func DirectionOf(name string) Direction {
	lower := []string{"loss", "error", "err", "mse", "rmse", "mae", "mape", "nll", "perplexity", "ppl", "wer", "cer", "fid",
		"latency", "time", "duration", "seconds", "ms", "cost", "regret", "divergence", "kl", "logloss", "bpb"}
	higher := []string{"accuracy", "acc", "auc", "auroc", "auprc", "roc", "f1", "precision", "recall", "score", "r2", "bleu", "rouge",
		"map", "ndcg", "mrr", "iou", "dice", "throughput", "reward", "sensitivity", "specificity", "psnr", "ssim", "kappa", "mcc"}
	found := NoDirection
	for _, word := range words(name) {
		// "error_rate_score" is still an error.
		if slices.Contains(lower, word) {
			return Lower
		}
		if slices.Contains(higher, word) {
			found = Higher
		}
	}
	return found
}

// words are the parts of a name in lower case, by signs and by capitals.
func words(name string) []string {
	var b strings.Builder
	before := rune(0)
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			r = ' '
		case unicode.IsUpper(r) && unicode.IsLower(before):
			b.WriteRune(' ')
		}
		b.WriteRune(unicode.ToLower(r))
		before = r
	}
	return strings.Fields(b.String())
}

// qualified names a run's metrics: by their name alone where only one has it,
// else with the task, and with the artifact where a task has several. The order
// is that of the run.
func qualified(metrics []Metric) (names []string) {
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

// classification are the numbers that sum up a run's classification metrics, in
// the shape that the kfp SDK gives their metadata: the area under the ROC curve,
// and of the confusion matrix (a row for each true category) the accuracy and
// the unweighted means over the categories.
func classification(run *Run) []Metric {
	var all []Metric
	for i := range run.Artifacts {
		a := &run.Artifacts[i]
		if a.Type != "system.ClassificationMetrics" || a.Imported {
			continue
		}
		add := func(name string, value float64) {
			if text, err := json.Marshal(value); err == nil {
				all = append(all, Metric{Task: a.Task, Artifact: a.Name, Name: name, Value: text})
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
			continue
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
