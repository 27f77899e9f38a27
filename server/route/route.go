// Package route declares what an endpoint is: its pattern, what it does to
// which resource, and its handler. Rooms of the server return routes; package
// server alone mounts them, behind the same checks for every one.
//
// It is a leaf: it imports the standard library only.
package route

import (
	"net/http"
	"time"
)

// Route is one endpoint.
type Route struct {
	// Method and Path are a pattern of net/http's ServeMux.
	Method, Path string
	// Verb, Group, Resource and Subresource are what the authorizer is asked
	// about; the namespace and the name come from the path, unless Asks is set.
	Verb, Group, Resource, Subresource string
	// Asks says that the handler asks the authorizer itself, at the gate of its
	// request (auth.GateFrom), since it alone learns which object the request is
	// about; the verb and the resource are the route's.
	Asks bool
	// Public routes need no identity.
	Public bool
	// Stream routes last until the client leaves; they end when the server
	// shuts down instead of holding it up.
	Stream bool
	// Accepts lists the content types of a body; nil means there is none.
	Accepts []string
	// MaxBody is the most bytes of a body; 0 means DefaultMaxBody.
	MaxBody int64
	// LongBody, where set, is how long a body may stand still; it may take as
	// long as it comes. Others have one deadline for all of it.
	LongBody time.Duration
	// Refuse answers where a check turns a request down; nil answers as the
	// Kubernetes API does. reason is a word of its (Unauthorized, Forbidden, …).
	Refuse  func(w http.ResponseWriter, code int, reason, message string)
	Handler http.Handler
}

// DefaultMaxBody fits any object that the store keeps, many times over.
const DefaultMaxBody = 4 << 20

// Pattern is the route's pattern for a ServeMux.
func (r Route) Pattern() string { return r.Method + " " + r.Path }
