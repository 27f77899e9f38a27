package listen_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/server/listen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers with what the server saw of the request.
func serve(t *testing.T, l net.Listener) {
	t.Helper()
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "plain"
		if r.TLS != nil {
			kind = "tls"
		}
		_, _ = io.WriteString(w, kind+" "+r.Proto)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func get(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func trusting(t *testing.T, stateDir string) *http.Client {
	t.Helper()
	authority, err := os.ReadFile(filepath.Join(stateDir, listen.TLSDir, listen.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestOnePortSpeaksBoth(t *testing.T) {
	dir := t.TempDir()
	config, err := listen.TLSConfig(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listen.Split(inner, config, true))
	client := trusting(t, dir)
	for url, want := range map[string]string{
		"http://" + inner.Addr().String():  "plain HTTP/1.1",
		"https://" + inner.Addr().String(): "tls HTTP/2.0",
		"https://localhost:" + port(inner): "tls HTTP/2.0",
	} {
		if got, err := get(t, client, url); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", url, got, err, want)
		}
	}
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func TestPlainCanBeRefused(t *testing.T) {
	dir := t.TempDir()
	config, err := listen.TLSConfig(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listen.Split(inner, config, false))
	client := trusting(t, dir)
	if got, err := get(t, client, "http://"+inner.Addr().String()); err != nil || !strings.Contains(got, "HTTPS") {
		t.Errorf("%q %v", got, err)
	}
	if got, err := get(t, client, "https://"+inner.Addr().String()); err != nil || !strings.HasPrefix(got, "tls") {
		t.Errorf("%q %v", got, err)
	}
}

// TestASilentClientHoldsNobodyUp: others are served beside it, and the listener
// closes without waiting for it.
func TestASilentClientHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	config, err := listen.TLSConfig(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	split := listen.Split(inner, config, true)
	serve(t, split)
	silent, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if _, err := get(t, trusting(t, dir), "http://"+inner.Addr().String()); err != nil {
		t.Error(err)
	}
	start := time.Now()
	_ = split.Close()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	if _, err := split.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	leaf := func(at time.Time, hosts ...string) string {
		t.Helper()
		config, err := listen.TLSConfig(dir, at, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		return config.Certificates[0].Leaf.SerialNumber.String()
	}
	authority := func() string {
		content, err := os.ReadFile(filepath.Join(dir, listen.TLSDir, listen.CAFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	first, ca := leaf(now), authority()
	if leaf(now) != first {
		t.Error("a second start made another certificate")
	}
	withHost := leaf(now, "box.example")
	if withHost == first {
		t.Error("a new host name did not get into the certificate")
	}
	if leaf(now.Add(820*24*time.Hour), "box.example") == withHost {
		t.Error("a certificate about to end was not renewed")
	}
	if authority() != ca {
		t.Error("the authority changed; everybody who trusts it would have to again")
	}
	for _, name := range []string{"ca.key", "server.key"} {
		info, err := os.Stat(filepath.Join(dir, listen.TLSDir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// TestSocket: short and long folders, a socket left by a daemon that was killed,
// and nothing left after the end.
func TestSocket(t *testing.T) {
	for _, name := range []string{"short", strings.Repeat("long-", 40)} {
		t.Run(name[:5], func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, listen.SocketFile)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := listen.Unix(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, l)
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
				t.Fatalf("%v %v", info, err)
			}
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listen.DialUnix(ctx, dir) }}
			defer transport.CloseIdleConnections()
			if got, err := get(t, &http.Client{Transport: transport}, "http://localhost/"); err != nil || got != "plain HTTP/1.1" {
				t.Errorf("%q %v", got, err)
			}
			_ = l.Close()
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the socket is left: %v", err)
			}
			if _, err := listen.DialUnix(t.Context(), dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("dial: %v", err)
			}
		})
	}
}
