package query

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// kind says what values a field has.
type kind int

const (
	text kind = iota
	// enum is text that compares without regard to case, as clients write it
	// both ways.
	enum
	// moment is a time; clients know times to the second alone.
	moment
	// free is any JSON value, or none: a metric, a parameter.
	free
)

// Field is what a list can be filtered and sorted by.
type Field struct {
	kind kind
	// One of these reads the field, by its kind.
	text   func(core.Object) string
	moment func(core.Object) time.Time
	free   func(core.Object) json.RawMessage
	// name is the free field's, with its source.
	name string
}

// Text is a field of text.
func Text(of func(core.Object) string) Field { return Field{kind: text, text: of} }

// Enum is a field of one of some words.
func Enum(of func(core.Object) string) Field { return Field{kind: enum, text: of} }

// Moment is a field that is a time; a zero time stands for none.
func Moment(of func(core.Object) time.Time) Field { return Field{kind: moment, moment: of} }

// key is the field's value as a text that sorts as values do; false where the
// object has none.
func (f Field) key(obj core.Object) (string, bool) {
	switch f.kind {
	case moment:
		return store.TimeValue(f.moment(obj), false), true
	case free:
		key := skiff.OrderValue(f.free(obj))
		return key, key != ""
	case enum:
		return strings.ToUpper(f.text(obj)), true
	default:
		return f.text(obj), true
	}
}

// Names are the fields' names, sorted, for messages.
func Names(fields map[string]Field) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
