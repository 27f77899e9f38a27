package view

import (
	"slices"
	"strings"
	"unicode"

	"github.com/skiff-ml/skiff/api/skiff"
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

// classification are the numbers that sum up the run's classification metrics.
func (r *Run) classification() []Metric {
	var all []Metric
	for i := range r.Artifacts {
		a := &r.Artifacts[i]
		spec := skiff.ArtifactSpec{SchemaTitle: a.Type, Imported: a.Imported, Metadata: a.Metadata}
		all = append(all, skiff.ClassificationMetrics(a.Task, a.Name, &spec)...)
	}
	return all
}
