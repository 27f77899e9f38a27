package auth

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestPeerOfAnotherPIDNamespace: root in a container that got hold of the socket
// is not trusted. Making a namespace needs root.
func TestPeerOfAnotherPIDNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a pid namespace needs root")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 plays the peer and is not here")
	}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	const script = `import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)`
	for _, tc := range []struct {
		name    string
		command []string
		trusted bool
	}{
		{"here", []string{python, "-c", script, path}, true},
		{"elsewhere", []string{"unshare", "--pid", "--fork", python, "-c", script, path}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), tc.command[0], tc.command[1:]...)
			if err := cmd.Start(); err != nil {
				t.Skipf("start the peer: %v", err)
			}
			if err := listener.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			p, ok := peerFrom(withUnixPeer(t.Context(), conn))
			_ = conn.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("peer: %v", err)
			}
			if !ok || p.trusted != tc.trusted {
				t.Errorf("trusted is %v, want %v", p.trusted, tc.trusted)
			}
		})
	}
}
