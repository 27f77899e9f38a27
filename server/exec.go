package server

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/store"
)

// Pods runs commands in pods.
type Pods interface {
	// Debug makes a pod like the one of that name, in which nothing runs but a
	// wait, and tells the command that the original ran. Where the original has
	// failed and is kept, it is that one, unless fresh is asked for.
	Debug(ctx context.Context, namespace, name string, fresh bool) (*DebugPod, error)
	// Exec runs a command in a running container (empty: the pod's first) and
	// returns its exit code.
	Exec(ctx context.Context, namespace, name, container string, req ExecRequest) (exitCode int, err error)
}

// DebugPod is the answer to a request to debug a task.
type DebugPod struct {
	Pod     string   `json:"pod"`
	Image   string   `json:"image"`
	Command []string `json:"command"`
	// Kept: the pod is the step's own, whose command has failed. Nothing was made,
	// and nothing is to be removed.
	Kept bool `json:"kept,omitempty"`
	// Missing says of each input whose contents are gone why that is.
	Missing []string `json:"missing,omitempty"`
}

// ExecRequest is a command and its streams; a nil Stdin is an empty one.
type ExecRequest struct {
	Argv           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// TTY asks for a terminal; Resize then carries its sizes.
	TTY    bool
	Resize <-chan TerminalSize
}

// TerminalSize is in characters; the JSON names are those of the protocol.
type TerminalSize struct{ Width, Height uint16 }

// The subprotocols of Kubernetes' exec over WebSocket: binary messages whose
// first byte is the channel. Version 5 can also close a channel.
const (
	ExecProtocol5 = "v5.channel.k8s.io"
	ExecProtocol4 = "v4.channel.k8s.io"
)

// The channels.
const (
	ChannelStdin byte = iota
	ChannelStdout
	ChannelStderr
	// ChannelError carries one Status when the command has ended.
	ChannelError
	ChannelResize
	// ChannelClose names the channel that ends in its second byte.
	ChannelClose byte = 255
)

const (
	// maxFrame bounds one message of a client; what it reads from a terminal or
	// a file comes in far smaller pieces.
	maxFrame = 1 << 20
	// frameTimeout drops a client that does not read.
	frameTimeout = time.Minute
)

// podExec runs a command in a pod, by the published protocol, so that other
// clients of it work as well.
func (s *Server) podExec(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	req := ExecRequest{Argv: query["command"], TTY: isTrue(query.Get("tty"))}
	if len(req.Argv) == 0 {
		kube.WriteError(w, kube.BadRequest("there is no command; name it and its arguments by \"command\" in the query"))
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		kube.WriteError(w, kube.BadRequest("exec speaks WebSocket with the subprotocol %s", ExecProtocol5))
		return
	}
	// Who calls, and from which page, has been checked as for every route; this
	// holds the origin to the host once more.
	upgrader := websocket.Upgrader{Subprotocols: []string{ExecProtocol5, ExecProtocol4}, HandshakeTimeout: headerTimeout}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	e := &execConn{conn: conn}
	stdin, typed := io.Pipe()
	resize := make(chan TerminalSize, 1)
	if isTrue(query.Get("stdin")) {
		req.Stdin = stdin
	}
	req.Resize = resize
	if isTrue(query.Get("stdout")) {
		req.Stdout = e.channel(ChannelStdout)
	}
	if isTrue(query.Get("stderr")) && !req.TTY {
		req.Stderr = e.channel(ChannelStderr)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		cancel(e.read(typed, resize))
		_ = typed.Close()
	})
	code, err := s.cfg.Pods.Exec(ctx, r.PathValue("namespace"), r.PathValue("name"), query.Get("container"), req)
	_ = stdin.Close()
	e.end(code, err)
	_ = conn.Close()
	reading.Wait()
}

// execConn is one exec's connection.
type execConn struct {
	conn *websocket.Conn
	mu   sync.Mutex // one writer at a time
}

var errClientLeft = errors.New("the client left")

// read hands on what the client sends until it leaves. The error is the cause.
// While a command does not take what was typed, nothing more is read, so that
// the client is held back; its leaving is seen when the command goes on or ends.
func (e *execConn) read(stdin *io.PipeWriter, resize chan TerminalSize) error {
	e.conn.SetReadLimit(maxFrame)
	for {
		_, message, err := e.conn.ReadMessage()
		if err != nil {
			return errClientLeft
		}
		if len(message) == 0 {
			continue
		}
		switch channel, content := message[0], message[1:]; channel {
		case ChannelStdin:
			// A command that reads no more drops what is still typed.
			_, _ = stdin.Write(content)
		case ChannelResize:
			var size TerminalSize
			if json.Unmarshal(content, &size) != nil {
				continue
			}
			// Only the newest size matters.
			select {
			case <-resize:
			default:
			}
			resize <- size
		case ChannelClose:
			if len(content) == 1 && content[0] == ChannelStdin {
				_ = stdin.Close()
			}
		}
	}
}

// channel writes to one of the client's streams.
func (e *execConn) channel(number byte) io.Writer { return channelWriter{e, number} }

type channelWriter struct {
	e      *execConn
	number byte
}

// Write implements io.Writer.
func (c channelWriter) Write(p []byte) (int, error) {
	if err := c.e.send(c.number, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (e *execConn) send(channel byte, content []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.conn.SetWriteDeadline(time.Now().Add(frameTimeout))
	return e.conn.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, content...))
}

// end tells how the command ended, in the published words.
func (e *execConn) end(code int, err error) {
	status := kube.Status{Kind: "Status", APIVersion: "v1", Status: "Success"}
	switch {
	case err != nil && code == 0:
		failed := kube.StatusOf(err)
		status.Status, status.Reason, status.Message, status.Code = "Failure", failed.Reason, err.Error(), failed.Code
	case code != 0:
		status.Status, status.Reason = "Failure", "NonZeroExitCode"
		status.Message = "command terminated with exit code " + strconv.Itoa(code)
		if err != nil {
			status.Message = err.Error()
		}
		status.Details = &kube.StatusDetails{Causes: []kube.StatusCause{{Reason: "ExitCode", Message: strconv.Itoa(code)}}}
	}
	encoded, err := json.Marshal(status)
	if err == nil {
		_ = e.send(ChannelError, encoded)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	reason := binary.BigEndian.AppendUint16(nil, websocket.CloseNormalClosure)
	_ = e.conn.WriteControl(websocket.CloseMessage, reason, time.Now().Add(frameTimeout))
}

// debugTask makes a pod to look around in, like the one that a task ran in last.
func (s *Server) debugTask(w http.ResponseWriter, r *http.Request) {
	key := taskKey(r)
	task, err := getTask(r.Context(), s.cfg.Store, key)
	if err != nil {
		kube.WriteError(w, notFoundAs(err, key.Kind, key.Name))
		return
	}
	if task.Status.Pod == "" {
		kube.WriteError(w, kube.BadRequest("task %s (%s) has had no pod: there is nothing to debug; "+
			"only steps that have begun to run, and were not taken from the cache, can be", task.Spec.Path, task.Spec.Type))
		return
	}
	made, err := s.cfg.Pods.Debug(r.Context(), key.Namespace, task.Status.Pod, r.URL.Query().Get("fresh") == "true")
	if err != nil {
		kube.WriteError(w, notFoundAs(err, "pods", task.Status.Pod))
		return
	}
	if made.Missing, err = s.missingInputs(r.Context(), task); err != nil {
		s.cfg.Logger.Warn("the inputs of a task could not be looked at", "task", task.Name, "error", err)
	}
	code := http.StatusCreated
	if made.Kept {
		code = http.StatusOK
	}
	kube.WriteJSON(w, code, made)
}

// missingInputs are the input artifacts of a task that cannot be had any more.
func (s *Server) missingInputs(ctx context.Context, task *skiff.Task) ([]string, error) {
	var missing []string
	for input, names := range task.Status.InputArtifacts {
		for _, name := range names {
			a, err := store.GetAs[*skiff.Artifact](ctx, s.cfg.Store, store.Key{Kind: "artifacts.skiff.dev", Namespace: task.Namespace, Name: name})
			switch {
			case errors.Is(err, store.ErrNotFound):
				missing = append(missing, fmt.Sprintf("input %s: artifact %s was deleted with its run", input, name))
			case err != nil:
				return missing, err
			case a.Gone() != "":
				missing = append(missing, fmt.Sprintf("input %s: artifact %s: %s", input, name, a.Gone()))
			}
		}
	}
	slices.Sort(missing)
	return missing, nil
}
