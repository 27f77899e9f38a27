package kfp

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Sizes of a page, as published.
const (
	defaultPage = 20
	maxPage     = 200
)

const (
	// maxGather is how many objects a list reads at most to sort or weigh them
	// itself; a thousand runs take some ten milliseconds.
	maxGather = 5000
	// maxScan is how many objects one page looks through in the order of an
	// index for those that a filter lets by. A page that reaches it comes short,
	// with the token of the rest.
	maxScan = 5000
	// maxTotal is as far as total_size counts where an index alone decides.
	maxTotal = 100_000
)

// span is a part of a kind's objects that an index has together.
type span struct {
	index, prefix string
	exact         bool
	// covered are the predicates that hold for all of it, by their place.
	covered []int
	// order is the field that the index sorts by within the span, descending
	// where desc is set; empty where it is none.
	order string
	desc  bool
}

// listing is what can be listed of one kind.
type listing struct {
	kind   string
	fields map[string]field
	// extra are further fields to sort by, found by name ("metric:loss").
	extra func(ctx context.Context, name string) (field, bool)
	// choose picks the span to look through for the predicates, given the field
	// to sort by; nil for kinds of which there are few.
	choose func(q *query) span
	// most replaces maxGather, for kinds whose objects are few or small.
	most int
}

// query is one list's request.
type query struct {
	listing *listing
	// Namespace is where, empty for everywhere; scope narrows the list to what
	// belongs to one object (an experiment's runs).
	namespace, scope string
	size             int
	token            token
	filter           []predicate
	sort             field
}

// token is what a page token says: the order and the filter of the list, and
// where its next page begins. It stays good when objects come and go.
type token struct {
	Kind      string `json:"k"`
	Namespace string `json:"n,omitempty"`
	Scope     string `json:"e,omitempty"`
	SortBy    string `json:"s,omitempty"`
	Desc      bool   `json:"d,omitempty"`
	Filter    string `json:"f,omitempty"`
	// Continue is the store's own token, where the list goes by an index.
	Continue string `json:"c,omitempty"`
	// Seen counts what was given before, and Last and ID name the last object
	// given where the list is sorted here.
	Seen int    `json:"t,omitempty"`
	Last string `json:"v,omitempty"`
	ID   string `json:"i,omitempty"`
}

const maxToken = 128 << 10

// encode writes a token: opaque, and hard to garble unnoticed.
func (t token) encode() string {
	body, err := json.Marshal(t)
	if err != nil {
		return "" // texts and numbers always encode
	}
	body = binary.BigEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
	return base64.RawURLEncoding.EncodeToString(body)
}

func decodeToken(text string) (token, error) {
	var t token
	invalid := badRequest("page_token: is not one of this list's; begin the list anew")
	if len(text) > maxToken {
		return t, invalid
	}
	body, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(body) < 4 {
		return t, invalid
	}
	body, sum := body[:len(body)-4], body[len(body)-4:]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) || json.Unmarshal(body, &t) != nil {
		return t, invalid
	}
	return t, nil
}

// parse reads the parameters that all lists share.
func (l *listing) parse(ctx context.Context, values url.Values, namespace, scope string) (*query, error) {
	q := &query{listing: l, namespace: namespace, scope: scope, size: defaultPage}
	if text := param(values, "page_size"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return nil, badRequest("page_size %.40q: want a number from 0 to %d", text, maxPage)
		}
		if n > 0 {
			q.size = int(min(n, maxPage))
		}
	}
	var err error
	if text := param(values, "page_token"); text != "" {
		if q.token, err = decodeToken(text); err != nil {
			return nil, err
		}
		if q.token.Kind != l.kind || q.token.Namespace != namespace || q.token.Scope != scope {
			return nil, badRequest("page_token: belongs to another list; begin the list anew")
		}
	} else {
		q.token = token{Kind: l.kind, Namespace: namespace, Scope: scope, Filter: param(values, "filter")}
		if q.token.SortBy, q.token.Desc, err = parseSort(param(values, "sort_by")); err != nil {
			return nil, err
		}
	}
	if q.filter, err = parseFilter(q.token.Filter, l.fields); err != nil {
		return nil, err
	}
	var known bool
	if q.sort, known = l.fields[q.token.SortBy]; !known && l.extra != nil {
		q.sort, known = l.extra(ctx, q.token.SortBy)
	}
	if !known {
		return nil, badRequest("sort_by: there is no field %q; fields are %s", q.token.SortBy, fieldNames(l.fields))
	}
	return q, nil
}

// param takes a query parameter under either of its names.
func param(values url.Values, name string) string {
	if v := values.Get(name); v != "" {
		return v
	}
	return values.Get(camel(name))
}

// parseSort reads "field", "field asc" or "field desc". A metric's name keeps
// its case and its blanks.
func parseSort(text string) (by string, desc bool, err error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "created_at", false, nil
	}
	by = text
	if i := strings.LastIndexByte(text, ' '); i >= 0 {
		switch direction := strings.ToLower(text[i+1:]); {
		case direction == "asc" || direction == "desc":
			by, desc = strings.TrimSpace(text[:i]), direction == "desc"
		case !strings.HasPrefix(strings.ToLower(text), metricPrefix):
			return "", false, badRequest("sort_by %.80q: want FIELD, FIELD asc or FIELD desc", text)
		}
	}
	lower := strings.ToLower(by)
	if strings.HasPrefix(lower, metricPrefix) {
		return metricPrefix + by[len(metricPrefix):], desc, nil
	}
	if strings.ContainsAny(lower, " ,") {
		return "", false, badRequest("sort_by %.80q: want FIELD, FIELD asc or FIELD desc", text)
	}
	return lower, desc, nil
}

// metricPrefix begins the name of a metric to sort runs by.
const metricPrefix = "metric:"

// result is one page.
type result struct {
	items []core.Object
	// total is how many objects there are on all pages. Where a filter goes
	// through more than maxScan objects it counts what was found so far and one
	// more for the rest; where an index decides it stops at maxTotal.
	total int
	next  string
}

// run reads one page.
func (q *query) run(ctx context.Context, s store.Interface) (*result, error) {
	part := span{}
	if q.listing.choose != nil {
		part = q.listing.choose(q)
	}
	var residual []predicate
	for i, p := range q.filter {
		if !slices.Contains(part.covered, i) {
			residual = append(residual, p)
		}
	}
	opts := store.ListOptions{Kind: q.listing.kind, Namespace: q.namespace, Index: part.index, Prefix: part.prefix, Exact: part.exact}
	ordered := part.order != "" && part.order == canonical(q.token.SortBy)
	if ordered {
		opts.Reverse = part.desc != q.token.Desc
		if len(residual) == 0 {
			return q.walk(ctx, s, opts, nil)
		}
	}
	if q.token.Continue != "" {
		// A list goes on as it began, although it may have shrunk meanwhile.
		return q.walk(ctx, s, opts, residual)
	}
	most := q.listing.most
	if most == 0 {
		most = maxGather
	}
	if q.token.ID != "" {
		most *= 2 // the list may grow between two of its pages
	}
	n, err := s.Count(ctx, opts, most+1)
	if err != nil {
		return nil, fmt.Errorf("count %s: %w", q.listing.kind, err)
	}
	switch {
	case n <= most:
		return q.gather(ctx, s, opts, residual)
	case ordered && q.token.ID == "":
		return q.walk(ctx, s, opts, residual)
	}
	return nil, badRequest("sort_by %s: more than %d objects would have to be sorted; narrow the list with a filter "+
		"(experiment_id, state, storage_state), or sort by created_at", q.token.SortBy, most)
}

// canonical is the one name of fields that have several.
func canonical(name string) string {
	if name == "name" {
		return "display_name"
	}
	return name
}

// walk reads a page in the order of an index.
func (q *query) walk(ctx context.Context, s store.Interface, opts store.ListOptions, residual []predicate) (*result, error) {
	opts.Limit, opts.Continue = q.size, q.token.Continue
	scanned := 0
	if len(residual) > 0 {
		// Once enough was looked through, every object fills the page, and those
		// that do not belong are dropped below: the page ends there.
		opts.Filter = func(obj core.Object) bool {
			scanned++
			return scanned > maxScan || q.matches(residual, obj)
		}
	}
	page, err := s.List(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", q.listing.kind, err)
	}
	out := &result{items: page.Items}
	if len(residual) > 0 {
		out.items = slices.DeleteFunc(page.Items, func(obj core.Object) bool { return !q.matches(residual, obj) })
	}
	next := q.token
	next.Continue, next.Seen = page.Continue, q.token.Seen+len(out.items)
	if page.Continue != "" {
		out.next = next.encode()
	}
	switch {
	case len(residual) == 0:
		opts.Continue = ""
		if out.total, err = s.Count(ctx, opts, maxTotal); err != nil {
			return nil, fmt.Errorf("count %s: %w", q.listing.kind, err)
		}
	case out.next != "":
		out.total = next.Seen + 1
	default:
		out.total = next.Seen
	}
	return out, nil
}

func (q *query) matches(predicates []predicate, obj core.Object) bool {
	for i := range predicates {
		if !predicates[i].holds(q.listing.fields[predicates[i].key], obj) {
			return false
		}
	}
	return true
}

// entry is an object with the value it is sorted by.
type entry struct {
	obj   core.Object
	value any
	id    string
}

// gather reads all objects of a span, sorts those that the filter lets by, and
// cuts the page out.
func (q *query) gather(ctx context.Context, s store.Interface, opts store.ListOptions, residual []predicate) (*result, error) {
	opts.Reverse = false
	var found []entry
	for {
		page, err := s.List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", q.listing.kind, err)
		}
		for _, obj := range page.Items {
			if q.matches(residual, obj) {
				found = append(found, entry{obj: obj, value: q.sort.value(obj), id: obj.Metadata().Namespace + "/" + obj.Metadata().Name})
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	order := func(a, b entry) int {
		by := compareValues(a.value, b.value)
		if by == 0 {
			by = strings.Compare(a.id, b.id)
		}
		if q.token.Desc {
			return -by
		}
		return by
	}
	slices.SortFunc(found, order)
	from := 0
	if q.token.ID != "" {
		last, err := q.lastEntry()
		if err != nil {
			return nil, err
		}
		at, there := slices.BinarySearchFunc(found, last, order)
		if from = at; there {
			from++
		}
	}
	to := min(from+q.size, len(found))
	out := &result{total: len(found)}
	for _, e := range found[from:to] {
		out.items = append(out.items, e.obj)
	}
	if to < len(found) {
		next := q.token
		next.ID, next.Last = found[to-1].id, encodeValue(found[to-1].value)
		out.next = next.encode()
	}
	return out, nil
}

// encodeValue writes a sort value into a token.
func encodeValue(value any) string {
	switch v := value.(type) {
	case time.Time:
		return "t" + v.UTC().Format(time.RFC3339Nano)
	case float64:
		return "n" + strconv.FormatUint(math.Float64bits(v), 16)
	default:
		text, _ := value.(string)
		return "s" + text
	}
}

// lastEntry is the object that the page before ended with.
func (q *query) lastEntry() (entry, error) {
	e := entry{id: q.token.ID}
	if q.token.Last == "" {
		return e, badRequest("page_token: is not one of this list's; begin the list anew")
	}
	var err error
	switch text := q.token.Last[1:]; q.token.Last[0] {
	case 't':
		var t time.Time
		t, err = time.Parse(time.RFC3339Nano, text)
		e.value = t
	case 'n':
		var bits uint64
		bits, err = strconv.ParseUint(text, 16, 64)
		e.value = math.Float64frombits(bits)
	default:
		e.value = text
	}
	if err != nil {
		return e, badRequest("page_token: is not one of this list's; begin the list anew")
	}
	return e, nil
}

// inExperiment is a page of a list that can be limited to an experiment, which
// then says the namespace, too.
func (a *API) inExperiment(r *http.Request, l *listing) (*result, error) {
	ctx, values := r.Context(), r.URL.Query()
	namespace, scope := values.Get("namespace"), param(values, "experiment_id")
	if scope != "" {
		e, err := a.findExperiment(ctx, scope)
		if err != nil {
			return nil, err
		}
		namespace = e.Namespace
	}
	namespace, err := namespaceOf(namespace)
	if err != nil {
		return nil, err
	}
	q, err := l.parse(ctx, values, namespace, scope)
	if err != nil {
		return nil, err
	}
	return q.run(ctx, a.cfg.Store)
}
