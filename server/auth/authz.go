package auth

// Attributes are what one request wants to do, in the terms roles are written in.
type Attributes struct {
	User string
	// Verb is get, list, watch, create, update, patch or delete.
	Verb string
	// Group is the API group, empty for core; Resource the plural.
	Group, Resource, Subresource string
	Namespace, Name              string
}

// Authorizer decides. There is one in a server, and every route but the public
// ones asks it.
type Authorizer interface {
	// Allowed reports whether the request may go on, and where not why.
	Allowed(a Attributes) (ok bool, reason string)
}

// AdminOnly lets the administrator do everything and others nothing.
type AdminOnly struct{}

// Allowed implements Authorizer.
func (AdminOnly) Allowed(a Attributes) (bool, string) {
	if a.User == AdminUser {
		return true, ""
	}
	return false, "only the administrator has access"
}
