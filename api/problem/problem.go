// Package problem is the shape of an error that a person reads: what was being
// done to which object, which field is wrong, and what to do next.
//
// It is a leaf: every room may return one, and the one place that turns errors
// into exit codes and HTTP statuses (server, cmd) reads it.
package problem

import (
	"errors"
	"fmt"
	"strings"
)

// Error is one problem. Err is required; the rest is as far as known.
type Error struct {
	// Op is a verb phrase ("parse pipeline", "start pod default/x").
	Op string `json:"op,omitempty"`
	// Object is the object's kind and name, or the file.
	Object string `json:"object,omitempty"`
	// Field is the path in the user's document ("root.dag.tasks.train.inputs").
	Field string `json:"field,omitempty"`
	// Line and Column are in the user's document, from 1; 0 where unknown.
	Line   int   `json:"line,omitempty"`
	Column int   `json:"column,omitempty"`
	Err    error `json:"-"`
	// Hint says what to do next, as a sentence.
	Hint string `json:"hint,omitempty"`
}

// Error renders "op object: line N: field: cause (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		if e.Object != "" {
			b.WriteString(" " + e.Object)
		}
		b.WriteString(": ")
	} else if e.Object != "" {
		b.WriteString(e.Object + ": ")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrInvalid is the class of everything that was refused at the door because of
// what the user gave: nothing was started and nothing was written.
var ErrInvalid = errors.New("invalid")

// List is several problems of one document, in the order they were found.
type List []*Error

// Error renders one problem a line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Is makes every list an ErrInvalid: lists are made only by validation.
func (l List) Is(target error) bool { return target == ErrInvalid }

// Unwrap gives errors.Is and errors.As each member.
func (l List) Unwrap() []error {
	all := make([]error, len(l))
	for i, e := range l {
		all[i] = e
	}
	return all
}

// Add appends a problem with a field and a formatted cause.
func (l *List) Add(field, format string, args ...any) *Error {
	e := &Error{Field: field, Err: fmt.Errorf(format, args...)}
	*l = append(*l, e)
	return e
}

// OrNil is the list as an error, nil where it is empty.
func (l List) OrNil() error {
	if len(l) == 0 {
		return nil
	}
	return l
}
