package server

import (
	"context"
	"net"
)

// ConnContext is what Serve notes on a connection.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return s.authn.ConnContext(ctx, c)
}
