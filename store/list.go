package store

import (
	"bytes"
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/skiff-ml/skiff/api/core"
)

// listChunk is how many rows one read transaction of a list visits: a filter
// that drops nearly everything must not hold old pages for long.
const listChunk = 2 * MaxPage

// rowSource yields an order of objects' places.
type rowSource interface {
	// next returns the next place, or false at the end.
	next() (position, bool, error)
}

// List returns a page of objects in the order of namespace and name, or of the
// index's values.
func (s *Store) List(ctx context.Context, opts ListOptions) (Page, error) {
	kind, err := s.listed(opts)
	if err != nil {
		return Page{}, err
	}
	if opts.Limit <= 0 || opts.Limit > MaxPage {
		opts.Limit = MaxPage
	}
	l := &lister{store: s, kind: kind, opts: opts}
	if opts.Continue != "" {
		if l.after, err = opts.decodeToken(opts.Continue); err != nil {
			return Page{}, err
		}
		l.resumed = true
	}
	for !l.done {
		if err := ctx.Err(); err != nil {
			return Page{}, context.Cause(ctx)
		}
		if err := s.readDurable(ctx, l.chunk); err != nil {
			return Page{}, err
		}
	}
	return l.page, nil
}

// listed is the kind of a list whose options make sense.
func (s *Store) listed(opts ListOptions) (*kindInfo, error) {
	kind, err := s.kind(opts.Kind)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	if opts.Index != "" && kind.indexes[opts.Index] == nil {
		return nil, fmt.Errorf("list %s: index %q is not declared: %w", opts.Kind, opts.Index, ErrInvalid)
	}
	if opts.Index == "" && (opts.Exact || opts.Prefix != "" || opts.Reverse || opts.From != "" || opts.Until != "") {
		return nil, fmt.Errorf("list %s: Prefix, Exact, From, Until and Reverse need an index: %w", opts.Kind, ErrInvalid)
	}
	return kind, nil
}

// lister fills one page, over several read transactions where a filter drops much.
type lister struct {
	store   *Store
	kind    *kindInfo
	opts    ListOptions
	page    Page
	after   position
	resumed bool // after is set
	done    bool
}

// chunk visits up to listChunk rows.
func (l *lister) chunk(b buckets, revision uint64) error {
	if l.page.Revision == 0 {
		// The first transaction's: a watch from it tells of all that changed
		// while the others ran.
		l.page.Revision = revision
	}
	rows := l.rows(b)
	for range listChunk {
		at, more, err := rows.next()
		if err != nil {
			return err
		}
		if !more {
			l.done = true
			return nil
		}
		if len(l.page.Items) == l.opts.Limit {
			l.page.Continue = l.opts.encodeToken(l.after)
			l.done = true
			return nil
		}
		obj, err := l.load(b, at)
		if err != nil {
			return err
		}
		l.after, l.resumed = at, true
		if l.opts.Filter == nil || l.opts.Filter(obj) {
			l.page.Items = append(l.page.Items, obj)
		}
	}
	return nil
}

func (l *lister) load(b buckets, at position) (core.Object, error) {
	key := Key{Kind: l.opts.Kind, Namespace: at.namespace, Name: at.name}
	rec, found, err := b.record(key.raw())
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, corrupt(key.raw(), "index %s names it but it is not there", l.opts.Index)
	}
	return l.kind.decode(key, rec.revision, rec.json)
}

func (l *lister) rows(b buckets) rowSource {
	return rowsOf(b, l.opts, l.after, l.resumed)
}

func rowsOf(b buckets, opts ListOptions, after position, resumed bool) rowSource {
	if opts.Index == "" {
		return newKeyRows(b.objects.Cursor(), opts, after, resumed)
	}
	return newIndexRows(b.indexes, opts, after, resumed)
}

// keyRows walks a kind's objects in the order of their keys.
type keyRows struct {
	cursor *bolt.Cursor
	prefix []byte
	row    []byte
}

func newKeyRows(cursor *bolt.Cursor, opts ListOptions, after position, resumed bool) *keyRows {
	r := &keyRows{cursor: cursor, prefix: keyPrefix(opts)}
	from := r.prefix
	if resumed {
		last := Key{Kind: opts.Kind, Namespace: after.namespace, Name: after.name}.raw()
		from = append([]byte(last), 0)
	}
	r.row, _ = cursor.Seek(from)
	return r
}

// keyPrefix is what the keys of a list's objects begin with.
func keyPrefix(opts ListOptions) []byte {
	prefix := append([]byte(opts.Kind), 0)
	if opts.Namespace != "" {
		prefix = append(append(prefix, opts.Namespace...), 0)
	}
	return prefix
}

func (r *keyRows) next() (position, bool, error) {
	if r.row == nil || !bytes.HasPrefix(r.row, r.prefix) {
		return position{}, false, nil
	}
	key, err := parseRawKey(r.row)
	if err != nil {
		return position{}, false, err
	}
	r.row, _ = r.cursor.Next()
	return position{namespace: key.Namespace, name: key.Name}, true, nil
}

// indexRows walks an index in the order of values, then of namespace and name.
// The index lies apart by namespace, so that a list of one namespace never
// steps over another's entries; a list of all merges them.
type indexRows struct {
	sources []*namespaceRows
	base    []byte // the index's rows' common prefix
	reverse bool
}

// namespaceRows is one namespace's part of an index.
type namespaceRows struct {
	cursor    *bolt.Cursor
	namespace string
	prefix    []byte // all of the namespace's rows
	bound     []byte // all of the wanted rows
	low, high []byte // the first wanted row and what comes after the last; nil for none
	value     []byte
	name      []byte
	reverse   bool
}

func newIndexRows(index *bolt.Bucket, opts ListOptions, after position, resumed bool) *indexRows {
	r := &indexRows{base: indexPrefix(opts.Kind, opts.Index), reverse: opts.Reverse}
	for _, source := range namespaceSources(index, opts) {
		if source.seek(after, resumed) {
			r.sources = append(r.sources, source)
		}
	}
	return r
}

// namespaceSources are the parts of an index that a list is of, before their
// first rows.
func namespaceSources(index *bolt.Bucket, opts ListOptions) []*namespaceRows {
	base := indexPrefix(opts.Kind, opts.Index)
	namespaces := []string{opts.Namespace}
	if opts.Namespace == "" {
		namespaces = indexedNamespaces(index.Cursor(), base)
	}
	sources := make([]*namespaceRows, 0, len(namespaces))
	for _, namespace := range namespaces {
		source := &namespaceRows{cursor: index.Cursor(), namespace: namespace, reverse: opts.Reverse}
		source.prefix = append(append(bytes.Clone(base), namespace...), 0)
		source.bound = appendEscaped(bytes.Clone(source.prefix), opts.Prefix)
		if opts.Exact {
			source.bound = append(source.bound, 0, terminator)
		}
		if opts.From != "" {
			source.low = appendEscaped(bytes.Clone(source.prefix), opts.From)
		}
		if opts.Until != "" {
			// Values that begin with Until and are longer come after it, so it is
			// the row without a terminator that bounds it.
			source.high = appendEscaped(bytes.Clone(source.prefix), opts.Until)
		}
		sources = append(sources, source)
	}
	return sources
}

// indexedNamespaces skips through an index from namespace to namespace.
func indexedNamespaces(cursor *bolt.Cursor, base []byte) []string {
	var out []string
	row, _ := cursor.Seek(base)
	for row != nil && bytes.HasPrefix(row, base) {
		namespace, _, _ := bytes.Cut(row[len(base):], []byte{0})
		out = append(out, string(namespace))
		past := append(bytes.Clone(row[:len(base)+len(namespace)]), afterNULByte)
		row, _ = cursor.Seek(past)
	}
	return out
}

// seek goes to the first row after the position in the merged order.
func (n *namespaceRows) seek(after position, resumed bool) bool {
	if n.reverse {
		return n.seekBack(after, resumed)
	}
	from := n.first()
	if resumed {
		from = append(bytes.Clone(n.prefix), after.value...)
		switch {
		case n.namespace < after.namespace:
			from = append(from, 0, pastEqual)
		case n.namespace == after.namespace:
			from = append(append(from, 0, terminator), after.name...)
			from = append(from, 0)
		}
	}
	if bytes.Compare(from, n.low) < 0 {
		from = n.low
	}
	row, _ := n.cursor.Seek(from)
	return n.take(row)
}

// first is where the wanted rows begin.
func (n *namespaceRows) first() []byte {
	if bytes.Compare(n.bound, n.low) < 0 {
		return n.low
	}
	return n.bound
}

// seekBack goes to the last row before the position in the merged order.
func (n *namespaceRows) seekBack(after position, resumed bool) bool {
	past := pastPrefix(n.bound)
	if resumed {
		past = append(bytes.Clone(n.prefix), after.value...)
		switch {
		case n.namespace < after.namespace:
			past = append(past, 0, pastEqual) // its rows of the same value are still to come
		case n.namespace == after.namespace:
			past = append(append(past, 0, terminator), after.name...)
		default:
			past = append(past, 0, terminator)
		}
	}
	if n.high != nil && bytes.Compare(past, n.high) > 0 {
		past = n.high
	}
	row, _ := n.cursor.Seek(past)
	if row == nil {
		row, _ = n.cursor.Last()
	} else {
		row, _ = n.cursor.Prev()
	}
	return n.take(row)
}

// pastPrefix sorts after every row with the prefix and before all that do too.
// An index's rows begin with a kind's name, so there is a byte to raise.
func pastPrefix(prefix []byte) []byte {
	past := bytes.Clone(prefix)
	for i := len(past) - 1; i >= 0; i-- {
		if past[i]++; past[i] != 0 {
			return past[:i+1]
		}
	}
	return past
}

// step goes to the next row, in the list's direction.
func (n *namespaceRows) step() bool {
	var row []byte
	if n.reverse {
		row, _ = n.cursor.Prev()
	} else {
		row, _ = n.cursor.Next()
	}
	return n.take(row)
}

// take holds a row; false past the last.
func (n *namespaceRows) take(row []byte) bool {
	n.name = nil
	if row == nil || !bytes.HasPrefix(row, n.bound) || bytes.Compare(row, n.low) < 0 ||
		(n.high != nil && bytes.Compare(row, n.high) >= 0) {
		return false
	}
	value, name, ok := splitIndexRow(row[len(n.prefix):])
	if ok {
		n.value, n.name = value, name
	}
	return true
}

func (r *indexRows) next() (position, bool, error) {
	row, more, err := r.nextRow()
	if err != nil || !more {
		return position{}, false, err
	}
	return row.position(), true, nil
}

// rowView is a row of an index as it lies in the transaction's pages.
type rowView struct {
	value, name []byte
	namespace   string
}

func (v rowView) position() position {
	return position{value: string(v.value), namespace: v.namespace, name: string(v.name)}
}

// nextRow is next without a copy: what it returns is valid in the transaction.
func (r *indexRows) nextRow() (rowView, bool, error) {
	var first *namespaceRows
	for _, source := range r.sources {
		// Sources are in the order of namespaces, so the earlier wins a tie, and
		// the later one in reverse.
		if first == nil || (r.reverse && bytes.Compare(source.value, first.value) >= 0) ||
			(!r.reverse && bytes.Compare(source.value, first.value) < 0) {
			first = source
		}
	}
	if first == nil {
		return rowView{}, false, nil
	}
	if first.name == nil {
		return rowView{}, false, fmt.Errorf("read index %q: a row is malformed: %w", r.base, ErrCorrupt)
	}
	at := rowView{value: first.value, name: first.name, namespace: first.namespace}
	if !first.step() {
		r.sources = deleteSource(r.sources, first)
	}
	return at, true, nil
}

func deleteSource(list []*namespaceRows, gone *namespaceRows) []*namespaceRows {
	out := list[:0]
	for _, one := range list {
		if one != gone {
			out = append(out, one)
		}
	}
	return out
}
