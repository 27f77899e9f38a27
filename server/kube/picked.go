package kube

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// pickedPage is how many objects a page of a picked list has where the request
// does not say.
const pickedPage = 100

// picked reads a page of a list that has an order or a filter of its own
// ("sortBy", and "filter" any number of times), of metrics and parameters. Such a
// page may be short, or empty, and still be continued.
func (a *API) picked(req *http.Request, r *Resource, list *listQuery) (store.Page, error) {
	var page store.Page
	values := req.URL.Query()
	if r.Picked == nil {
		return page, BadRequest("%s cannot be sorted or filtered by sortBy and filter", r.Plural)
	}
	q := &query.Query{Listing: r.Picked(), Namespace: list.opts.Namespace, Size: list.opts.Limit, SortBy: "created_at", Desc: true}
	if q.Size == 0 {
		q.Size = pickedPage
	}
	if list.opts.Filter != nil {
		q.Also = list.opts.Filter
	}
	var err error
	if text := values.Get("sortBy"); text != "" {
		if q.SortBy, q.Desc, err = query.ParseOrder(text); err != nil {
			return page, BadRequest("sortBy: %v", err)
		}
	}
	for _, text := range values["filter"] {
		condition, err := query.ParseCondition(text)
		if err != nil {
			return page, BadRequest("filter: %v", err)
		}
		q.Filter = append(q.Filter, condition)
	}
	token := query.Token{Kind: q.Kind, Namespace: q.Namespace, SortBy: q.SortBy, Desc: q.Desc,
		Filter: strings.Join(append(values["filter"], values.Get("labelSelector"), values.Get("fieldSelector")), "\x00")}
	if text := list.opts.Continue; text != "" {
		given, err := query.DecodeToken(text)
		if err != nil {
			return page, BadRequest("continue: %v", err)
		}
		if !given.Is(token) {
			return page, BadRequest("continue: belongs to another list; begin the list anew")
		}
		q.At = given.At
	}
	page.Revision = a.store.Revision()
	result, err := q.Run(req.Context(), a.store)
	if tooMany, is := errors.AsType[*query.ErrTooMany](err); is {
		return page, BadRequest("sortBy %v", tooMany)
	}
	if errors.Is(err, query.ErrToken) {
		return page, BadRequest("continue: %v", err)
	}
	if err != nil {
		return page, fmt.Errorf("list %s: %w", r.QualifiedName(), err)
	}
	if page.Items = result.Items; result.Next != nil {
		token.At = *result.Next
		page.Continue = token.Encode()
	}
	return page, nil
}

// isPicked reports whether a list's request has an order or a filter of its own.
func isPicked(req *http.Request) bool {
	values := req.URL.Query()
	return values.Get("sortBy") != "" || len(values["filter"]) > 0
}
