package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/server/auth"
)

const runsPath = "/apis/skiff.dev/v1alpha1/namespaces/default/runs"

// status asks the daemon for its runs, without a token, and returns the code.
func (d *daemon) status(scheme string, change func(*http.Request)) int {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, scheme+"://"+d.addr+runsPath, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	// Whose certificate it is is tested elsewhere.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// requiresLookups skips where the kernel does not list sockets.
func requiresLookups(t *testing.T) {
	t.Helper()
	if err := auth.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
}

// askPython is a caller without a token: it prints the code that it is answered.
const askPython = `import sys, urllib.error, urllib.request
try: print("code", urllib.request.urlopen(sys.argv[1]).status)
except urllib.error.HTTPError as e: print("code", e.code)`

// TestLoopbackNeedsNoToken: a program of the daemon's user needs none, over HTTP
// and HTTPS; another user, a request that was passed on, a web page and a step do.
func TestLoopbackNeedsNoToken(t *testing.T) {
	requiresLookups(t)
	d := newDaemon(t, "--runtime", "process")
	for _, scheme := range []string{"http", "https"} {
		for name, tc := range map[string]struct {
			change func(*http.Request)
			want   int
		}{
			"user":           {nil, http.StatusOK},
			"proxy":          {func(r *http.Request) { r.Header.Set("Forwarded", "for=127.0.0.1") }, http.StatusUnauthorized},
			"foreign page":   {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusUnauthorized},
			"foreign origin": {func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }, http.StatusUnauthorized},
			"rebound name":   {func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
			"wrong token":    {func(r *http.Request) { r.Header.Set("Authorization", "Bearer skf_no") }, http.StatusUnauthorized},
		} {
			if got := d.status(scheme, tc.change); got != tc.want {
				t.Errorf("%s, %s: %d, want %d", scheme, name, got, tc.want)
			}
		}
	}
	t.Run("a step", func(t *testing.T) { d.askFromStep(t) })
	t.Run("another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("playing another user needs root")
		}
		const ask = `exec 3<>"/dev/tcp/$0/$1"; printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3; head -1 <&3`
		host, port, _ := strings.Cut(d.addr, ":")
		out, err := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
			"bash", "-c", ask, host, port, runsPath).CombinedOutput()
		if err != nil || !strings.Contains(string(out), " 401 ") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// askFromStep runs a step that calls the daemon and expects that it is nobody.
func (d *daemon) askFromStep(t *testing.T) {
	t.Helper()
	const pipeline = `components: {comp-ask: {executorLabel: exec-ask}}
deploymentSpec:
  executors:
    exec-ask:
      container:
        image: 'python:3.11'
        command: [python3, -c, %q, %q]
pipelineInfo: {name: ask}
root:
  dag:
    tasks:
      ask: {componentRef: {name: comp-ask}, taskInfo: {name: ask}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
`
	file := filepath.Join(t.TempDir(), "ask.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, pipeline, askPython, "http://"+d.addr+runsPath), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	doc := document(t, d.skiff(ctx, "run", file, "-o", "json"))
	logs := d.skiff(ctx, "logs", doc.RunID+"/ask")
	if doc.State != "SUCCEEDED" || !strings.Contains(logs.stdout, "code 401") {
		t.Errorf("state %s: %s\n%s%s", doc.State, doc.Message, logs.stdout, logs.stderr)
	}
}

// TestLoopbackAuthOff: everyone needs the token then.
func TestLoopbackAuthOff(t *testing.T) {
	d := newDaemon(t, "--runtime", "process", "--loopback-auth", "off")
	if got := d.status("http", nil); got != http.StatusUnauthorized {
		t.Errorf("without a token: %d", got)
	}
	token, err := os.ReadFile(filepath.Join(d.state, auth.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	with := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token))) }
	if got := d.status("http", with); got != http.StatusOK {
		t.Errorf("with the token: %d", got)
	}
}
