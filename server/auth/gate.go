package auth

import (
	"context"
	"fmt"
	"net/http"
)

// Denied is the authorizer's no.
type Denied struct{ Reason string }

// Error implements error.
func (d *Denied) Error() string { return "forbidden: " + d.Reason }

// Gate asks the authorizer on behalf of one request, for a handler that alone
// learns which object in which namespace the request is about: by looking an id
// up, or from the body. Such a handler asks before it does or tells anything;
// Settle answers for one that never came to ask.
type Gate struct {
	authorizer Authorizer
	attributes Attributes
	asked      bool
}

type gateKey struct{}

// Allow asks about an object of the route's resource; the name is empty for a
// list and for what is to be made, the namespace for everywhere.
func (g *Gate) Allow(namespace, name string) error {
	a := g.attributes
	a.Namespace, a.Name = namespace, name
	return g.ask(a)
}

// AllowOther asks about an object of another resource that the request draws
// on, as a run does on a pipeline.
func (g *Gate) AllowOther(verb, resource, namespace, name string) error {
	a := g.attributes
	a.Verb, a.Resource, a.Subresource, a.Namespace, a.Name = verb, resource, "", namespace, name
	return g.ask(a)
}

func (g *Gate) ask(a Attributes) error {
	g.asked = true
	if ok, reason := g.authorizer.Allowed(a); !ok {
		return &Denied{Reason: reason}
	}
	return nil
}

// WithGate gives a request's handler its gate; the attributes are the route's.
func WithGate(r *http.Request, authorizer Authorizer, attributes Attributes) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), gateKey{}, &Gate{authorizer: authorizer, attributes: attributes}))
}

// GateFrom is the request's gate. Without one nothing is allowed.
func GateFrom(ctx context.Context) *Gate {
	if gate, ok := ctx.Value(gateKey{}).(*Gate); ok {
		return gate
	}
	return &Gate{authorizer: shut{}}
}

// shut allows nothing.
type shut struct{}

// Allowed implements Authorizer.
func (shut) Allowed(a Attributes) (bool, string) {
	return false, fmt.Sprintf("nobody was asked about %s %s", a.Verb, a.Resource)
}

// Settle ends a handler that asks at its gate: err is what it came to. One that
// ended before it knew what the request is about (a body that is no JSON, an id
// that nothing has) says so only to those who may do such a thing everywhere.
func (g *Gate) Settle(err error) error {
	if g.asked {
		return err
	}
	if denied := g.Allow("", ""); denied != nil {
		return denied
	}
	return err
}
