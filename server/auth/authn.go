package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	// Via says how they proved it: "token", "socket" or "loopback".
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
	peers Peers
}

// NewAuthenticator knows the administrator by their token, and callers on TCP
// by what peers says of their connections; nil means that they need a token.
func NewAuthenticator(adminToken string, peers Peers) *Authenticator {
	return &Authenticator{admin: hashToken(adminToken), peers: peers}
}

// ConnContext is for http.Server's field of that name: it notes on each
// connection what is to be known of its other end.
func (a *Authenticator) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return withTCPPeer(withUnixPeer(ctx, c), a.peers, c)
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
	p, onSocket := peerFrom(r.Context())
	find, onTCP := r.Context().Value(tcpPeerKey{}).(identify)
	if (!onSocket || !p.trusted) && !onTCP {
		return Identity{}, ErrUnauthenticated
	}
	// Whoever is known without showing anything could be made to call by others.
	if err := carried(r); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	if onSocket {
		return Identity{User: AdminUser, Via: "socket"}, nil
	}
	user, err := find()
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return Identity{User: user, Via: "loopback"}, nil
}
