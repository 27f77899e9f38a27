package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/store"
)

// Debug implements server.Pods.
func (r *rooms) Debug(_ context.Context, _, name string, _ bool) (*server.DebugPod, error) {
	if _, known := r.logs[name]; !known {
		return nil, fmt.Errorf("pod %s: %w", name, store.ErrNotFound)
	}
	return &server.DebugPod{Pod: "debug-" + name, Image: "python:3.11", Command: []string{"true"}}, nil
}

// Exec implements server.Pods: it plays a few commands.
func (r *rooms) Exec(ctx context.Context, _, name, container string, req server.ExecRequest) (int, error) {
	if name != "p" {
		return 0, fmt.Errorf("pod %s: %w", name, store.ErrNotFound)
	}
	switch req.Argv[0] {
	case "cat":
		lines := bufio.NewScanner(req.Stdin)
		for lines.Scan() {
			_, _ = fmt.Fprintf(req.Stdout, "%s\n", lines.Text())
		}
		_, _ = fmt.Fprintf(req.Stderr, "end of %s %s\n", container, strings.Join(req.Argv, " "))
		return 0, nil
	case "size":
		size := <-req.Resize
		_, _ = fmt.Fprintf(req.Stdout, "%dx%d", size.Width, size.Height)
		return 3, nil
	case "none":
		return 127, errors.New("no such program")
	case "wait":
		_, _ = io.WriteString(req.Stdout, "begun")
		<-ctx.Done()
		close(r.gate)
		return 0, context.Cause(ctx)
	}
	return 0, nil
}

// dial opens an exec on a server that listens.
func dial(t *testing.T, address, path string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"v5.channel.k8s.io"}, HandshakeTimeout: 10 * time.Second}
	conn, res, err := dialer.DialContext(withTimeout(t), "ws://"+address+"/api/v1/namespaces/default/pods/"+path, header)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	}
	return conn, res, err
}

// serving lets the fixture listen until the returned function has ended it.
func serving(t *testing.T, f *fixture) (address string, end func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, listener) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return listener.Addr().String(), end
}

func withToken() http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// rest reads what comes until the Status, by channel.
func rest(t *testing.T, conn *websocket.Conn) (streams map[byte]string, status kube.Status) {
	t.Helper()
	streams = map[byte]string{}
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if message[0] == server.ChannelError {
			if err := json.Unmarshal(message[1:], &status); err != nil {
				t.Fatal(err)
			}
			return streams, status
		}
		streams[message[0]] += string(message[1:])
	}
}

func TestExec(t *testing.T) {
	f := newFixture(t)
	address, _ := serving(t, f)
	send := func(conn *websocket.Conn, channel byte, content string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, content...)); err != nil {
			t.Fatal(err)
		}
	}

	conn, _, err := dial(t, address, "p/exec?container=c&command=cat&command=-n&stdin=true&stdout=true&stderr=true", withToken())
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Subprotocol(); got != "v5.channel.k8s.io" {
		t.Errorf("subprotocol %q", got)
	}
	send(conn, server.ChannelStdin, "one\n")
	send(conn, server.ChannelStdin, "two\n")
	send(conn, server.ChannelClose, "\x00")
	streams, status := rest(t, conn)
	if streams[server.ChannelStdout] != "one\ntwo\n" || streams[server.ChannelStderr] != "end of c cat -n\n" || status.Status != "Success" {
		t.Errorf("%q %+v", streams, status)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("close: %v", err)
	}

	conn, _, err = dial(t, address, "p/exec?command=size&stdout=true&tty=true", withToken())
	if err != nil {
		t.Fatal(err)
	}
	send(conn, server.ChannelResize, `{"Width":80,"Height":25}`)
	streams, status = rest(t, conn)
	if streams[server.ChannelStdout] != "80x25" || status.Reason != "NonZeroExitCode" || status.Details.Causes[0] != (kube.StatusCause{Reason: "ExitCode", Message: "3"}) {
		t.Errorf("%q %+v", streams, status)
	}

	conn, _, err = dial(t, address, "p/exec?command=none&stdout=true", withToken())
	if err != nil {
		t.Fatal(err)
	}
	if _, status = rest(t, conn); status.Message != "no such program" || status.Details.Causes[0].Message != "127" {
		t.Errorf("%+v", status)
	}

	conn, _, err = dial(t, address, "other/exec?command=true", withToken())
	if err != nil {
		t.Fatal(err)
	}
	if _, status = rest(t, conn); status.Status != "Failure" || status.Reason != "NotFound" {
		t.Errorf("%+v", status)
	}
}

// TestExecIsRefused: before any command runs.
func TestExecIsRefused(t *testing.T) {
	f := newFixture(t)
	address, _ := serving(t, f)
	for _, tc := range []struct {
		name, path string
		header     http.Header
		want       int
	}{
		{"nobody", "p/exec?command=true", nil, http.StatusUnauthorized},
		{"wrong token", "p/exec?command=true", http.Header{"Authorization": {"Bearer no"}}, http.StatusUnauthorized},
		{"no command", "p/exec", withToken(), http.StatusBadRequest},
		{"another site's page", "p/exec?command=true", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"https://evil.example"}}, http.StatusForbidden},
	} {
		_, res, err := dial(t, address, tc.path, tc.header)
		if err == nil || res == nil || res.StatusCode != tc.want {
			t.Errorf("%s: %v %v, want %d", tc.name, res, err, tc.want)
		}
	}
	w := f.do(http.MethodGet, "/api/v1/namespaces/default/pods/p/exec?command=true", nil, bearer(token))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "WebSocket") {
		t.Errorf("without an upgrade: %d %s", w.Code, w.Body)
	}
}

// TestExecEndsWithItsClient, and with the server.
func TestExecEndsWithItsClient(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			f := newFixture(t)
			f.rooms.gate = make(chan struct{})
			address, end := serving(t, f)
			conn, _, err := dial(t, address, "p/exec?command=wait&stdout=true", withToken())
			if err != nil {
				t.Fatal(err)
			}
			if _, message, err := conn.ReadMessage(); err != nil || string(message[1:]) != "begun" {
				t.Fatalf("%q %v", message, err)
			}
			if who == "client" {
				_ = conn.Close()
			} else {
				end()
			}
			select {
			case <-f.rooms.gate:
			case <-withTimeout(t).Done():
				t.Fatal("the command goes on")
			}
		})
	}
}

func TestDebugTask(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", "SUCCEEDED")
	const tasks = "/apis/skiff.dev/v1alpha1/namespaces/default/tasks/"
	w := f.do(http.MethodPost, tasks+"r1-prepare/debug", nil, bearer(token))
	var made server.DebugPod
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusCreated || made.Pod != "debug-r1-pod" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for path, want := range map[string]int{"r1-train/debug": http.StatusBadRequest, "none/debug": http.StatusNotFound} {
		if w := f.do(http.MethodPost, tasks+path, nil, bearer(token)); w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}
