package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
)

// LoopbackConfig is what a Loopback needs.
type LoopbackConfig struct {
	// Users maps further uids to the names that roles are bound to. Only a
	// daemon that runs as root can look at processes of others. The daemon's
	// own uid is the administrator without being listed.
	Users map[uint32]string
	// Launchers is the folder that launchers are started from.
	Launchers string
	// Contained reports whether the contents of a /proc/PID/cgroup are those
	// of a step; nil where none ever is.
	Contained func(cgroup string) bool
}

// Loopback knows callers on the loopback by the uid that owns their socket. A
// connection whose caller it cannot tell for certain belongs to nobody.
type Loopback struct {
	users   map[uint32]string
	holders *holders
	// one lookup at a time: a process that opens connections in a loop shall
	// not keep more than one processor busy with them.
	one sync.Mutex
}

// NewLoopback fails where the machine's /proc does not tell about processes.
func NewLoopback(cfg LoopbackConfig) (*Loopback, error) {
	h, err := newHolders(cfg.Launchers, cfg.Contained)
	if err != nil {
		return nil, fmt.Errorf("know callers on the loopback: %w", err)
	}
	users := map[uint32]string{uint32(os.Geteuid()): AdminUser}
	maps.Copy(users, cfg.Users)
	return &Loopback{users: users, holders: h}, nil
}

// Identify implements Peers.
func (l *Loopback) Identify(server, client netip.AddrPort) (string, error) {
	if !server.Addr().Unmap().IsLoopback() || !client.Addr().Unmap().IsLoopback() {
		return "", errors.New("the connection does not come over the loopback")
	}
	// The client's socket is the one whose own address is the client's.
	owner, err := ownerOf(client, server)
	if err != nil {
		return "", err
	}
	user, known := l.users[owner.uid]
	if !known {
		return "", errors.New("the connection belongs to another user of this machine")
	}
	l.one.Lock()
	defer l.one.Unlock()
	if err := l.holders.check(owner); err != nil {
		return "", err
	}
	return user, nil
}

// Probe makes a connection over the loopback and looks it up, to tell whether
// this machine's kernel answers at all.
func Probe(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("probe the loopback: %w", err)
	}
	defer func() { _ = listener.Close() }()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return fmt.Errorf("probe the loopback: %w", err)
	}
	defer func() { _ = conn.Close() }()
	owner, err := ownerOf(addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr()))
	if err == nil && owner.uid != uint32(os.Geteuid()) {
		err = fmt.Errorf("the kernel lists uid %d for a socket of uid %d", owner.uid, os.Geteuid())
	}
	if err != nil {
		return fmt.Errorf("probe the loopback: %w", err)
	}
	return nil
}

// addrPort is the zero value, which is no loopback address, for other networks.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return tcp.AddrPort()
}

// Peers says who is at the other end of a TCP connection.
type Peers interface {
	// Identify returns the name that roles are bound to of whoever opened the
	// connection from client to server. An error says why that is nobody; its
	// text is shown to the caller.
	Identify(server, client netip.AddrPort) (user string, err error)
}

type tcpPeerKey struct{}

// identify is done once for a connection, at its first request that shows no
// token.
type identify func() (string, error)

// withTCPPeer notes on a TCP connection how to find who opened it.
func withTCPPeer(ctx context.Context, peers Peers, c net.Conn) context.Context {
	if _, ok := c.LocalAddr().(*net.TCPAddr); !ok || peers == nil {
		return ctx
	}
	server, client := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	return context.WithValue(ctx, tcpPeerKey{}, identify(sync.OnceValues(func() (string, error) {
		return peers.Identify(server, client)
	})))
}

// carried says why a request may not be known by its connection: somebody
// passed it on, or a page of another site had a browser send it.
func carried(r *http.Request) error {
	for name := range r.Header {
		// net/http has made the names canonical.
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return fmt.Errorf("the request came through a proxy (%s)", name)
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return fmt.Errorf("the request comes from a web page (Sec-Fetch-Site: %s)", site)
		}
	}
	for _, header := range []string{"Origin", "Referer"} {
		for _, value := range r.Header.Values(header) {
			from, err := url.Parse(value)
			if err != nil || from.Host == "" || !strings.EqualFold(from.Host, r.Host) {
				return fmt.Errorf("the request comes from a web page (%s)", header)
			}
		}
	}
	return nil
}
