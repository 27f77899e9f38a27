package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Limits bound what one page costs; see DefaultLimits.
type Limits struct {
	// Rows is how many of an index's rows one page looks through.
	Rows int
	// Reads is how many objects one page of a walk reads for those that a filter
	// lets by, where the rows alone do not tell.
	Reads int
	// Sorted is how many objects a list reads at most to sort them itself.
	Sorted int
	// Total is as far as a total counts where an index alone decides.
	Total int
}

// DefaultLimits keep a page below some ten milliseconds, save for orders that no
// index has: a row is read in a quarter of a microsecond, an object in ten.
func DefaultLimits() Limits {
	return Limits{Rows: 10_000, Reads: 600, Sorted: 5000, Total: 20_000}
}

// Listing is what can be listed of one kind.
type Listing struct {
	Kind   string
	Fields map[string]Field
	// Extra are further fields, found by name ("metric:loss").
	Extra func(name string) (Field, bool)
	// ScopeField is the field that a query's Scope is of; empty where every span
	// is within the scope.
	ScopeField string
	// Canonical is the one name of a field that has several; nil where none has.
	Canonical func(name string) string
	// Spans are the parts of indexes that hold all that is wanted, those first
	// that are liked best; nil for kinds of which there are few.
	Spans func(q *Query) []Span
	// Limits replace the default ones where they are not 0.
	Limits Limits
}

// Field is the field of a name.
func (l *Listing) Field(name string) (Field, bool) {
	if f, known := l.Fields[name]; known {
		return f, true
	}
	if l.Extra != nil {
		return l.Extra(name)
	}
	return Field{}, false
}

func (l *Listing) canonical(name string) string {
	if l.Canonical == nil {
		return name
	}
	return l.Canonical(name)
}

// Span is a part of a kind's objects that an index has together.
type Span struct {
	// Name tells it from the query's other spans, in tokens.
	Name string
	// The store's options; an empty Index is the order of names.
	Index, Prefix, From, Until string
	Exact                      bool
	// Covered are the predicates of the filter that hold for all of it, by their
	// place.
	Covered []int
	// Narrow spans are those that the filter or the scope names.
	Narrow bool
	// Order is the field that the index sorts by within the span, descending
	// where Desc is set; empty where it is none.
	Order string
	Desc  bool
	// Partial spans hold only objects that have the field of their order.
	Partial bool
	// Columns reads the index's values; nil where they hold nothing else.
	Columns func() Columns
}

// Columns reads fields out of an index's values.
type Columns interface {
	// Has reports whether values hold a field at all.
	Has(field string) bool
	// Parse takes a value in, until the next one.
	Parse(value []byte)
	// Column is the field's key (Field.key); false where this value does not
	// tell it.
	Column(field string) ([]byte, bool)
}

// Query is one list's request.
type Query struct {
	*Listing
	// Namespace is where, empty for everywhere; Scope narrows the list to what
	// belongs to one object (an experiment's runs).
	Namespace, Scope string
	// Size is the most objects on the page.
	Size   int
	Filter []Predicate
	// Also, where set, must hold as well; nothing is known of it without the
	// object.
	Also func(core.Object) bool
	// SortBy is the field to sort by, descending where Desc is set.
	SortBy string
	Desc   bool
	// At is where the page before ended; the zero value is the beginning.
	At Position
}

// Predicate is the place of the first predicate by one of the keys that wants
// one value of text, and that value; -1 where there is none.
func (q *Query) Predicate(op Op, keys ...string) (string, int) {
	for i := range q.Filter {
		p := &q.Filter[i]
		if p.Op == op && len(p.want) == 1 && slices.Contains(keys, p.Key) {
			return p.want[0].text, i
		}
	}
	return "", -1
}

// ErrTooMany is returned for an order that no index has, over more objects than
// are sorted for one page.
type ErrTooMany struct {
	SortBy string
	Most   int
}

// Error implements error.
func (e *ErrTooMany) Error() string {
	return fmt.Sprintf("%s: more than %d objects would have to be sorted; narrow the list, or sort by created_at", e.SortBy, e.Most)
}

// Run reads one page.
func (q Query) Run(ctx context.Context, s store.Interface) (*Result, error) {
	q.SortBy = q.canonical(q.SortBy)
	if q.Scope != "" && q.ScopeField != "" {
		scope, err := NewPredicate(q.Field, q.ScopeField, Equals, false, q.Scope)
		if err != nil {
			return nil, fmt.Errorf("list of %s: %w", q.Scope, err)
		}
		q.Filter = append([]Predicate{scope}, q.Filter...)
	}
	r := &reader{Query: &q, store: s, limits: q.Limits.orDefault()}
	var known bool
	if r.sort, known = q.Field(q.SortBy); !known {
		return nil, fmt.Errorf("sort by %q: there is no such field", q.SortBy)
	}
	if q.Spans == nil {
		return r.gather(ctx, Span{}, r.limits.Sorted, r.limits.Sorted)
	}
	spans := q.Spans(&q)
	if name := q.At.Span; name != "" {
		// A list goes on as it began, although it may have grown or shrunk.
		at := slices.IndexFunc(spans, func(s Span) bool { return s.Name == name })
		if at < 0 {
			return nil, ErrToken
		}
		return r.walk(ctx, spans[at], spans)
	}
	return r.begin(ctx, spans)
}

// begin chooses how to go through the objects.
func (r *reader) begin(ctx context.Context, spans []Span) (*Result, error) {
	narrow, count, err := r.narrowest(ctx, spans)
	if err != nil {
		return nil, err
	}
	inOrder := slices.IndexFunc(spans, func(s Span) bool { return s.Order == r.SortBy })
	gathered := r.At.Gathered
	switch {
	case narrow != nil && narrow.Order == r.SortBy && !gathered:
		return r.walk(ctx, *narrow, spans)
	case narrow == nil && inOrder >= 0 && !gathered:
		return r.walk(ctx, spans[inOrder], spans)
	}
	from := spans[len(spans)-1]
	if narrow != nil {
		from = *narrow
	}
	most, rows := r.limits.Sorted, r.limits.Rows
	switch {
	case from.Columns != nil && from.Columns().Has(r.SortBy):
	case inOrder >= 0:
		rows = r.limits.Reads // to go by the order is quicker than to read more than that
	default:
		rows = most
	}
	if gathered {
		most, rows = 2*most, 2*max(rows, r.limits.Reads) // the list may grow between two of its pages
	}
	if narrow == nil || count <= rows {
		result, err := r.gather(ctx, from, most, max(rows, most))
		if _, tooMany := errors.AsType[*ErrTooMany](err); !tooMany || inOrder < 0 || gathered {
			return result, err
		}
	}
	if inOrder < 0 || gathered {
		return nil, &ErrTooMany{SortBy: r.SortBy, Most: most}
	}
	return r.walk(ctx, spans[inOrder], spans)
}

// narrowest is the span with the fewest rows of those that the filter names,
// with their count as far as that matters.
func (r *reader) narrowest(ctx context.Context, spans []Span) (*Span, int, error) {
	var best *Span
	fewest := 0
	for i := range spans {
		if !spans[i].Narrow {
			continue
		}
		if best == nil && spans[i].Order == r.SortBy && r.answers(spans[i]) {
			return &spans[i], 0, nil // nothing can be better
		}
		most := 2 * max(r.limits.Sorted, r.limits.Rows)
		if best != nil {
			most = fewest
		}
		n, err := r.store.Count(ctx, r.options(spans[i]), most+1)
		if err != nil {
			return nil, 0, fmt.Errorf("count %s: %w", r.Kind, err)
		}
		if best == nil || n < fewest {
			best, fewest = &spans[i], n
		}
	}
	return best, fewest, nil
}

// residual are the predicates that a span does not answer for.
func (r *reader) residual(span Span) []Predicate {
	var rest []Predicate
	for i, p := range r.Filter {
		if !slices.Contains(span.Covered, i) {
			rest = append(rest, p)
		}
	}
	return rest
}

// answers reports whether a span holds just what the filter lets by.
func (r *reader) answers(span Span) bool { return r.Also == nil && len(r.residual(span)) == 0 }

func (r *reader) options(span Span) store.ListOptions {
	return store.ListOptions{Kind: r.Kind, Namespace: r.Namespace, Index: span.Index, Prefix: span.Prefix, Exact: span.Exact,
		From: span.From, Until: span.Until}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{Rows: cmp.Or(l.Rows, d.Rows), Reads: cmp.Or(l.Reads, d.Reads), Sorted: cmp.Or(l.Sorted, d.Sorted), Total: cmp.Or(l.Total, d.Total)}
}

// splitName splits "metric:loss" at its first colon.
func splitName(name string) (source, rest string) {
	source, rest, _ = strings.Cut(name, ":")
	return source, rest
}
