package s3

import (
	"context"
	"net"
	"time"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// busy makes connections that fail when nothing moves on them for idle: a server
// that hangs in the middle of an answer is away, too.
func busy(dial dialFunc, idle time.Duration) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &busyConn{Conn: conn, idle: idle}, nil
	}
}

type busyConn struct {
	net.Conn
	idle time.Duration
}

func (c *busyConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *busyConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
