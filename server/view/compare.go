package view

import (
	"encoding/json"
	"maps"
	"math"
	"slices"

	"github.com/skiff-ml/skiff/api/skiff"
)

// Comparison sets runs side by side. Every list of values is in the order of
// Runs, with null where a run has none. Its field names are stable.
type Comparison struct {
	Runs []ComparedRun `json:"runs"`
	// Parameters are those that differ between any two runs; Same counts the
	// others, which all runs have with one value.
	Parameters []ComparedValues `json:"parameters"`
	Same       int              `json:"same_parameters"`
	// Metrics are the scalars; Classification sums up confusion matrices and
	// ROC curves.
	Metrics        []ComparedMetric `json:"metrics"`
	Classification []ComparedMetric `json:"classification"`
}

// ComparedRun heads a column.
type ComparedRun struct {
	RunID       string      `json:"run_id"`
	DisplayName string      `json:"display_name,omitempty"`
	Pipeline    string      `json:"pipeline"`
	State       skiff.State `json:"state"`
	Fake        bool        `json:"fake"`
}

// ComparedValues is one row.
type ComparedValues struct {
	Name   string            `json:"name"`
	Values []json.RawMessage `json:"values"`
}

// ComparedMetric is one row of numbers.
type ComparedMetric struct {
	ComparedValues

	// Better is "higher", "lower", or empty where neither is known to be.
	Better Direction `json:"better,omitempty"`
	// Best are the places in Values of the best ones; none where no value is
	// better than another.
	Best []int `json:"best,omitempty"`

	plain string
}

// Plain is the metric's name without its task.
func (m *ComparedMetric) Plain() string { return m.plain }

// Compare sets runs side by side. directions decides, by a metric's name with or
// without its task, over what its name suggests.
func Compare(runs []*Run, directions map[string]Direction) *Comparison {
	c := &Comparison{Runs: []ComparedRun{}, Parameters: []ComparedValues{}, Metrics: []ComparedMetric{}, Classification: []ComparedMetric{}}
	parameters, metrics, classes := newGrid(len(runs)), newGrid(len(runs)), newGrid(len(runs))
	for i, run := range runs {
		c.Runs = append(c.Runs, ComparedRun{RunID: run.RunID, DisplayName: run.DisplayName, Pipeline: run.Pipeline, State: run.State, Fake: run.Fake})
		for name, value := range run.Parameters {
			parameters.set(name, i, value)
		}
		metrics.setMetrics(i, run.Metrics)
		classes.setMetrics(i, run.classification())
	}
	for _, row := range parameters.rows() {
		if same(row.Values) {
			c.Same++
			continue
		}
		c.Parameters = append(c.Parameters, row)
	}
	c.Metrics = append(c.Metrics, metrics.compared(directions)...)
	c.Classification = append(c.Classification, classes.compared(directions)...)
	return c
}

// grid collects values by name and run.
type grid struct {
	width int
	cells map[string][]json.RawMessage
	// plain is a metric's name without its task.
	plain map[string]string
}

func newGrid(width int) *grid {
	return &grid{width: width, cells: map[string][]json.RawMessage{}, plain: map[string]string{}}
}

func (g *grid) set(name string, at int, value json.RawMessage) {
	if g.cells[name] == nil {
		g.cells[name] = make([]json.RawMessage, g.width)
	}
	g.cells[name][at] = value
}

func (g *grid) setMetrics(at int, metrics []Metric) {
	for i, name := range skiff.QualifiedNames(metrics) {
		g.set(name, at, metrics[i].Value)
		g.plain[name] = metrics[i].Name
	}
}

func (g *grid) rows() []ComparedValues {
	rows := make([]ComparedValues, 0, len(g.cells))
	for _, name := range slices.Sorted(maps.Keys(g.cells)) {
		rows = append(rows, ComparedValues{Name: name, Values: g.cells[name]})
	}
	return rows
}

func (g *grid) compared(directions map[string]Direction) []ComparedMetric {
	var out []ComparedMetric
	for _, row := range g.rows() {
		plain := g.plain[row.Name]
		better, said := directions[row.Name]
		if !said {
			better, said = directions[plain]
		}
		if !said {
			better = DirectionOf(plain)
		}
		out = append(out, ComparedMetric{ComparedValues: row, Better: better, Best: best(row.Values, better), plain: plain})
	}
	return out
}

// best are the places of the best number. Where all runs have the same one, or
// only one run has any, nothing is better.
func best(values []json.RawMessage, better Direction) []int {
	if better == NoDirection {
		return nil
	}
	var places []int
	top, have, differ := 0.0, 0, false
	for i, value := range values {
		number, ok := numberOf(value)
		if !ok {
			continue
		}
		have++
		switch ahead := number - top; {
		case have == 1:
			top, places = number, []int{i}
		case number == top:
			places = append(places, i)
		case (ahead > 0) == (better == Higher):
			top, places, differ = number, []int{i}, true
		default:
			differ = true
		}
	}
	if !differ {
		return nil
	}
	return places
}

// numberOf reads a JSON number that is finite.
func numberOf(value json.RawMessage) (float64, bool) {
	var number *float64
	if len(value) == 0 || json.Unmarshal(value, &number) != nil || number == nil || math.IsInf(*number, 0) {
		return 0, false
	}
	return *number, true
}

// same compares JSON values by what they mean: 1 and 1.0 are one number.
func same(values []json.RawMessage) bool {
	for _, value := range values {
		if !equalJSON(values[0], value) {
			return false
		}
	}
	return true
}

func equalJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	if x, ok := numberOf(a); ok {
		y, ok := numberOf(b)
		return ok && x == y
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return string(a) == string(b)
	}
	first, err := json.Marshal(x)
	if err != nil {
		return false
	}
	second, err := json.Marshal(y)
	return err == nil && string(first) == string(second)
}
