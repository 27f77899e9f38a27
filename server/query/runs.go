package query

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// The storage states of experiments and runs.
const (
	Available = "AVAILABLE"
	Archived  = "ARCHIVED"
)

// StorageState is the published word.
func StorageState(away bool) string {
	if away {
		return Archived
	}
	return Available
}

// StateOf is a RuntimeState; the words are the same.
func StateOf(s skiff.State) string {
	if s == "" {
		return string(skiff.StatePending)
	}
	return string(s)
}

const (
	runsKind = "runs.skiff.dev"

	// Fields that runs are ordered by.
	createdAt   = "created_at"
	finishedAt  = "finished_at"
	displayName = "display_name"
	runID       = "run_id"
	state       = "state"

	// Indexes of runs, as engine/pipeline declares them.
	byCreation   = "created"
	byStorage    = "storage"
	byExperiment = "experiment"
	byState      = "state"
	byRecurring  = "recurring"
	byName       = "name"
	byID         = "id"
	byEnd        = "finished"
	byField      = "field"

	// Parts of index values.
	separator        = "\x00"
	pastSeparator    = "\x01"
	storageAvailable = "available"
	storageArchived  = "archived"
	storageAll       = "all"
)

// Metric and Parameter begin the names of fields that runs have of their own.
// ParamPrefix is short for the second.
const (
	MetricPrefix    = "metric:"
	ParameterPrefix = "parameter:"
	ParamPrefix     = "param:"
)

// Runs is what runs can be listed by. Scope is an experiment.
func Runs() *Listing {
	of := func(f func(*skiff.Run) string) func(core.Object) string {
		return func(o core.Object) string { return f(o.(*skiff.Run)) }
	}
	id := Text(func(o core.Object) string { return o.Metadata().Name })
	display := Text(of(func(r *skiff.Run) string { return r.Spec.DisplayName }))
	states := Enum(of(func(r *skiff.Run) string { return StateOf(r.Status.State) }))
	none := Text(func(core.Object) string { return "" })
	return &Listing{Kind: runsKind, ScopeField: "experiment_id", Spans: runSpans, Extra: runField, Canonical: canonicalField, Fields: map[string]Field{
		runID: id, "id": id, displayName: display, "name": display,
		createdAt:          Moment(func(o core.Object) time.Time { return o.Metadata().CreationTimestamp }),
		finishedAt:         Moment(func(o core.Object) time.Time { return o.(*skiff.Run).Status.FinishedAt }),
		"scheduled_at":     Moment(func(o core.Object) time.Time { return o.(*skiff.Run).Spec.ScheduledAt }),
		"description":      Text(of(func(r *skiff.Run) string { return r.Spec.Description })),
		"storage_state":    Enum(of(func(r *skiff.Run) string { return StorageState(r.Spec.Archived) })),
		"status":           states,
		state:              states,
		"namespace":        Text(func(o core.Object) string { return o.Metadata().Namespace }),
		"experiment_id":    Text(of(skiff.ExperimentOf)),
		"recurring_run_id": Text(of(func(r *skiff.Run) string { return r.Spec.RecurringRun })),
		// These name documents, which have no order and no text to look into.
		"state_history": none, "runtime_details": none,
	}}
}

// canonicalField is the one name of fields of runs that have several.
func canonicalField(name string) string {
	switch name {
	case "name":
		return displayName
	case "status":
		return state
	case "id":
		return runID
	}
	if rest, is := strings.CutPrefix(name, ParamPrefix); is {
		return ParameterPrefix + rest
	}
	return name
}

// runField is a metric or a parameter.
func runField(name string) (Field, bool) {
	f := Field{kind: free, name: name}
	switch source, rest := splitName(name); {
	case rest == "":
		return Field{}, false
	case source+":" == MetricPrefix:
		f.free = func(o core.Object) json.RawMessage { return o.(*skiff.Run).Status.Metrics[rest] }
	case source+":" == ParameterPrefix, source+":" == ParamPrefix:
		f.free = func(o core.Object) json.RawMessage { return o.(*skiff.Run).Spec.Parameters[rest] }
	default:
		return Field{}, false
	}
	return f, true
}

// runSpans are the ways through the runs of a query: those that the filter
// names, then those that are in an order, then all by age.
func runSpans(q *Query) []Span {
	var spans []Span
	narrow := func(name, index, prefix string, covered ...int) {
		spans = append(spans, q.within(Span{Name: name, Index: index, Prefix: prefix, Covered: covered, Narrow: true, Order: createdAt, Desc: true,
			Columns: func() Columns { return &runRow{} }}, createdAt))
	}
	if id, i := q.Predicate(Equals, runID, "id"); i >= 0 {
		spans = append(spans, Span{Name: "id", Index: byID, Prefix: id, Exact: true, Covered: []int{i}, Narrow: true})
	}
	if id, i := q.Predicate(Equals, "recurring_run_id"); i >= 0 && id != "" {
		narrow("recurring", byRecurring, id+separator, i)
	}
	if name, i := q.Predicate(Equals, displayName, "name"); i >= 0 && len(name) < maxNameValue && !strings.ContainsAny(name, separator+pastSeparator) {
		narrow("name", byName, name+separator, i)
	}
	storage, at := q.storage()
	experiment, i := q.Predicate(Equals, "experiment_id")
	if experiment != "" && !strings.Contains(experiment, separator) {
		narrow("experiment", byExperiment, experiment+separator+storage+separator, covered(i, at)...)
	}
	if word, i := q.Predicate(Equals, state, "status"); i >= 0 && !strings.Contains(word, separator) {
		narrow("state", byState, word+separator, i)
	}
	if experiment == "" && storage != storageAll {
		narrow("storage", byStorage, storage+separator, at)
	}
	spans = append(spans, q.fieldSpans()...)
	ordered := func(name, index, order string, desc bool) {
		spans = append(spans, Span{Name: name, Index: index, Order: order, Desc: desc, Columns: func() Columns { return &runRow{} }})
	}
	ordered("by name", byName, displayName, false)
	ordered("by state", byState, state, false)
	spans = append(spans, Span{Name: "by id", Index: byID, Order: runID},
		q.within(Span{Name: "by end", Index: byEnd, Order: finishedAt, Desc: true, Columns: func() Columns { return &runRow{ends: true} }}, finishedAt),
		q.within(Span{Name: "by age", Index: byCreation, Order: createdAt, Desc: true, Columns: func() Columns { return &runRow{} }}, createdAt))
	return spans
}

func covered(places ...int) []int {
	var out []int
	for _, i := range places {
		if i >= 0 {
			out = append(out, i)
		}
	}
	return out
}

// fieldSpans are the metric or parameter that the list is sorted by, within the
// bounds that the filter sets.
func (q *Query) fieldSpans() []Span {
	f, is := runField(q.SortBy)
	source, name := splitName(q.SortBy)
	if !is || len(name) > maxNameValue || strings.Contains(name, separator) {
		return nil
	}
	if source+":" == ParameterPrefix {
		source = strings.TrimSuffix(ParamPrefix, ":")
	}
	prefix := source + ":" + name + separator
	span := Span{Name: "by field", Index: byField, Prefix: prefix, Order: q.SortBy, Partial: true,
		Columns: func() Columns { return &runRow{field: f.name} }}
	for i := range q.Filter {
		if p := &q.Filter[i]; canonicalField(p.Key) == q.SortBy {
			span.bound(p, prefix)
		}
	}
	return []Span{span}
}

// bound narrows a span to what an order's predicate lets by. The predicate is
// still held against each: of a long text the index has the beginning alone.
func (s *Span) bound(p *Predicate, prefix string) {
	if len(p.want) != 1 || p.want[0].key == "" || (p.want[0].key[0] == '1' && !isText(p.want[0].raw)) {
		return
	}
	key := p.want[0].key
	kind := prefix + key[:1]
	low, high := kind, prefix+string(key[0]+1)
	long := len(key) > skiff.MaxOrderText
	switch p.Op {
	case Greater:
		if low = prefix + key + pastSeparator; long {
			low = prefix + key
		}
	case GreaterEquals:
		low = prefix + key
	case Less:
		if high = prefix + key; long {
			high = prefix + key + pastSeparator
		}
	case LessEquals:
		high = prefix + key + pastSeparator
	default:
		return
	}
	s.behind(low)
	s.before(high)
}

// within narrows a span, whose values have a time behind their prefix, newest
// first, to the bounds that the filter sets for that field.
func (q *Query) within(span Span, field string) Span {
	for i := range q.Filter {
		p := &q.Filter[i]
		if p.Key != field || len(p.want) != 1 {
			continue
		}
		// Times are known to the second. What is later comes before.
		seconds := min(max(p.want[0].seconds, -farSeconds), farSeconds)
		since := span.Prefix + store.TimeValue(time.Unix(seconds, 0), true) + pastSeparator
		after := span.Prefix + store.TimeValue(time.Unix(seconds+1, 0), true) + pastSeparator
		switch p.Op {
		case Greater:
			span.before(after)
		case GreaterEquals:
			span.before(since)
		case Less:
			span.behind(since)
		case LessEquals:
			span.behind(after)
		case Equals:
			span.behind(after)
			span.before(since)
		default:
			continue
		}
		if -indexedSeconds < seconds && seconds < indexedSeconds {
			span.Covered = append(slices.Clip(span.Covered), i)
		}
	}
	return span
}

// behind and before are the span's values from one on, and up to one.
func (s *Span) behind(value string) { s.From = max(s.From, value) }

func (s *Span) before(value string) {
	if s.Until == "" || value < s.Until {
		s.Until = value
	}
}

const (
	// farSeconds is tens of thousands of years.
	farSeconds = 1 << 40
	// indexedSeconds is as far from 1970 as an index tells times apart, which is
	// not as far as the time that stands for none.
	indexedSeconds = 9_000_000_000
)

// maxNameValue is as far as the index by name holds a name.
const maxNameValue = 256

// storage is the storage state that the filter asks for, and which predicate
// says so; "all" where none does.
func (q *Query) storage() (string, int) {
	words := map[string]string{Available: storageAvailable, Archived: storageArchived}
	for i := range q.Filter {
		p := &q.Filter[i]
		if p.Key != "storage_state" || len(p.want) == 0 {
			continue
		}
		word, known := words[p.want[0].text]
		switch {
		case known && p.Op == Equals:
			return word, i
		case known && p.Op == NotEquals && word == storageArchived:
			return storageAvailable, i
		case known && p.Op == NotEquals:
			return storageArchived, i
		}
	}
	return storageAll, -1
}

// runRow reads the columns of runs.
type runRow struct {
	// field is the one whose key the value begins with, for the index by field,
	// which has neither states nor names.
	field string
	// ends says that the value begins with the time of the run's end.
	ends    bool
	value   []byte
	columns skiff.RunColumns
	ok      bool
	time    [16]byte
}

var _ Columns = (*runRow)(nil)

// Has implements Columns.
func (r *runRow) Has(field string) bool {
	switch field {
	case createdAt, "storage_state", "experiment_id", "recurring_run_id":
		return true
	case state, "status":
		return !strings.HasPrefix(r.field, ParameterPrefix) && !strings.HasPrefix(r.field, ParamPrefix)
	case displayName, "name":
		return r.field == ""
	case finishedAt:
		return r.ends
	}
	return r.field != "" && canonicalField(field) == canonicalField(r.field)
}

// Parse implements Columns.
func (r *runRow) Parse(value []byte) {
	r.value = value
	r.columns, r.ok = skiff.ParseRunColumns(value)
}

// Column implements Columns.
func (r *runRow) Column(field string) ([]byte, bool) {
	if !r.ok {
		return nil, false
	}
	switch field {
	case displayName, "name":
		return r.columns.Name, !r.columns.NameCut
	case state, "status":
		return r.columns.State, r.Has(state)
	case "storage_state":
		return []byte(StorageState(r.columns.Archived)), true
	case "experiment_id":
		return r.columns.Experiment, true
	case "recurring_run_id":
		return r.columns.RecurringRun, true
	case createdAt:
		return r.ascending(r.columns.Created)
	case finishedAt:
		if !r.ends {
			return nil, false
		}
		return r.ascending(r.value[:min(len(r.value), len(r.time))])
	}
	if r.field == "" || canonicalField(field) != canonicalField(r.field) {
		return nil, false
	}
	return r.key()
}

// key is the second part of a value of the index by field.
func (r *runRow) key() ([]byte, bool) {
	for i := 0; i < len(r.value); i++ {
		if r.value[i] != 0 {
			continue
		}
		for end := i + 1; end < len(r.value); end++ {
			if r.value[end] == 0 {
				return r.value[i+1 : end], true
			}
		}
	}
	return nil, false
}

// ascending turns a time of the index, newest first, round.
func (r *runRow) ascending(descending []byte) ([]byte, bool) {
	if len(descending) != len(r.time) {
		return nil, false
	}
	const digits = "0123456789abcdef"
	for i, c := range descending {
		switch {
		case '0' <= c && c <= '9':
			r.time[i] = digits[15-(c-'0')]
		case 'a' <= c && c <= 'f':
			r.time[i] = digits[15-(c-'a'+10)]
		default:
			return nil, false
		}
	}
	return r.time[:], true
}
