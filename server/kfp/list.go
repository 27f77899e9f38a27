package kfp

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/server/query"
)

// Sizes of a page, as published.
const (
	defaultPage = 20
	maxPage     = 200
)

// listing is what can be listed of one kind.
type listing = query.Listing

// list reads the parameters that all lists share, and the page that they ask for.
func (a *API) list(ctx context.Context, l *listing, values url.Values, namespace, scope string) (*page, error) {
	q, token, err := parseList(l, values, namespace, scope)
	if err != nil {
		return nil, err
	}
	result, err := q.Run(ctx, a.cfg.Store)
	tooMany, is := errors.AsType[*query.ErrTooMany](err)
	switch {
	case errors.Is(err, query.ErrToken):
		return nil, badRequest("page_token: %v", err)
	case is:
		return nil, badRequest("sort_by %s: more than %d objects would have to be sorted; narrow the list with a filter "+
			"(experiment_id, state, storage_state), or sort by created_at", tooMany.SortBy, tooMany.Most)
	case err != nil:
		return nil, err
	}
	p := &page{items: result.Items, total: result.Total}
	if result.Next != nil {
		token.At = *result.Next
		p.next = token.Encode()
	}
	return p, nil
}

// page is one page of a list.
type page struct {
	items []core.Object
	total int
	next  string
}

// parseList reads a list's parameters: its query, and the token that its next
// page will have but for where that begins.
func parseList(l *listing, values url.Values, namespace, scope string) (*query.Query, query.Token, error) {
	q := &query.Query{Listing: l, Namespace: namespace, Scope: scope, Size: defaultPage}
	token := query.Token{Kind: l.Kind, Namespace: namespace, Scope: scope, Filter: param(values, "filter")}
	if text := param(values, "page_size"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return nil, token, badRequest("page_size %.40q: want a number from 0 to %d", text, maxPage)
		}
		if n > 0 {
			q.Size = int(min(n, maxPage))
		}
	}
	sorted := param(values, "sort_by")
	var err error
	if token.SortBy, token.Desc, err = parseSort(sorted); err != nil {
		return nil, token, err
	}
	if text := param(values, "page_token"); text != "" {
		given, err := query.DecodeToken(text)
		if err != nil {
			return nil, token, badRequest("page_token: %v", err)
		}
		if given.Kind != l.Kind || given.Namespace != namespace || given.Scope != scope {
			return nil, token, badRequest("page_token: belongs to another list; begin the list anew")
		}
		// A token says the order and the filter itself. Who gives them again must
		// mean the same.
		if (sorted != "" && (given.SortBy != token.SortBy || given.Desc != token.Desc)) || (token.Filter != "" && token.Filter != given.Filter) {
			return nil, token, badRequest("page_token: belongs to a list with another sort_by or filter; begin the list anew")
		}
		token, q.At = given, given.At
	}
	if q.Filter, err = parseFilter(token.Filter, l); err != nil {
		return nil, token, err
	}
	if _, known := l.Field(token.SortBy); !known {
		return nil, token, badRequest("sort_by: there is no field %q; fields are %s", token.SortBy, query.Names(l.Fields))
	}
	q.SortBy, q.Desc = token.SortBy, token.Desc
	return q, token, nil
}

// param takes a query parameter under either of its names.
func param(values url.Values, name string) string {
	if v := values.Get(name); v != "" {
		return v
	}
	return values.Get(camel(name))
}

// parseSort reads "field", "field asc" or "field desc".
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
		case ownField(text) == "":
			return "", false, badRequest("sort_by %.80q: want FIELD, FIELD asc or FIELD desc", text)
		}
	}
	if own := ownField(by); own != "" {
		return own, desc, nil
	}
	lower := strings.ToLower(by)
	if strings.ContainsAny(lower, " ,") {
		return "", false, badRequest("sort_by %.80q: want FIELD, FIELD asc or FIELD desc", text)
	}
	return lower, desc, nil
}

// ownField is the name of a metric or a parameter, whose own part keeps its case
// and its blanks; empty for another field.
func ownField(text string) string {
	for _, prefix := range []string{query.MetricPrefix, query.ParameterPrefix, query.ParamPrefix} {
		if len(text) > len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
			return prefix + text[len(prefix):]
		}
	}
	return ""
}

// inExperiment is a page of a list that can be limited to an experiment, which
// then says the namespace, too.
func (a *API) inExperiment(r *http.Request, l *listing) (*page, error) {
	ctx, values := r.Context(), r.URL.Query()
	namespace, scope := values.Get("namespace"), param(values, "experiment_id")
	if scope != "" {
		e, err := a.findExperiment(ctx, scope)
		if err != nil {
			return nil, err
		}
		namespace = e.Namespace
	}
	namespace, err := namespaceFor(r, namespace)
	if err != nil {
		return nil, err
	}
	return a.list(ctx, l, values, namespace, scope)
}
