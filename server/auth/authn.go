package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// ErrUnauthenticated says that the caller is nobody that skiff knows.
var ErrUnauthenticated = errors.New("no valid credentials; send the header \"Authorization: Bearer TOKEN\" " +
	"with the token that is in admin.token in the state folder")

// Identity is who calls.
type Identity struct {
	// User is the name that roles are bound to.
	User string
	// Via says how they proved it: "token" or "socket".
	Via string
}

// AdminUser is the name behind the administrator's token and behind a process
// of the daemon's own user on its socket.
const AdminUser = "admin"

type identityKey struct{}

// WithIdentity carries the caller in a request's context.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityFrom is the caller of a request that went through authentication.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// Authenticator turns a request into an identity.
type Authenticator struct {
	admin tokenHash
}

// NewAuthenticator knows the administrator by their token.
func NewAuthenticator(adminToken string) *Authenticator {
	return &Authenticator{admin: hashToken(adminToken)}
}

// Authenticate says who sent r. A token that is sent decides alone: a wrong one
// is refused even where the connection itself would be trusted.
func (a *Authenticator) Authenticate(r *http.Request) (Identity, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if strings.EqualFold(scheme, "Bearer") && a.admin.matches(strings.TrimSpace(token)) {
			return Identity{User: AdminUser, Via: "token"}, nil
		}
		return Identity{}, ErrUnauthenticated
	}
	if peer, ok := peerFrom(r.Context()); ok && peer.trusted {
		return Identity{User: AdminUser, Via: "socket"}, nil
	}
	return Identity{}, ErrUnauthenticated
}
