package query

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// Result is one page.
type Result struct {
	Items []core.Object
	// Total is how many objects there are on all pages: exactly where that was
	// cheap to know, else as many as were found so far and one more for the rest.
	Total int
	// Next is where the next page begins; nil on the last one.
	Next *Position
}

// reader reads one page.
type reader struct {
	*Query
	store  store.Interface
	sort   Field
	limits Limits
}

// judge tells by an index's values what a filter makes of their objects.
type judge struct {
	columns Columns
	filter  []Predicate
	// blind is set where there is more to the filter than predicates.
	blind bool
}

// newJudge knows the predicates that the span does not answer for.
func (r *reader) newJudge(span Span) *judge {
	j := &judge{filter: r.residual(span), blind: r.Also != nil}
	if span.Columns != nil && len(j.filter) > 0 {
		j.columns = span.Columns()
	}
	return j
}

// verdict is what a value tells of an object.
type verdict int

const (
	unknown verdict = iota
	drop
	keep
)

// of judges an index's value.
func (j *judge) of(value []byte) verdict {
	result := keep
	if j.blind {
		result = unknown
	}
	if len(j.filter) == 0 {
		return result
	}
	if j.columns == nil {
		return unknown
	}
	j.columns.Parse(value)
	for i := range j.filter {
		p := &j.filter[i]
		key, told := j.columns.Column(p.Key)
		if !told {
			result = unknown
			continue
		}
		holds, sure := p.ofKey(key)
		switch {
		case !sure:
			result = unknown
		case !holds:
			return drop
		}
	}
	return result
}

// ofKey is Holds for an object of which only the field's key is known; sure is
// false where that is not enough.
func (p *Predicate) ofKey(key []byte) (holds, sure bool) {
	switch p.field.kind {
	case moment:
		nanos, err := strconv.ParseUint(string(key), 16, 64)
		if err != nil || nanos == 0 {
			return false, false
		}
		return p.ofSeconds(floorSeconds(int64(nanos ^ 1<<63))), true
	case free:
		return p.ofFreeKey(key)
	}
	return p.ofText(key), true
}

// floorSeconds is time.Time.Unix of nanoseconds.
func floorSeconds(nanos int64) int64 {
	const second = 1_000_000_000
	seconds := nanos / second
	if nanos%second < 0 {
		seconds--
	}
	return seconds
}

// ofFreeKey judges by skiff.OrderValue, which tells all of a number and the
// beginning of a text.
func (p *Predicate) ofFreeKey(key []byte) (holds, sure bool) {
	if len(key) == 0 {
		return false, true
	}
	want := p.want[0:min(1, len(p.want))]
	if len(want) == 0 {
		return false, true // IN of nothing
	}
	switch p.Op {
	case Greater, GreaterEquals, Less, LessEquals:
		if key[0] == '0' && want[0].key != "" && want[0].key[0] == '0' {
			return p.Op.accepts(compareBytes(key, want[0].key)), true
		}
	case Equals:
		if key[0] == '0' && want[0].key != "" && want[0].key[0] == '0' {
			return string(key) == want[0].key, true
		}
		// A text that is short tells whether it is the one that is wanted; what
		// else begins with it may be written otherwise and mean the same.
		if key[0] == '1' && isText(want[0].raw) && len(key) <= skiff.MaxOrderText && string(key) != want[0].key {
			return false, true
		}
	}
	return false, false
}

func compareBytes(a []byte, b string) int {
	switch {
	case string(a) < b:
		return -1
	case string(a) > b:
		return 1
	}
	return 0
}

// place names an object of the kind.
type place struct{ namespace, name string }

// load reads an object that a row named; nil where it is gone meanwhile.
func (r *reader) load(ctx context.Context, at place) (core.Object, error) {
	obj, err := r.store.Get(ctx, store.Key{Kind: r.Kind, Namespace: at.namespace, Name: at.name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r.Kind, err)
	}
	return obj, nil
}

// matches holds an object to the whole filter: it may have changed since its row
// was read.
func (r *reader) matches(obj core.Object) bool {
	for i := range r.Filter {
		if !r.Filter[i].Holds(obj) {
			return false
		}
	}
	return r.Also == nil || r.Also(obj)
}
