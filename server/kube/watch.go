package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// writeTimeout is how long a client may take to accept what is ready for it: a
// watcher that does not read is dropped and lists again, and others never wait.
const writeTimeout = 30 * time.Second

// watchEvent is one line of a watch.
type watchEvent struct {
	Type   store.EventType `json:"type"`
	Object any             `json:"object"`
}

// errorEvent is the type of a line that says why the watch ends.
const errorEvent store.EventType = "ERROR"

// watch streams changes. Without a resourceVersion, or from "0", it begins with
// the objects there are.
func (a *API) watch(w http.ResponseWriter, req *http.Request, q *listQuery) {
	ctx := req.Context()
	values := req.URL.Query()
	if text := values.Get("timeoutSeconds"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			WriteError(w, BadRequest("timeoutSeconds %q: want a number of seconds", text))
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	from, err := watchFrom(values.Get("resourceVersion"))
	if err != nil {
		WriteError(w, err)
		return
	}
	s := &watchStream{api: a, q: q, w: w, control: http.NewResponseController(w), seen: map[store.Key]bool{},
		table: wantsTable(req.Header.Get("Accept")), include: values.Get("includeObject")}
	var first []core.Object
	if from == 0 || q.opts.Filter != nil {
		var now uint64
		if first, now, err = a.listAll(ctx, q); err != nil {
			WriteError(w, err)
			return
		}
		if from == 0 {
			from = now
		} else {
			s.knows(first, now)
			first = nil
		}
	}
	watcher, err := a.store.Watch(ctx, store.WatchOptions{Kinds: []string{q.resource.StoreKind}, Namespace: q.opts.Namespace, From: from})
	if err != nil {
		WriteError(w, fmt.Errorf("watch %s: %w", q.resource.QualifiedName(), err))
		return
	}
	defer watcher.Close()
	s.run(ctx, first, watcher)
}

// watchFrom is 0 where the watch begins with a list.
func watchFrom(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	from, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, BadRequest("resourceVersion %q: want a decimal number from a list or an object", text)
	}
	return from, nil
}

// listAll reads every page; the revision is the first page's, so that a watch
// from it repeats changes made meanwhile and misses none.
func (a *API) listAll(ctx context.Context, q *listQuery) ([]core.Object, uint64, error) {
	opts := q.opts
	opts.Limit, opts.Continue = 0, ""
	var all []core.Object
	var revision uint64
	for {
		page, err := a.store.List(ctx, opts)
		if err != nil {
			return nil, 0, fmt.Errorf("list %s: %w", q.resource.QualifiedName(), err)
		}
		all = append(all, page.Items...)
		if revision == 0 {
			revision = page.Revision
		}
		if page.Continue == "" {
			return all, revision, nil
		}
		opts.Continue = page.Continue
	}
}

// watchStream writes one watch.
type watchStream struct {
	api     *API
	q       *listQuery
	w       http.ResponseWriter
	control *http.ResponseController
	// seen holds the objects that the client knows of, where a selector can
	// make them come and go without being created or deleted.
	seen    map[store.Key]bool
	table   bool
	include string
	// backlog is the revision of the list that seen was filled from, where the
	// client began at an older one.
	backlog uint64
	// columnsSent: only the first event of a table watch defines the columns.
	columnsSent bool
}

func (s *watchStream) keyOf(obj core.Object) store.Key {
	meta := obj.Metadata()
	return store.Key{Kind: s.q.resource.StoreKind, Namespace: meta.Namespace, Name: meta.Name}
}

// knows notes what a client that listed earlier is taken to know: what matches
// now. What matched then and no longer does shows in the changes up to backlog.
func (s *watchStream) knows(objects []core.Object, backlog uint64) {
	for _, obj := range objects {
		s.seen[s.keyOf(obj)] = true
	}
	s.backlog = backlog
}

func (s *watchStream) run(ctx context.Context, first []core.Object, watcher store.Watcher) {
	s.w.Header().Set("Content-Type", "application/json")
	s.w.WriteHeader(http.StatusOK)
	for _, obj := range first {
		if s.write(store.Event{Type: store.Added, Key: s.keyOf(obj), Object: obj}) != nil {
			return
		}
	}
	// The headers go out before the first event: clients wait for them.
	if s.flush() != nil {
		return
	}
	for {
		events, err := watcher.Next(ctx)
		if err != nil {
			if errors.Is(err, store.ErrGone) || errors.Is(err, store.ErrClosed) {
				_ = s.line(errorEvent, StatusOf(err))
				_ = s.flush()
			}
			return
		}
		for _, event := range events {
			if s.write(event) != nil {
				return
			}
		}
		if s.flush() != nil {
			return
		}
	}
}

func (s *watchStream) flush() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.control.Flush()
}

// write sends one event as the client must see it: an object that begins to
// match the selector is added, one that no longer does is deleted.
func (s *watchStream) write(event store.Event) error {
	kind := event.Type
	if kind == store.Bookmark {
		return nil
	}
	if s.q.opts.Filter != nil {
		known, matches := s.seen[event.Key], s.q.matches(event.Object)
		switch {
		case kind == store.Deleted || !matches:
			// A deletion that the client cannot know of is harmless to it; one
			// that it misses is not.
			if !known && !matches && event.Revision > s.backlog {
				return nil
			}
			kind = store.Deleted
			delete(s.seen, event.Key)
		case !known:
			kind = store.Added
			s.seen[event.Key] = true
		}
	}
	if s.table {
		table, err := s.q.resource.tableOf([]core.Object{event.Object}, s.include, s.api.now())
		if err != nil {
			return err
		}
		table.Metadata.ResourceVersion = event.Object.Metadata().ResourceVersion
		if s.columnsSent {
			table.ColumnDefinitions = nil
		}
		s.columnsSent = true
		return s.line(kind, table)
	}
	object, err := s.q.resource.encode(event.Object)
	if err != nil {
		return err
	}
	return s.line(kind, object)
}

func (s *watchStream) line(kind store.EventType, object any) error {
	body, err := json.Marshal(watchEvent{Type: kind, Object: object})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = s.w.Write(append(body, '\n'))
	return err
}
