package view

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Field is a value of a run that runs are sorted and filtered by.
type Field struct {
	// Metric is true for a metric, false for a parameter.
	Metric bool
	Name   string
}

// ParseField reads "metric:NAME" or "param:NAME".
func ParseField(text string) (Field, error) {
	source, name, _ := strings.Cut(text, ":")
	if name == "" || (source != "metric" && source != "param") {
		return Field{}, fmt.Errorf("%q: want metric:NAME or param:NAME, as in metric:accuracy", text)
	}
	return Field{Metric: source == "metric", Name: name}, nil
}

// String is what ParseField reads.
func (f Field) String() string {
	if f.Metric {
		return "metric:" + f.Name
	}
	return "param:" + f.Name
}

// Of is the field's value in a run. A metric is named as in a Comparison, or by
// its name alone, where several are called so the one of the latest task counts.
// Where no scalar has the name, the summary of a classification may.
func (f Field) Of(run *Run) (json.RawMessage, bool) {
	if !f.Metric {
		value, ok := run.Parameters[f.Name]
		return value, ok && len(value) > 0
	}
	for _, metrics := range [][]Metric{run.Metrics, classification(run)} {
		names := qualified(metrics)
		for i, m := range slices.Backward(metrics) {
			if names[i] == f.Name || m.Name == f.Name {
				return m.Value, true
			}
		}
	}
	return nil, false
}

// Filter holds runs to a condition.
type Filter struct {
	Field Field
	// Op is =, !=, <, <=, > or >=.
	Op   string
	Want json.RawMessage
}

// ParseFilter reads FIELD OP VALUE, as in "param:lr>0.01". A value that is no
// JSON is text.
func ParseFilter(text string) (Filter, error) {
	at := strings.IndexAny(text, "=!<>")
	if at < 0 {
		return Filter{}, fmt.Errorf("%q: want FIELD OP VALUE with an OP of =, !=, <, <=, > or >=, as in param:lr>0.01", text)
	}
	op := text[at : at+1]
	if strings.HasPrefix(text[at+1:], "=") {
		op += "="
	}
	value := strings.TrimSpace(text[at+len(op):])
	if op == "==" {
		op = "="
	}
	if op == "!" || value == "" {
		return Filter{}, fmt.Errorf("%q: want FIELD OP VALUE with an OP of =, !=, <, <=, > or >=, as in param:lr>0.01", text)
	}
	field, err := ParseField(strings.TrimSpace(text[:at]))
	if err != nil {
		return Filter{}, err
	}
	want := json.RawMessage(value)
	if !json.Valid(want) {
		quoted, err := json.Marshal(value)
		if err != nil {
			return Filter{}, fmt.Errorf("%q: %w", text, err)
		}
		want = quoted
	}
	return Filter{Field: field, Op: op, Want: want}, nil
}

// Match reports whether a run has the field with a value that fits. Without the
// field no run does, and an order is between two numbers or two texts only.
func (f Filter) Match(run *Run) bool {
	value, ok := f.Field.Of(run)
	if !ok {
		return false
	}
	equal := equalJSON(value, f.Want) || (isText(f.Want) != isText(value) && text(value) == text(f.Want))
	switch f.Op {
	case "=":
		return equal
	case "!=":
		return !equal
	}
	_, number := numberOf(value)
	_, wantNumber := numberOf(f.Want)
	if number != wantNumber || (!number && (!isText(value) || !isText(f.Want))) {
		return false
	}
	order := compareValues(value, f.Want)
	switch f.Op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func isText(value json.RawMessage) bool { return len(value) > 0 && value[0] == '"' }

func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

// compareValues puts numbers before all else, which goes by its text.
func compareValues(a, b json.RawMessage) int {
	x, xok := numberOf(a)
	y, yok := numberOf(b)
	switch {
	case xok && yok:
		return cmp.Compare(x, y)
	case xok:
		return -1
	case yok:
		return 1
	}
	return strings.Compare(text(a), text(b))
}

// Order is what runs are sorted by.
type Order struct {
	Field      Field
	Descending bool
}

// ParseOrder reads a field with ":asc" or ":desc" behind it. Without, parameters
// ascend, and metrics go from the best to the worst, or from high to low where
// their name does not tell which is better.
func ParseOrder(expr string) (Order, error) {
	name, ascending := strings.CutSuffix(expr, ":asc")
	name, descending := strings.CutSuffix(name, ":desc")
	field, err := ParseField(name)
	if err != nil {
		return Order{}, err
	}
	if !ascending && !descending {
		descending = field.Metric && DirectionOf(field.Name) != Lower
	}
	return Order{Field: field, Descending: descending}, nil
}

// Selection keeps the first runs of an order out of any number that are added.
// It holds at most twice the limit at a time.
type Selection struct {
	order *Order
	limit int
	runs  []*Run
	// Dropped counts the runs that fell behind the limit.
	Dropped int
}

// NewSelection makes one; without an order runs stay as they come. A limit of 0
// keeps all.
func NewSelection(order *Order, limit int) *Selection {
	return &Selection{order: order, limit: limit, runs: []*Run{}}
}

// Full reports whether further runs would change nothing but Dropped.
func (s *Selection) Full() bool { return s.order == nil && s.limit > 0 && len(s.runs) >= s.limit }

// Add takes a run in.
func (s *Selection) Add(run *Run) {
	s.runs = append(s.runs, run)
	if s.limit > 0 && len(s.runs) >= 2*s.limit {
		s.cut()
	}
}

// Runs are the first ones in order; of equal ones those that came first, and
// those without the field last.
func (s *Selection) Runs() []*Run {
	s.cut()
	return s.runs
}

func (s *Selection) cut() {
	if s.order != nil {
		slices.SortStableFunc(s.runs, func(a, b *Run) int {
			x, xok := s.order.Field.Of(a)
			y, yok := s.order.Field.Of(b)
			switch {
			case !xok || !yok:
				return cmp.Compare(rank(xok), rank(yok))
			case s.order.Descending:
				return compareValues(y, x)
			}
			return compareValues(x, y)
		})
	}
	if s.limit > 0 && len(s.runs) > s.limit {
		s.Dropped += len(s.runs) - s.limit
		clear(s.runs[s.limit:])
		s.runs = s.runs[:s.limit]
	}
}

func rank(has bool) int {
	if has {
		return 0
	}
	return 1
}
