package kfp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/store"
)

// status is google.rpc.Status as JSON, the body of every refusal. Clients print
// it as it is.
type status struct {
	// Code is one of google.rpc.Code.
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Error is the message again, as grpc-gateway has it.
	Error   string   `json:"error,omitempty"`
	Details []detail `json:"details,omitempty"`
}

// detail says where a document is wrong; the type's name makes it a
// google.protobuf.Any.
type detail struct {
	Type   string `json:"@type"`
	Field  string `json:"field,omitempty"`
	Line   int    `json:"line,omitempty"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// The codes of google.rpc.Code that are answered, with grpc-gateway's HTTP
// status of each.
const (
	rpcInvalid         = 3
	rpcNotFound        = 5
	rpcExists          = 6
	rpcDenied          = 7
	rpcExhausted       = 8
	rpcPrecondition    = 9
	rpcAborted         = 10
	rpcUnimplemented   = 12
	rpcInternal        = 13
	rpcUnavailable     = 14
	rpcUnauthenticated = 16
)

func httpStatus(code int) int {
	switch code {
	case rpcInvalid, rpcPrecondition:
		return http.StatusBadRequest
	case rpcNotFound:
		return http.StatusNotFound
	case rpcExists, rpcAborted:
		return http.StatusConflict
	case rpcDenied:
		return http.StatusForbidden
	case rpcExhausted:
		return http.StatusTooManyRequests
	case rpcUnimplemented:
		return http.StatusNotImplemented
	case rpcUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// refusal is an error with a code of its own.
type refusal struct {
	code int
	text string
}

// Error implements error.
func (r *refusal) Error() string { return r.text }

func refuse(code int, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error { return refuse(rpcInvalid, format, args...) }

func notFound(kind, id string) error {
	return refuse(rpcNotFound, "%s %s not found", kind, id)
}

// statusOf renders any error, and the HTTP status to answer with.
func statusOf(err error) (status, int) {
	var own *refusal
	var tooLarge *http.MaxBytesError
	code := rpcInternal
	switch _, denied := errors.AsType[*auth.Denied](err); {
	case denied:
		code = rpcDenied
	case errors.As(err, &own):
		code = own.code
	case errors.As(err, &tooLarge):
		text := fmt.Sprintf("the body is larger than the %d bytes allowed here", tooLarge.Limit)
		return status{Code: rpcInvalid, Message: text, Error: text}, http.StatusRequestEntityTooLarge
	case errors.Is(err, store.ErrNotFound):
		code = rpcNotFound
	case errors.Is(err, store.ErrExists):
		code = rpcExists
	case errors.Is(err, store.ErrConflict):
		code = rpcAborted
	case errors.Is(err, problem.ErrInvalid), errors.Is(err, store.ErrInvalid):
		code = rpcInvalid
	case errors.Is(err, store.ErrFull):
		code = rpcUnavailable
	case errors.Is(err, store.ErrClosed):
		code = rpcUnavailable
	}
	answer := status{Code: code, Message: err.Error(), Error: err.Error()}
	if list, refused := errors.AsType[problem.List](err); refused {
		for _, p := range list {
			answer.Details = append(answer.Details, detail{Type: "type.googleapis.com/skiff.dev.Problem",
				Field: p.Field, Line: p.Line, Reason: p.Err.Error(), Hint: p.Hint})
		}
	}
	return answer, httpStatus(code)
}

// maxKeptBody bounds the buffers that are kept: what a page of runs takes that
// has usual pipelines.
const maxKeptBody = 1 << 20

// reply answers with a message or with an error.
func (a *API) reply(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		refusal, code := statusOf(err)
		kube.WriteJSON(w, code, refusal)
		return
	}
	if own, is := answer.(message); is {
		buffer, kept := a.bodies.Get().(*[]byte)
		if !kept {
			buffer = new([]byte)
		}
		body, err := own.appendJSON((*buffer)[:0])
		if err != nil {
			refusal, code := statusOf(err)
			kube.WriteJSON(w, code, refusal)
			return
		}
		kube.WriteBody(w, http.StatusOK, body)
		if cap(body) <= maxKeptBody {
			*buffer = body
			a.bodies.Put(buffer)
		}
		return
	}
	kube.WriteJSON(w, http.StatusOK, answer)
}

// turnDown answers where the server turns a request down before it gets here.
func turnDown(w http.ResponseWriter, code int, _, message string) {
	codes := map[int]int{http.StatusUnauthorized: rpcUnauthenticated, http.StatusForbidden: rpcDenied, http.StatusNotFound: rpcNotFound,
		http.StatusMethodNotAllowed: rpcUnimplemented, http.StatusRequestEntityTooLarge: rpcInvalid, http.StatusUnsupportedMediaType: rpcInvalid,
		http.StatusBadRequest: rpcInvalid}
	kube.WriteJSON(w, code, status{Code: cmp.Or(codes[code], rpcInternal), Message: message, Error: message})
}

// empty is google.protobuf.Empty.
func empty() any { return json.RawMessage(`{}`) }
