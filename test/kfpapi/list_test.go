package kfpapi_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// The model of a list: every run in a slice, a filter that looks at each, a sort.

// cell is a run's value of a field as the model knows it: nil for none, a
// string, a time in seconds (int64), or a number (float64).
type cell any

// modelFields are the fields by name, each from the object alone.
func modelFields(name string) func(*skiff.Run) cell {
	raw := func(value json.RawMessage) cell {
		if len(value) == 0 {
			return nil
		}
		var out any
		if json.Unmarshal(value, &out) != nil {
			return nil
		}
		switch out.(type) {
		case string, float64:
			return out
		case nil:
			return nil
		}
		return jsonText(value)
	}
	if metric, is := strings.CutPrefix(name, "metric:"); is {
		return func(r *skiff.Run) cell { return raw(r.Status.Metrics[metric]) }
	}
	if parameter, is := strings.CutPrefix(name, "parameter:"); is {
		return func(r *skiff.Run) cell { return raw(r.Spec.Parameters[parameter]) }
	}
	return map[string]func(*skiff.Run) cell{
		"run_id":       func(r *skiff.Run) cell { return r.Name },
		"name":         func(r *skiff.Run) cell { return r.Spec.DisplayName },
		"display_name": func(r *skiff.Run) cell { return r.Spec.DisplayName },
		"description":  func(r *skiff.Run) cell { return r.Spec.Description },
		"namespace":    func(r *skiff.Run) cell { return r.Namespace },
		"created_at":   func(r *skiff.Run) cell { return r.CreationTimestamp.Unix() },
		"finished_at":  func(r *skiff.Run) cell { return r.Status.FinishedAt.Unix() },
		"state": func(r *skiff.Run) cell {
			return cmp.Or(string(r.Status.State), "PENDING")
		},
		"storage_state": func(r *skiff.Run) cell {
			if r.Spec.Archived {
				return "ARCHIVED"
			}
			return "AVAILABLE"
		},
		"experiment_id":    func(r *skiff.Run) cell { return r.Spec.Experiment },
		"recurring_run_id": func(r *skiff.Run) cell { return r.Spec.RecurringRun },
	}[name]
}

// jsonText is a bool, a list or a struct, which compare as text written by
// people does.
type jsonText string

// condition is a predicate as the test draws it.
type condition struct {
	key    string
	op     query.Op
	values []any
}

// holds is what the published rules say of one condition.
func (c condition) holds(r *skiff.Run) bool {
	have := modelFields(c.key)(r)
	if have == nil {
		return false // a run without the metric fits nothing
	}
	one := func(want any) (order int, comparable bool) {
		switch h := have.(type) {
		case int64:
			return cmp.Compare(h, want.(int64)), true
		case float64:
			if w, err := strconv.ParseFloat(fmt.Sprint(want), 64); err == nil {
				return cmp.Compare(h, w), true
			}
			return 1, false
		case jsonText:
			if string(h) == fmt.Sprint(want) {
				return 0, false
			}
			return 1, false
		}
		w := fmt.Sprint(want)
		if c.key == "state" || c.key == "storage_state" {
			w = strings.ToUpper(w)
		}
		// A number given for a metric that is text is compared as it is written,
		// and has no order with it.
		_, err := strconv.ParseFloat(w, 64)
		free := strings.Contains(c.key, ":")
		return strings.Compare(have.(string), w), !free || (err != nil && w != "true")
	}
	switch c.op {
	case query.In:
		return slices.ContainsFunc(c.values, func(v any) bool { order, _ := one(v); return order == 0 })
	case query.Substring:
		text := fmt.Sprint(have)
		if _, number := have.(float64); number { // it is looked into as it was written
			text = string(r.Spec.Parameters[strings.TrimPrefix(c.key, "parameter:")]) + string(r.Status.Metrics[strings.TrimPrefix(c.key, "metric:")])
		}
		return strings.Contains(strings.ToLower(text), strings.ToLower(c.values[0].(string)))
	}
	order, comparable := one(c.values[0])
	switch c.op {
	case query.Equals:
		return order == 0
	case query.NotEquals:
		return order != 0
	}
	if !comparable {
		return false
	}
	switch c.op {
	case query.Greater:
		return order > 0
	case query.GreaterEquals:
		return order >= 0
	case query.Less:
		return order < 0
	}
	return order <= 0
}

// compareCells is the order of a list: numbers before text.
func compareCells(a, b cell) int {
	rank := func(c cell) int {
		switch c.(type) {
		case float64, int64:
			return 0
		}
		return 1
	}
	if by := cmp.Compare(rank(a), rank(b)); by != 0 {
		return by
	}
	switch x := a.(type) {
	case float64:
		return cmp.Compare(x, b.(float64))
	case int64:
		return cmp.Compare(x, b.(int64))
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func drawName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "train", "Train 1", "train 2", "evaluate", "Größe", "GRÖSSE", "a\x1fb", "a\x00b", "a",
		strings.Repeat("long ", 60) + "one", strings.Repeat("long ", 60) + "two"}).Draw(t, "name")
}

func drawState(t *rapid.T) skiff.State {
	return rapid.SampledFrom([]skiff.State{"", skiff.StatePending, skiff.StateRunning, skiff.StateSucceeded, skiff.StateFailed}).Draw(t, "state")
}

func drawValue(t *rapid.T) json.RawMessage {
	return rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`0.5`), json.RawMessage(`-1e-3`), json.RawMessage(`7`), json.RawMessage(`0`), json.RawMessage(`-0.0`),
		json.RawMessage(`1e300`), json.RawMessage(`"7"`), json.RawMessage(`"adam"`), json.RawMessage(`"sgd"`), json.RawMessage(`"` + strings.Repeat("x", 70) + `"`),
		json.RawMessage(`"` + strings.Repeat("x", 70) + `y"`), json.RawMessage(`true`), json.RawMessage(`null`), json.RawMessage(`""`)}).Draw(t, "value")
}

func drawRun(t *rapid.T, i int) *skiff.Run {
	run := &skiff.Run{
		ObjectMeta: core.ObjectMeta{Name: fmt.Sprintf("r%03d", i), Namespace: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "namespace"),
			CreationTimestamp: epoch.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "half seconds")) * time.Second / 2)},
		Spec: skiff.RunSpec{DisplayName: drawName(t), Description: rapid.SampledFrom([]string{"", "d", "text"}).Draw(t, "description"),
			Experiment:   rapid.SampledFrom([]string{"e1", "e2"}).Draw(t, "experiment"),
			Archived:     rapid.Bool().Draw(t, "archived"),
			RecurringRun: rapid.SampledFrom([]string{"", "", "rr"}).Draw(t, "recurring"),
			Parameters:   map[string]json.RawMessage{}},
		Status: skiff.RunStatus{State: drawState(t), Metrics: map[string]json.RawMessage{}},
	}
	if value := drawValue(t); value != nil {
		run.Spec.Parameters["lr"] = value
	}
	if value := drawValue(t); value != nil {
		run.Status.Metrics["acc"] = value
	}
	if rapid.Bool().Draw(t, "finished") {
		run.Status.FinishedAt = epoch.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "seconds")) * time.Second)
	}
	return run
}

func drawCondition(t *rapid.T) condition {
	c := condition{key: rapid.SampledFrom([]string{"run_id", "name", "display_name", "description", "namespace", "created_at", "finished_at", "state",
		"storage_state", "experiment_id", "recurring_run_id", "metric:acc", "parameter:lr"}).Draw(t, "key")}
	ops := []query.Op{query.Equals, query.NotEquals, query.Greater, query.GreaterEquals, query.Less, query.LessEquals, query.In}
	value := func() any {
		switch {
		case strings.HasSuffix(c.key, "_at"):
			return epoch.Unix() + int64(rapid.IntRange(-1, 4).Draw(t, "at"))
		case strings.Contains(c.key, ":"):
			return rapid.SampledFrom([]string{"0.5", "7", "0", "7.0", "adam", "x", strings.Repeat("x", 70), "true", "1e-3"}).Draw(t, "free")
		case c.key == "state":
			return rapid.SampledFrom([]string{"PENDING", "succeeded", "FAILED", "nothing"}).Draw(t, "word")
		case c.key == "storage_state":
			return rapid.SampledFrom([]string{"AVAILABLE", "archived", "STORAGE_STATE_UNSPECIFIED"}).Draw(t, "word")
		case c.key == "run_id":
			return rapid.SampledFrom([]string{"r001", "r010", "x"}).Draw(t, "id")
		}
		return rapid.SampledFrom([]string{"", "one", "e1", "rr", "d", "train", "a", "grösse", "long", strings.Repeat("long ", 60) + "one"}).Draw(t, "text")
	}
	if !strings.HasSuffix(c.key, "_at") {
		ops = append(ops, query.Substring)
	}
	c.op = rapid.SampledFrom(ops).Draw(t, "op")
	c.values = []any{value()}
	if c.op == query.In {
		for range rapid.IntRange(0, 2).Draw(t, "more") {
			c.values = append(c.values, value())
		}
	}
	return c
}

// openStore is a store with the engine's own kinds.
func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: t.TempDir() + "/skiff.db", Kinds: append(pipeline.Kinds(), otherKinds()...), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestListsAreTheModels: whatever the filter, the order, the page's size and how
// little a page may look through, the pages put together are the model's sorted
// and filtered list.
func TestListsAreTheModels(t *testing.T) {
	s := openStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		clearRuns(t, s)
		var all []*skiff.Run
		var ops []store.Op
		for i := range rapid.IntRange(0, 40).Draw(rt, "runs") {
			all = append(all, drawRun(rt, i))
			ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Runs, Object: all[i]})
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			rt.Fatal(err)
		}
		for range 8 {
			checkList(t, rt, s, all)
		}
	})
}

// clearRuns takes away what an earlier round left.
func clearRuns(t *testing.T, s store.Interface) {
	t.Helper()
	left, _, err := store.AllAs[*skiff.Run](t.Context(), s, store.ListOptions{Kind: pipeline.Runs})
	if err != nil {
		t.Fatal(err)
	}
	var ops []store.Op
	for _, run := range left {
		ops = append(ops, store.Op{Verb: store.Delete, Key: store.Key{Kind: pipeline.Runs, Namespace: run.Namespace, Name: run.Name}})
	}
	if _, err := s.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

func checkList(t *testing.T, rt *rapid.T, s store.Interface, all []*skiff.Run) {
	q := query.Query{Listing: query.Runs(), Namespace: rapid.SampledFrom([]string{"", "one"}).Draw(rt, "in"),
		Scope: rapid.SampledFrom([]string{"", "", "e1"}).Draw(rt, "scope"), Size: rapid.IntRange(1, 9).Draw(rt, "size"),
		SortBy: rapid.SampledFrom([]string{"created_at", "name", "display_name", "state", "finished_at", "metric:acc", "parameter:lr", "run_id"}).Draw(rt, "sort"),
		Desc:   rapid.Bool().Draw(rt, "desc")}
	if rapid.Bool().Draw(rt, "tight") {
		q.Limits = query.Limits{Rows: rapid.IntRange(1, 8).Draw(rt, "rows"), Reads: rapid.IntRange(1, 4).Draw(rt, "reads"), Sorted: rapid.SampledFrom([]int{1, 100}).Draw(rt, "sorted"), Total: 3}
	}
	var conditions []condition
	for range rapid.IntRange(0, 3).Draw(rt, "conditions") {
		c := drawCondition(rt)
		p, err := query.NewPredicate(q.Field, c.key, c.op, c.op == query.In, c.values...)
		if err != nil {
			rt.Fatalf("%+v: %v", c, err)
		}
		conditions, q.Filter = append(conditions, c), append(q.Filter, p)
	}
	var want []*skiff.Run
	for _, run := range all {
		if (q.Namespace == "" || run.Namespace == q.Namespace) && (q.Scope == "" || run.Spec.Experiment == q.Scope) &&
			!slices.ContainsFunc(conditions, func(c condition) bool { return !c.holds(run) }) {
			want = append(want, run)
		}
	}
	got, err := pages(t, s, q)
	if tooMany, is := errors.AsType[*query.ErrTooMany](err); is {
		if q.Limits.Sorted != 1 || len(all) <= 1 {
			rt.Fatalf("refused: %v", tooMany)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	names := func(runs []*skiff.Run) (out []string) {
		for _, run := range runs {
			out = append(out, run.Name)
		}
		slices.Sort(out)
		return out
	}
	if diff := gocmp.Diff(names(want), names(got)); diff != "" {
		rt.Fatalf("%+v sorted by %s: %s", conditions, q.SortBy, diff)
	}
	field := modelFields(q.SortBy)
	if q.SortBy == "finished_at" || q.SortBy == "created_at" {
		field = func(r *skiff.Run) cell {
			return map[string]time.Time{"created_at": r.CreationTimestamp, "finished_at": r.Status.FinishedAt}[q.SortBy].UnixMicro()
		}
	}
	for i := 1; i < len(got); i++ {
		a, b := field(got[i-1]), field(got[i])
		switch {
		case b == nil:
			continue
		case a == nil:
			rt.Fatalf("%s without a value comes before %s", got[i-1].Name, got[i].Name)
		}
		if x, isText := a.(string); isText && len(x) > 64 { // longer texts are ordered by their beginnings
			continue
		}
		if by := compareCells(a, b); (by > 0 && !q.Desc) || (by < 0 && q.Desc) {
			rt.Fatalf("sorted by %s, descending %v: %v comes before %v", q.SortBy, q.Desc, a, b)
		}
	}
}

// pages reads a whole list, each page from the token of the one before.
func pages(t *testing.T, s store.Interface, q query.Query) ([]*skiff.Run, error) {
	t.Helper()
	var all []*skiff.Run
	for n := 0; ; n++ {
		page, err := q.Run(t.Context(), s)
		if err != nil {
			return nil, err
		}
		if len(page.Items) > q.Size || page.Total < len(all)+len(page.Items) || n > 1000 {
			return nil, fmt.Errorf("page %d has %d of %d objects, after %d", n, len(page.Items), page.Total, len(all))
		}
		for _, obj := range page.Items {
			all = append(all, obj.(*skiff.Run))
		}
		if page.Next == nil {
			if page.Total != len(all) {
				return nil, fmt.Errorf("the last page says %d of %d objects", page.Total, len(all))
			}
			return all, nil
		}
		token, err := query.DecodeToken(query.Token{Kind: q.Kind, At: *page.Next}.Encode())
		if err != nil {
			return nil, err
		}
		q.At = token.At
	}
}
