package store

import (
	"context"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// Kind declares a kind of object to the store. All kinds are declared when the
// store is opened.
type Kind struct {
	// Name is the key under which objects are kept: lower-case plural, with
	// the group where there is one ("pods", "runs.skiff.dev").
	Name string
	// New makes an empty object to decode into.
	New func() core.Object
	// Indexes are kept in the same transaction as the object.
	Indexes []Index
	// Sealed kinds are encrypted wherever they are written, with the key in
	// Config.KeyPath. They have no indexes: their entries would tell values.
	Sealed bool
}

// Index is a declared secondary index. Entries sort by the value and then by
// the object's key, so a list by index pages in a stable order.
type Index struct {
	// Name is unique within the kind.
	Name string
	// Values returns the object's entries: any bytes, compared bytewise (see
	// Descending and TimeValue for numbers and times). None means the object
	// is not in the index.
	Values func(obj core.Object) []string
	// Version is raised when Values changes its meaning, so that the index is
	// built anew when the store is next opened.
	Version int
}

// Key names one object.
type Key struct {
	Kind, Namespace, Name string
}

// Verb says what an Op does.
type Verb int

// The verbs. Update compares metadata.resourceVersion where the object carries
// one and is unconditional where it is empty. Put creates or replaces.
const (
	Create Verb = iota + 1
	Update
	Put
	Delete
)

// Op is one change of a transaction.
type Op struct {
	Verb Verb
	// Kind is the declared kind's name; for Delete, Key alone says what.
	Kind   string
	Object core.Object
	// Key and, where not empty, ResourceVersion say what to delete.
	Key             Key
	ResourceVersion string
}

// ListOptions select a page.
type ListOptions struct {
	Kind string
	// Namespace limits the list; empty means all namespaces.
	Namespace string
	// Index, with Prefix, lists by a declared index the entries whose value
	// starts with Prefix (use Exact for equality). Without an index the order
	// is by namespace and name.
	Index  string
	Prefix string
	Exact  bool
	// From and Until limit the list by an index to values that are not less than
	// From and less than Until, where those are not empty.
	From, Until string
	// Reverse lists by the index from its end; it needs an index.
	Reverse bool
	// Limit is the most objects in the page; 0 means MaxPage.
	Limit int
	// Continue is the token of the previous page.
	Continue string
	// Filter drops objects; a page is filled up to Limit all the same.
	Filter func(core.Object) bool
}

// MaxPage bounds a page, so that no read transaction is long.
const MaxPage = 1000

// Page is a part of a list.
type Page struct {
	Items []core.Object
	// Revision is the store's at the time of the read: a watch from it misses
	// nothing.
	Revision uint64
	// Continue is empty on the last page.
	Continue string
}

// Entry is one row of a list by index: the value and whose it is. Value and Name
// are valid until the function that is given them returns.
type Entry struct {
	Value, Name []byte
	Namespace   string
}

// EventType says what happened.
type EventType string

// The event types of the published watch protocol.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
	Bookmark EventType = "BOOKMARK"
)

// Event is one change. Object is shared between watchers and must not be
// modified; for Deleted it is the last state.
type Event struct {
	Type     EventType
	Key      Key
	Revision uint64
	Object   core.Object
}

// WatchOptions select changes.
type WatchOptions struct {
	// Kinds limits the watch; empty means all.
	Kinds     []string
	Namespace string
	// From is the revision after which to begin; 0 means from now on. A
	// revision older than the change log is ErrGone: list again.
	From uint64
}

// Watcher delivers events in revision order.
type Watcher interface {
	// Next blocks for at least one event and returns all that are ready. Its
	// errors are ctx's cause, ErrGone (the consumer fell behind the change log:
	// list again) and ErrClosed.
	Next(ctx context.Context) ([]Event, error)
	Close()
}

// Interface is what the rest of skiff uses of the store.
type Interface interface {
	// Get returns a copy that the caller owns; ErrNotFound where there is none.
	Get(ctx context.Context, key Key) (core.Object, error)
	List(ctx context.Context, opts ListOptions) (Page, error)
	// Count is how many objects List would give over all pages, at most most:
	// it reads the index's rows and no object, and takes no Filter.
	Count(ctx context.Context, opts ListOptions, most int) (int, error)
	// Namespaces are those that have objects of a kind, sorted. It skips from one
	// to the next, whatever they hold.
	Namespaces(ctx context.Context, kind string) ([]string, error)
	// Scan calls visit for the rows that a list by index would read the objects
	// of, in the list's order, and reads none: what an index holds in its values
	// is had at a tenth of the price. It ends where visit returns false; next is
	// then the token of the rows after that one, and empty where there are none.
	// Limit and Filter do not count. Rows come from several transactions, as
	// pages do; visit must not call the store.
	Scan(ctx context.Context, opts ListOptions, visit func(Entry) bool) (next string, err error)
	// Commit applies all ops or none and returns when they are durable. The
	// objects given get their uid, resourceVersion and timestamps filled in.
	// ErrConflict, ErrExists and ErrNotFound name the op's object. A transaction
	// that would change nothing is not written and keeps the revision. Two ops
	// on one object in one transaction are ErrInvalid.
	Commit(ctx context.Context, ops ...Op) (revision uint64, err error)
	Watch(ctx context.Context, opts WatchOptions) (Watcher, error)
	// Revision is the newest durable revision.
	Revision() uint64
	// ID is the store's own, made when it was created.
	ID() string
}

// TimeValue renders a time so that bytes sort as times do, newest first when
// descending.
func TimeValue(t time.Time, descending bool) string { return timeValue(t, descending) }
