package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/store"
)

// Status is the published shape of an answer that is not an object (meta/v1).
type Status struct {
	Kind       string         `json:"kind"`
	APIVersion string         `json:"apiVersion"`
	Metadata   struct{}       `json:"metadata"`
	Status     string         `json:"status"` // Success or Failure
	Message    string         `json:"message,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Details    *StatusDetails `json:"details,omitempty"`
	Code       int            `json:"code"`
}

// StatusDetails say what the status is about.
type StatusDetails struct {
	Name   string        `json:"name,omitempty"`
	Group  string        `json:"group,omitempty"`
	Kind   string        `json:"kind,omitempty"`
	UID    string        `json:"uid,omitempty"`
	Causes []StatusCause `json:"causes,omitempty"`
}

// StatusCause is one thing that is wrong with a document.
type StatusCause struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Field   string `json:"field,omitempty"`
	// Object, Line and Column (from 1) place the cause in the user's file, and
	// Hint says what to do; the published shape has no such fields, and
	// clients that do not know them ignore them.
	Object string `json:"object,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Error is a refusal with a status of its own.
type Error struct {
	Code    int
	Reason  string
	Message string
	Details *StatusDetails
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// BadRequest is the refusal of a request that makes no sense.
func BadRequest(format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Reason: "BadRequest", Message: fmt.Sprintf(format, args...)}
}

// classes maps error classes to codes and the published reasons, first match wins.
var classes = []struct {
	target error
	code   int
	reason string
}{
	{store.ErrNotFound, http.StatusNotFound, "NotFound"},
	{store.ErrExists, http.StatusConflict, "AlreadyExists"},
	{store.ErrConflict, http.StatusConflict, "Conflict"},
	{store.ErrGone, http.StatusGone, "Expired"},
	{problem.ErrInvalid, http.StatusUnprocessableEntity, "Invalid"},
	{store.ErrInvalid, http.StatusBadRequest, "BadRequest"},
	{store.ErrFull, http.StatusInsufficientStorage, "StorageFull"},
	{store.ErrClosed, http.StatusServiceUnavailable, "ServiceUnavailable"},
}

// StatusOf renders any error as the Status to answer with.
func StatusOf(err error) Status {
	status := Status{
		Kind: "Status", APIVersion: "v1", Status: "Failure",
		Message: err.Error(), Reason: "InternalError", Code: http.StatusInternalServerError,
	}
	var own *Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &own):
		status.Code, status.Reason, status.Details = own.Code, own.Reason, own.Details
		return status
	case errors.As(err, &tooLarge):
		status.Code, status.Reason = http.StatusRequestEntityTooLarge, "RequestEntityTooLarge"
		status.Message = fmt.Sprintf("the body is larger than the %d bytes allowed here", tooLarge.Limit)
		return status
	}
	for _, class := range classes {
		if errors.Is(err, class.target) {
			status.Code, status.Reason = class.code, class.reason
			break
		}
	}
	if status.Reason == "Invalid" {
		status.Details = &StatusDetails{Causes: causes(err)}
	}
	return status
}

// causes lists the problems in an error for machines; their texts together are
// the status's message.
func causes(err error) []StatusCause {
	var list problem.List
	if !errors.As(err, &list) {
		var one *problem.Error
		if !errors.As(err, &one) {
			return nil
		}
		list = problem.List{one}
	}
	all := make([]StatusCause, 0, len(list))
	for _, p := range list {
		all = append(all, StatusCause{
			Reason: "FieldValueInvalid", Message: p.Err.Error(), Field: p.Field,
			Object: p.Object, Line: p.Line, Column: p.Column, Hint: p.Hint,
		})
	}
	return all
}

// WriteError answers with the Status of err.
func WriteError(w http.ResponseWriter, err error) {
	status := StatusOf(err)
	if status.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="skiff"`)
	}
	WriteJSON(w, status.Code, status)
}

// WriteJSON answers with one value. An error while writing means that the
// client has gone, and there is nobody left to tell.
func WriteJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		code = http.StatusInternalServerError
		body, _ = json.Marshal(StatusOf(fmt.Errorf("encode the answer: %w", err)))
	}
	WriteBody(w, code, body)
}

// WriteBody answers with JSON that is encoded already. Until it returns the body
// is its own, with the room behind it.
func WriteBody(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	body = append(body, '\n') // in one write, which is one less to the connection
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
