package host_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// obstacles are what a command may put in the place of a file that the daemon
// is going to read. Each takes the path and a secret's path.
var obstacles = map[string]func(path, secret string) error{
	"symbolic link": func(path, secret string) error { return os.Symlink(secret, path) },
	"hard link":     func(path, secret string) error { return os.Link(secret, path) },
	"fifo":          func(path, _ string) error { return syscall.Mkfifo(path, 0o666) },
	"folder":        func(path, _ string) error { return os.Mkdir(path, 0o777) },
	"socket": func(path, _ string) error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd) //nolint:errcheck // A test's own.
		return syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
	},
	"device": func(path, _ string) error {
		err := syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3)
		if errors.Is(err, syscall.EPERM) {
			return os.Mkdir(path, 0o777) // not root: one obstacle twice
		}
		return err
	},
}

// reads are all the ways in which the daemon reads a control folder. They must
// fail as hostile, or see nothing, and never give the secret or hang.
var reads = map[string]func(b *box) (string, error){
	launch.ExitFile: func(b *box) (string, error) {
		r, _, err := host.ReadExit(b.dir)
		if r != nil {
			return r.Message, err
		}
		return "", err
	},
	launch.LockFile: func(b *box) (string, error) {
		s, err := host.ReadStarted(b.dir)
		if s != nil {
			return s.CommandID, err
		}
		return "", err
	},
	launch.HeldFile: func(b *box) (string, error) {
		if held := host.ReadHeld(b.dir); held != nil {
			return held.Message, nil
		}
		return "", host.ErrHostile // nothing is said of it, whatever it is
	},
	launch.LogPrefix + "0": func(b *box) (string, error) {
		var text strings.Builder
		for e, err := range b.h.OpenLog(b.ctx(), b.dir, host.LogOptions{}) {
			if err != nil {
				return text.String(), err
			}
			text.Write(e.Text)
		}
		return text.String(), nil
	},
	launch.SocketFile: func(b *box) (string, error) {
		c, err := host.Dial(b.ctx(), b.dir)
		if c != nil {
			c.Close()
		}
		return "", err
	},
}

const secretText = `{"version":1,"exitCode":1,"reason":"Error","finishedAt":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:00Z","message":"SECRET","commandID":"SECRET"}` + "\n"

func TestObstaclesInTheWayOfReads(t *testing.T) {
	for file, read := range reads {
		for kind, place := range obstacles {
			if file == launch.SocketFile && kind == "socket" {
				continue // that is what belongs there
			}
			t.Run(file+"/"+kind, func(t *testing.T) {
				b := newBox(t, launch.Config{})
				secret := filepath.Join(filepath.Dir(b.dir), "secret")
				if err := os.WriteFile(secret, []byte(secretText), 0o600); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(b.dir, file)
				if err := place(path, secret); err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					text, err := read(b)
					if !errors.Is(err, host.ErrHostile) {
						t.Errorf("the read ends with %v", err)
					}
					if strings.Contains(text, "SECRET") {
						t.Errorf("it gave away %q", text)
					}
				}()
				select {
				case <-done:
				case <-time.After(deadline):
					t.Fatal("the read hangs")
				}
			})
		}
	}
}

func TestObstacleInTheWayOfTheLock(t *testing.T) {
	for kind, place := range obstacles {
		b := newBox(t, launch.Config{})
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if kind == "hard link" {
			secret = filepath.Join(filepath.Dir(b.dir), "secret")
			if err := os.WriteFile(secret, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := place(filepath.Join(b.dir, launch.LockFile), secret); err != nil {
			t.Fatal(err)
		}
		// Nobody holds it, so it never counts as a living launcher.
		if life, err := host.ReadLife(b.dir); err != nil || life == host.Alive {
			t.Errorf("%s: life %v, %v", kind, life, err)
		}
	}
}

func TestControlFolderReplacedByALink(t *testing.T) {
	b := newBox(t, launch.Config{})
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, launch.ExitFile), []byte(secretText), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, b.dir); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := host.ReadExit(b.dir); ok || !errors.Is(err, host.ErrHostile) {
		t.Errorf("the record behind a link: %v, %v", ok, err)
	}
	if _, err := host.Dial(b.ctx(), b.dir); !errors.Is(err, host.ErrHostile) {
		t.Errorf("dial behind a link: %v", err)
	}
	if err := host.Prepare(filepath.Dir(b.dir), "main", launch.Config{}); !errors.Is(err, host.ErrHostile) {
		t.Errorf("prepare behind a link: %v", err)
	}
}

// TestSwappedSocket puts a link to another service's socket, and that socket
// itself under a second name, in the place of the launcher's.
func TestSwappedSocket(t *testing.T) {
	b := newBox(t, launch.Config{})
	other := filepath.Join(filepath.Dir(b.dir), "other")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Skipf("the temporary folder's path is too long for a socket: %v", err)
	}
	defer l.Close()
	reached := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			_ = c.Close()
		}
	}()
	path := filepath.Join(b.dir, launch.SocketFile)
	for name, place := range map[string]func(string, string) error{"link": os.Symlink, "hard link": os.Link} {
		if err := place(other, path); err != nil {
			t.Fatal(err)
		}
		if _, err := host.Dial(b.ctx(), b.dir); !errors.Is(err, host.ErrHostile) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if len(reached) > 0 {
		t.Error("the other service was dialled")
	}
}

// TestPeerThatIsNoLauncher: a command may listen on the socket itself. All it
// can do is to keep the daemon waiting, for as long as that allows.
func TestPeerThatIsNoLauncher(t *testing.T) {
	for name, say := range map[string]string{
		"rubbish":     "GET / HTTP/1.0\n",
		"no greeting": `{"exited":{"version":1}}` + "\n",
		"two things":  `{"hello":{"version":1},"error":"x"}` + "\n",
		"endless":     strings.Repeat("x", launch.MaxFrame+1),
	} {
		b := newBox(t, launch.Config{})
		l, err := net.Listen("unix", filepath.Join(b.dir, launch.SocketFile))
		if err != nil {
			t.Skipf("the temporary folder's path is too long for a socket: %v", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(say))
			_ = c.Close()
		}()
		if c, err := host.Dial(b.ctx(), b.dir); err == nil {
			c.Close()
			t.Errorf("%s: taken for a launcher", name)
		}
		_ = l.Close()
		<-done
	}
}

func TestLargeRecordIsRefused(t *testing.T) {
	b := newBox(t, launch.Config{})
	f, err := os.Create(filepath.Join(b.dir, launch.ExitFile))
	if err == nil {
		err = f.Truncate(1 << 40) // sparse
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok, err := host.ReadExit(b.dir); ok || !errors.Is(err, host.ErrHostile) {
		t.Errorf("got %v, %v", ok, err)
	}
}

func TestForgedRecordWhileTheLauncherLives(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "exec sleep 600")
	forged := `{"version":1,"commandID":"a","exitCode":0,"reason":"Completed","finishedAt":"2026-01-01T00:00:00Z"}`
	if err := os.WriteFile(filepath.Join(b.dir, launch.ExitFile), []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	// It does not count as the end while its launcher lives.
	if s, begun, err := host.ReadStatus(b.dir); err != nil || !begun || s.Final() {
		t.Errorf("got %+v, %v, %v", s, begun, err)
	}
	if err := b.h.Stop(b.ctx(), b.dir, 0); err != nil {
		t.Fatal(err)
	}
	_, last := b.end()
	if last.Exit == nil || last.Exit.Reason != launch.ReasonStopped {
		t.Errorf("got %+v", last.Exit)
	}
}

func TestOpenBeneath(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"a/b/file": "in", "top": "top"} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"a/abs": "/etc/hostname", "a/up": "../top", "dir": "a"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := host.Open(root, "a/b/file")
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, bad := range []string{"a/abs", "a/up", "dir/b/file", "../" + filepath.Base(root) + "/top", "/etc/hostname", "a", "a/../top/../../x"} {
		if f, err := host.Open(root, bad); err == nil {
			_ = f.Close()
			t.Errorf("%s was opened", bad)
		}
	}
}
