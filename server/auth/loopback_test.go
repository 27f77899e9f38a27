package auth

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clients play callers: python3 opens a connection and holds it until it reads
// the end of its input.
const connect = `import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sys.stdin.read()`

// connectMapped does so over a socket of the other family.
const connectMapped = `import socket, sys
s = socket.socket(socket.AF_INET6)
s.connect(("::ffff:" + sys.argv[1], int(sys.argv[2])))
sys.stdin.read()`

// connectAndClose leaves an orphan: bytes arrive, the socket is nobody's.
const connectAndClose = `import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.send(b"GET")
s.close()
sys.stdin.read()`

// connectInFlight sends the only descriptor away, into a queue that no process
// reads.
const connectInFlight = `import array, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
a, b = socket.socketpair()
a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
s.close()
sys.stdin.read()`

// passedOn lets a child in another pid namespace hold the socket, too.
const passedOn = `import os, socket, subprocess, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
os.set_inheritable(s.fileno(), True)
p = subprocess.Popen(["unshare", "--pid", "--fork", "cat"], stdin=sys.stdin, stdout=subprocess.PIPE, close_fds=False)
p.wait()`

// accept starts a client and returns its connection once it is there and, for
// clients that do something after connecting, the time that takes has passed.
func accept(t *testing.T, listener net.Listener, command ...string) (server, client netip.AddrPort) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("start a client: %v", err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
}

// newTestLoopback takes this process for no daemon, since its clients are its
// children.
func newTestLoopback(t *testing.T, cfg LoopbackConfig) *Loopback {
	t.Helper()
	l, err := NewLoopback(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.holders.self = -1
	return l
}

func listenOn(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("this machine has no such address: %v", err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func TestLoopbackIdentity(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 plays the clients and is not here")
	}
	if err := Probe(t.Context()); err != nil {
		t.Skipf("this kernel does not list sockets: %v", err)
	}
	root := os.Geteuid() == 0
	for _, tc := range []struct {
		name, listen, dial string
		before             []string
		script             string
		cfg                LoopbackConfig
		root               bool
		refusal            string
	}{
		{name: "IPv4", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connect},
		{name: "another address of the loopback", listen: "0.0.0.0:0", dial: "127.3.2.1", script: connect},
		{name: "IPv6", listen: "[::1]:0", dial: "::1", script: connect},
		{name: "both families", listen: "[::]:0", dial: "127.0.0.1", script: connect},
		{name: "mapped", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connectMapped},
		{name: "mapped on both sides", listen: "[::]:0", dial: "127.0.0.1", script: connectMapped},
		{name: "another user", listen: "127.0.0.1:0", dial: "127.0.0.1", root: true,
			before: asNobody(), refusal: "another user"},
		{name: "a user that is listed", listen: "127.0.0.1:0", dial: "127.0.0.1", root: true,
			cfg: LoopbackConfig{Users: map[uint32]string{65534: AdminUser}}, before: asNobody()},
		{name: "a pid namespace", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connect, root: true,
			before: []string{"unshare", "--pid", "--fork"}, refusal: "container or sandbox"},
		{name: "a user namespace", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connect, root: true,
			before: []string{"unshare", "--user", "--map-root-user"}, refusal: "container or sandbox"},
		{name: "passed on to a container", listen: "127.0.0.1:0", dial: "127.0.0.1", script: passedOn, root: true, refusal: "container or sandbox"},
		{name: "sent away", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connectInFlight, refusal: "no process"},
		{name: "closed", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connectAndClose, refusal: "no open socket"},
		{name: "a step's control group", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connect,
			cfg: LoopbackConfig{Contained: func(cgroup string) bool { return strings.Contains(cgroup, ":/") }}, refusal: "is a step"},
		{name: "below a launcher", listen: "127.0.0.1:0", dial: "127.0.0.1", script: connect,
			cfg: LoopbackConfig{Launchers: folderOfThisProgram(t)}, refusal: "started by skiff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.root && !root {
				t.Skip("playing somebody else needs root")
			}
			listener := listenOn(t, tc.listen)
			_, port, err := net.SplitHostPort(listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			client := []string{python, "-c", tc.script, tc.dial, port}
			if tc.script == "" {
				client = []string{tc.dial, port}
			}
			serverEnd, clientEnd := accept(t, listener, append(tc.before, client...)...)
			l := newTestLoopback(t, tc.cfg)
			if tc.refusal == "" {
				if user, err := l.Identify(serverEnd, clientEnd); err != nil || user != AdminUser {
					t.Errorf("got %q %v", user, err)
				}
				return
			}
			// What a client does after it has connected shows a moment later.
			deadline := time.Now().Add(20 * time.Second)
			for {
				user, err := l.Identify(serverEnd, clientEnd)
				if err != nil && strings.Contains(err.Error(), tc.refusal) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("got %q %v, want a refusal for %q", user, err, tc.refusal)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// asNobody is a client of another user, who may not reach this user's python3.
func asNobody() []string {
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"bash", "-c", `exec 3<>"/dev/tcp/$0/$1"; cat`}
}

func folderOfThisProgram(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path[:strings.LastIndexByte(path, '/')]
}

// TestTheDaemonIsNoCaller: what the daemon itself opens is nobody's, and neither
// is a connection of addresses that no socket has, or from off the loopback.
func TestTheDaemonIsNoCaller(t *testing.T) {
	if err := Probe(t.Context()); err != nil {
		t.Skipf("this kernel does not list sockets: %v", err)
	}
	listener := listenOn(t, "127.0.0.1:0")
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	l, err := NewLoopback(LoopbackConfig{})
	if err != nil {
		t.Fatal(err)
	}
	server, client := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	for name, tc := range map[string]struct{ server, client netip.AddrPort }{
		"itself":      {server, client},
		"no socket":   {server, netip.AddrPortFrom(client.Addr(), 1)},
		"a listener":  {client, server},
		"off":         {server, netip.MustParseAddrPort("192.0.2.1:5")},
		"no address":  {server, netip.AddrPort{}},
		"other port":  {netip.AddrPortFrom(server.Addr(), 1), client},
		"other local": {netip.MustParseAddrPort("127.0.0.9:80"), client},
	} {
		if user, err := l.Identify(tc.server, tc.client); err == nil || user != "" {
			t.Errorf("%s: %q %v", name, user, err)
		}
	}
}

// FuzzParseDiag: whatever comes back, the only owner is one of those addresses.
func FuzzParseDiag(f *testing.F) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:7433")
	f.Add(make([]byte, unix.SizeofNlMsghdr+inetDiagMsgLen))
	if reply, err := askDiag(diagRequest(local, remote)); err == nil {
		f.Add(reply)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		owner, err := parseDiag(reply, local, remote)
		if err == nil && (owner.inode == 0 || reply[unix.SizeofNlMsghdr+1] != tcpEstablished) {
			t.Errorf("%+v of %x", owner, reply)
		}
	})
}

// stub knows one caller.
type stub struct{ asked int }

func (s *stub) Identify(_, _ netip.AddrPort) (string, error) {
	s.asked++
	return AdminUser, nil
}

type conn struct{ net.Conn }

func (conn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7433} }
func (conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4000} }

// TestCarriedRequests: a request that somebody else had sent is not known by the
// connection that it came on.
func TestCarriedRequests(t *testing.T) {
	s := &stub{}
	authn := NewAuthenticator("skf_right", s)
	ctx := authn.ConnContext(context.Background(), conn{})
	for _, tc := range []struct {
		header, value string
		refused       bool
	}{
		{"User-Agent", "curl/8", false},
		{"Sec-Fetch-Site", "same-origin", false},
		{"Sec-Fetch-Site", "none", false},
		{"Origin", "http://127.0.0.1:7433", false},
		{"Referer", "http://127.0.0.1:7433/runs", false},
		{"Forwarded", "for=192.0.2.1", true},
		{"Via", "1.1 proxy", true},
		{"X-Real-IP", "192.0.2.1", true},
		{"x-forwarded-for", "127.0.0.1", true},
		{"X-Forwarded-Anything", "", true},
		{"Sec-Fetch-Site", "cross-site", true},
		{"Sec-Fetch-Site", "same-site", true},
		{"Sec-Fetch-Site", "", true},
		{"Origin", "null", true},
		{"Origin", "http://127.0.0.1:8888", true},
		{"Referer", "https://evil.example/", true},
		{"Referer", "\x00", true},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.header, tc.value), func(t *testing.T) {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:7433/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header[http.CanonicalHeaderKey(tc.header)] = []string{tc.value}
			id, err := authn.Authenticate(r)
			if tc.refused != (err != nil) || (err == nil && id != Identity{User: AdminUser, Via: "loopback"}) {
				t.Errorf("got %+v %v", id, err)
			}
		})
	}
	if s.asked != 1 {
		t.Errorf("the connection was looked up %d times", s.asked)
	}
}
