package query

import (
	"context"
	"fmt"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// walker goes through a span in its order.
type walker struct {
	*reader
	result     *Result
	rows, read int // looked at so far
}

// full reports whether the page ends here, come what may.
func (w *walker) full() bool {
	return len(w.result.Items) >= w.Size || w.rows >= w.limits.Rows || w.read >= w.limits.Reads+w.Size
}

// walk reads a page in the order of a span. A partial span is followed by what
// it leaves out, newest first.
func (r *reader) walk(ctx context.Context, span Span, spans []Span) (*Result, error) {
	w := &walker{reader: r, result: &Result{}}
	next := Position{Span: span.Name, Continue: r.At.Continue, Lacking: r.At.Lacking, Seen: r.At.Seen, Total: r.At.Total}
	rest := lackingSpan(spans)
	if !span.Partial || r.wantsField() {
		rest = nil
	}
	var err error
	if !next.Lacking {
		opts := r.options(span)
		opts.Continue, opts.Reverse = next.Continue, span.Desc != r.Desc
		if next.Continue, err = w.span(ctx, opts, r.newJudge(span), nil); err != nil {
			return nil, err
		}
		next.Lacking = next.Continue == "" && rest != nil
	}
	if next.Lacking && rest != nil && !w.full() {
		opts := r.options(*rest)
		opts.Continue, opts.Reverse = next.Continue, !rest.Desc
		if next.Continue, err = w.span(ctx, opts, r.newJudge(*rest), w.lacks); err != nil {
			return nil, err
		}
		next.Lacking = next.Continue != ""
	}
	next.Seen += len(w.result.Items)
	if next.Continue == "" && !next.Lacking {
		w.result.Total = next.Seen
		return w.result, nil
	}
	if rest != nil {
		span = *rest // it has everything
	}
	if next.Total == 0 && r.answers(span) {
		if next.Total, err = r.store.Count(ctx, r.options(span), r.limits.Total); err != nil {
			return nil, fmt.Errorf("count %s: %w", r.Kind, err)
		}
	}
	w.result.Total = max(next.Total, next.Seen+1)
	w.result.Next = &next
	return w.result, nil
}

// wantsField reports whether the filter is about the field that the list is
// sorted by: then what lacks it does not fit.
func (r *reader) wantsField() bool {
	for i := range r.Filter {
		if r.canonical(r.Filter[i].Key) == r.SortBy {
			return true
		}
	}
	return false
}

// lacks reports whether an object has no value to be sorted by.
func (w *walker) lacks(obj core.Object) bool {
	_, has := w.sort.key(obj)
	return !has
}

// lackingSpan is where what a partial span leaves out is looked for: the first
// one that is ordered by time.
func lackingSpan(spans []Span) *Span {
	for i := range spans {
		if spans[i].Order == createdAt {
			return &spans[i]
		}
	}
	return nil
}

// span adds what fits of a span to the page and returns the token of the rest.
func (w *walker) span(ctx context.Context, opts store.ListOptions, j *judge, also func(core.Object) bool) (string, error) {
	for {
		// Never more than the page has room for, so that it ends where a scan does.
		room := w.Size - len(w.result.Items)
		batch := make([]place, 0, room)
		next, err := w.store.Scan(ctx, opts, func(e store.Entry) bool {
			w.rows++
			if j.of(e.Value) != drop {
				batch = append(batch, place{e.Namespace, string(e.Name)})
			}
			return len(batch) < room && w.rows < w.limits.Rows
		})
		if err != nil {
			return "", fmt.Errorf("list %s: %w", w.Kind, err)
		}
		for _, at := range batch {
			obj, err := w.load(ctx, at)
			if err != nil {
				return "", err
			}
			w.read++
			if obj != nil && w.matches(obj) && (also == nil || also(obj)) {
				w.result.Items = append(w.result.Items, obj)
			}
		}
		if opts.Continue = next; next == "" || w.full() {
			return next, nil
		}
	}
}
