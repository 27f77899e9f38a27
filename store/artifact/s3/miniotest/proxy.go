package miniotest

import (
	"net"
	"sync"
	"testing"
)

// Direction is which way bytes go through a proxy.
type Direction int

// The directions.
const (
	Up   Direction = iota // to the server
	Down                  // to the client
)

// Proxy stands before a server. Tamper, where set, is called with each piece
// that passes, may change it, and ends the connection by answering false.
type Proxy struct {
	// Host is the proxy's HOST:PORT.
	Host string

	server string
	l      net.Listener
	mu     sync.Mutex
	tamper func(d Direction, passed int64, p []byte) bool
	conns  map[net.Conn]struct{}
	busy   sync.WaitGroup
}

// NewProxy begins one before a server. It ends with the test.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Host: l.Addr().String(), server: server, l: l, conns: map[net.Conn]struct{}{}}
	p.busy.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.busy.Wait()
	})
	return p
}

// Tamper sets what is done to what passes; nil for nothing. passed counts a
// connection's bytes of that direction before this piece.
func (p *Proxy) Tamper(f func(d Direction, passed int64, piece []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper = f
}

// Cut ends every connection that is open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.busy.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(Up, server, client) })
	both.Go(func() { p.copy(Down, client, server) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// copy passes one direction on; when it ends, so does the other.
func (p *Proxy) copy(d Direction, to, from net.Conn) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 32<<10)
	var passed int64
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			tamper := p.tamper
			p.mu.Unlock()
			if tamper != nil && !tamper(d, passed, buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			passed += int64(n)
		}
		if err != nil {
			return
		}
	}
}
