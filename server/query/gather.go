package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// entry is an object with the value that it is sorted by; obj is nil where the
// index told everything.
type entry struct {
	place
	key string
	has bool
	obj core.Object
}

// gatherer keeps the first entries of an order out of any number, behind the one
// that the page before ended with.
type gatherer struct {
	*reader
	after *entry
	// page holds the first Size entries and some that may be among them; what
	// comes behind last is not.
	page []entry
	last *entry
	// total counts what fits, behind is how many of it come after the page before.
	total, behind int
	// read counts objects and rows those of the index, up to most and mostRows.
	read, rows     int
	most, mostRows int
}

// gather reads a page by sorting all of a span, whose rows are few enough.
func (r *reader) gather(ctx context.Context, span Span, most, mostRows int) (*Result, error) {
	g := &gatherer{reader: r, most: most, mostRows: mostRows, after: r.At.entry()}
	var err error
	if span.Index == "" {
		err = g.objects(ctx, r.options(span))
	} else {
		err = g.span(ctx, span)
	}
	if err != nil {
		return nil, err
	}
	g.cut()
	result := &Result{Total: g.total}
	var last entry
	for _, e := range g.page {
		if last = e; e.obj == nil {
			if e.obj, err = r.load(ctx, e.place); err != nil {
				return nil, err
			}
		}
		if e.obj != nil && r.matches(e.obj) {
			result.Items = append(result.Items, e.obj)
		}
	}
	if g.behind > len(g.page) {
		result.Next = &Position{Gathered: true, Has: last.has, Last: []byte(last.key), Object: last.namespace + "/" + last.name}
	}
	return result, nil
}

// objects takes in all objects of a list.
func (g *gatherer) objects(ctx context.Context, opts store.ListOptions) error {
	for {
		page, err := g.store.List(ctx, opts)
		if err != nil {
			return fmt.Errorf("list %s: %w", g.Kind, err)
		}
		if g.read += len(page.Items); g.read > g.most {
			return &ErrTooMany{SortBy: g.SortBy, Most: g.most}
		}
		for _, obj := range page.Items {
			g.object(obj)
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

// span takes in what fits of a span, reading those objects of which the index
// does not tell everything.
func (g *gatherer) span(ctx context.Context, span Span) error {
	judge := g.newJudge(span)
	var columns Columns
	if span.Columns != nil {
		if columns = span.Columns(); !columns.Has(g.SortBy) {
			columns = nil
		}
	}
	opts := g.options(span)
	for {
		var unsure []place
		next, err := g.store.Scan(ctx, opts, func(e store.Entry) bool {
			if g.rows++; g.rows > g.mostRows {
				return false
			}
			told := judge.of(e.Value)
			if told == drop {
				return true
			}
			if told == keep && columns != nil {
				columns.Parse(e.Value)
				if key, is := columns.Column(g.SortBy); is {
					g.row(e, key)
					return true
				}
			}
			unsure = append(unsure, place{e.Namespace, string(e.Name)})
			return len(unsure) < 1000
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", g.Kind, err)
		}
		if g.read += len(unsure); g.read > g.most || g.rows > g.mostRows {
			return &ErrTooMany{SortBy: g.SortBy, Most: g.most}
		}
		for _, at := range unsure {
			obj, err := g.load(ctx, at)
			if err != nil {
				return err
			}
			if obj != nil {
				g.object(obj)
			}
		}
		if opts.Continue = next; next == "" {
			return nil
		}
	}
}

// object takes an object in that fits.
func (g *gatherer) object(obj core.Object) {
	if !g.matches(obj) {
		return
	}
	e := entry{place: place{obj.Metadata().Namespace, obj.Metadata().Name}, obj: obj}
	e.key, e.has = g.sort.key(obj)
	g.add(e)
}

// row takes in what fits by its row alone. Most of a large span comes behind the
// page: of that nothing is copied.
func (g *gatherer) row(e store.Entry, key []byte) {
	if g.last != nil && g.last.has && len(key) > 0 {
		if by := compareBytes(key, g.last.key); by > 0 && !g.Desc || by < 0 && g.Desc {
			g.total++
			g.behind++
			return
		}
	}
	g.add(entry{place: place{e.Namespace, string(e.Name)}, key: string(key), has: len(key) > 0 || g.sort.kind != free})
}

func (g *gatherer) add(e entry) {
	g.total++
	if g.after != nil && g.order(e, *g.after) <= 0 {
		return
	}
	g.behind++
	g.page = append(g.page, e)
	if len(g.page) >= 4*g.Size {
		g.cut()
	}
}

// cut drops what is not among the first.
func (g *gatherer) cut() {
	slices.SortFunc(g.page, g.order)
	if len(g.page) > g.Size {
		clear(g.page[g.Size:])
		g.page = g.page[:g.Size]
	}
	if len(g.page) == g.Size {
		last := g.page[g.Size-1]
		g.last = &last
	}
}

// order is the list's: what has no value comes last, and equal ones go by where
// they are.
func (g *gatherer) order(a, b entry) int {
	if a.has != b.has {
		if a.has {
			return -1
		}
		return 1
	}
	by := cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.namespace, b.namespace), strings.Compare(a.name, b.name))
	if g.Desc {
		return -by
	}
	return by
}
