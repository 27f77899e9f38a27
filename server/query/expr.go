package query

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/view"
)

// The forms in which people write what runs are picked and sorted by, on the
// command line and in the list of runs (sortBy, filter).

// parseField reads "metric:NAME" or "param:NAME".
func parseField(text string) (string, error) {
	source, name := splitName(text)
	if name == "" || (source+":" != MetricPrefix && source+":" != ParamPrefix && source+":" != ParameterPrefix) {
		return "", fmt.Errorf("%q: want metric:NAME or param:NAME, as in metric:accuracy", text)
	}
	return text, nil
}

// ParseCondition reads FIELD OP VALUE, as in "param:lr>0.01", with an OP of =, !=,
// <, <=, > or >=. A value that is no JSON is text.
func ParseCondition(text string) (Predicate, error) {
	ops := map[string]Op{"=": Equals, "==": Equals, "!=": NotEquals, "<": Less, "<=": LessEquals, ">": Greater, ">=": GreaterEquals}
	wrong := fmt.Errorf("%q: want FIELD OP VALUE with an OP of =, !=, <, <=, > or >=, as in param:lr>0.01", text)
	at := strings.IndexAny(text, "=!<>")
	if at < 0 {
		return Predicate{}, wrong
	}
	sign := text[at : at+1]
	if strings.HasPrefix(text[at+1:], "=") {
		sign += "="
	}
	op, known := ops[sign]
	want := strings.TrimSpace(text[at+len(sign):])
	if !known || want == "" {
		return Predicate{}, wrong
	}
	field, err := parseField(strings.TrimSpace(text[:at]))
	if err != nil {
		return Predicate{}, err
	}
	return NewPredicate(runField, field, op, false, want)
}

// ParseOrder reads a field with ":asc" or ":desc" behind it. Without, parameters
// ascend, and metrics go from the best to the worst, or from high to low where
// their name does not tell which is better.
func ParseOrder(text string) (field string, descending bool, err error) {
	name, ascending := strings.CutSuffix(text, ":asc")
	name, descending = strings.CutSuffix(name, ":desc")
	if field, err = parseField(name); err != nil {
		return "", false, err
	}
	if !ascending && !descending {
		metric, is := strings.CutPrefix(field, MetricPrefix)
		descending = is && view.DirectionOf(metric) != view.Lower
	}
	return field, descending, nil
}

// ValueOf is a run's value of a metric or a parameter; nil where it has none.
func ValueOf(run *skiff.Run, field string) json.RawMessage {
	f, is := runField(field)
	if !is {
		return nil
	}
	return f.free(run)
}
