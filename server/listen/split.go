package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// firstByteTimeout is how long a new connection may stay silent before it is
// dropped; no client that means to speak waits that long.
const firstByteTimeout = 10 * time.Second

// tlsHandshake is the first byte of every TLS connection and of no HTTP request.
const tlsHandshake = 0x16

// Split answers TLS and plain connections on one listener. What it returns
// hands out a *tls.Conn for the former, so that net/http sees r.TLS and
// negotiates HTTP/2. Where plain is false, connections that do not begin with
// a TLS handshake get a TLS answer, which net/http turns into a clear sentence.
func Split(inner net.Listener, config *tls.Config, plain bool) net.Listener {
	s := &splitListener{
		inner: inner, config: config, plain: plain,
		conns: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{}),
	}
	s.wait.Go(s.accept)
	return s
}

type splitListener struct {
	inner  net.Listener
	config *tls.Config
	plain  bool

	conns  chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
	wait   sync.WaitGroup
}

func (s *splitListener) accept() {
	// A passing fault, such as running out of descriptors, must not end the
	// listener; the pause keeps it from spinning meanwhile.
	const pause = 50 * time.Millisecond
	for {
		conn, err := s.inner.Accept()
		if err == nil {
			s.wait.Go(func() { s.sort(conn) })
			continue
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			s.failed <- err
			return
		}
		select {
		case <-time.After(pause):
		case <-s.closed:
			s.failed <- net.ErrClosed
			return
		}
	}
}

// sort reads the first byte and hands the connection on as what it is.
func (s *splitListener) sort(conn net.Conn) {
	// A close must not wait for a silent client.
	done := make(chan struct{})
	defer close(done)
	s.wait.Go(func() {
		select {
		case <-s.closed:
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		case <-done:
		}
	})
	first := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if _, err := conn.Read(first); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var sorted net.Conn = &peeked{Conn: conn, first: first}
	if first[0] == tlsHandshake || !s.plain {
		sorted = tls.Server(sorted, s.config)
	}
	select {
	case s.conns <- sorted:
	case <-s.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (s *splitListener) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case err := <-s.failed:
		s.failed <- err
		return nil, err
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It returns when no goroutine of the listener
// is left.
func (s *splitListener) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.inner.Close()
	})
	s.wait.Wait()
	return err
}

// Addr implements net.Listener.
func (s *splitListener) Addr() net.Addr { return s.inner.Addr() }

// peeked gives back the byte that was read to look at.
type peeked struct {
	net.Conn
	first []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) == 0 || len(b) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}
