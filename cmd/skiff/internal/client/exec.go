package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/kube"
)

// ExecOptions are a command and its streams; a nil Stdin is an empty one.
type ExecOptions struct {
	Argv           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize carries the terminal's sizes, the first one before the start.
	Resize <-chan server.TerminalSize
}

// Debug makes a pod like the one that a task ran in, or finds that one kept,
// unless fresh is asked for.
func (c *Client) Debug(ctx context.Context, namespace, task string, fresh bool) (*server.DebugPod, error) {
	made := &server.DebugPod{}
	r := request{method: http.MethodPost, path: kinds()["tasks"].path(namespace, task, "debug")}
	if fresh {
		r.query = url.Values{"fresh": {"true"}}
	}
	return made, c.callJSON(ctx, r, made)
}

// Release ends the hold on a pod whose command has failed.
func (c *Client) Release(ctx context.Context, namespace, pod string) error {
	return c.callJSON(ctx, request{method: http.MethodPatch, path: kinds()["pods"].path(namespace, pod),
		body: []byte(`{"spec":{"skiff":{"release":true}}}`), contentType: "application/merge-patch+json"}, &core.Pod{})
}

// Exec runs a command in a pod's first container and returns its exit code. An
// error with a code that is not 0 says why the command could not be run.
func (c *Client) Exec(ctx context.Context, namespace, pod string, opts ExecOptions) (int, error) {
	conn, err := c.dialExec(ctx, namespace, pod, opts)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var writing sync.Mutex
	send := func(channel byte, content []byte) error {
		writing.Lock()
		defer writing.Unlock()
		return conn.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, content...))
	}
	done := make(chan struct{})
	defer close(done)
	if opts.Stdin != nil {
		// Not waited for: only its owner can end a read of it.
		go func() {
			buffer := make([]byte, 32<<10)
			for {
				n, err := opts.Stdin.Read(buffer)
				if n > 0 && send(server.ChannelStdin, buffer[:n]) != nil {
					return
				}
				if err != nil {
					_ = send(server.ChannelClose, []byte{server.ChannelStdin})
					return
				}
			}
		}()
	}
	if opts.Resize != nil {
		go func() {
			for {
				select {
				case <-done:
					return
				case size := <-opts.Resize:
					if encoded, err := json.Marshal(size); err != nil || send(server.ChannelResize, encoded) != nil {
						return
					}
				}
			}
		}()
	}
	return readExec(ctx, conn, opts)
}

func (c *Client) dialExec(ctx context.Context, namespace, pod string, opts ExecOptions) (*websocket.Conn, error) {
	query := url.Values{"command": opts.Argv, "stdout": {"true"}, "stderr": {strconv.FormatBool(!opts.TTY)},
		"stdin": {strconv.FormatBool(opts.Stdin != nil)}, "tty": {strconv.FormatBool(opts.TTY)}}
	header := http.Header{}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	dialer := websocket.Dialer{Subprotocols: []string{server.ExecProtocol5}, HandshakeTimeout: dialTimeout}
	if transport, ok := c.http.Transport.(*http.Transport); ok {
		dialer.NetDialContext, dialer.Proxy = transport.DialContext, transport.Proxy
		if transport.TLSClientConfig != nil {
			// HTTP/2, which the shared configuration offers, has no upgrade.
			dialer.TLSClientConfig = transport.TLSClientConfig.Clone()
			dialer.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
	}
	target := "ws" + strings.TrimPrefix(c.base, "http") + kinds()["pods"].path(namespace, pod, "exec") + "?" + query.Encode()
	conn, res, err := dialer.DialContext(ctx, target, header)
	if res != nil && err != nil {
		defer func() { _ = res.Body.Close() }()
		return nil, statusError(res)
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	return conn, nil
}

// readExec passes the command's output on until its end is told.
func readExec(ctx context.Context, conn *websocket.Conn, opts ExecOptions) (int, error) {
	for {
		_, message, err := conn.ReadMessage()
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err != nil {
			return 0, fmt.Errorf("the connection to the command broke: %w", err)
		}
		if len(message) == 0 {
			continue
		}
		var out io.Writer
		switch message[0] {
		case server.ChannelStdout:
			out = opts.Stdout
		case server.ChannelStderr:
			out = opts.Stderr
		case server.ChannelError:
			return exitOf(message[1:])
		}
		if out == nil {
			continue
		}
		if _, err := out.Write(message[1:]); err != nil {
			return 0, fmt.Errorf("write the command's output: %w", err)
		}
	}
}

// exitOf reads the last message.
func exitOf(message []byte) (int, error) {
	var status kube.Status
	if err := json.Unmarshal(message, &status); err != nil {
		return 0, fmt.Errorf("read how the command ended: %w", err)
	}
	if status.Status == "Success" {
		return 0, nil
	}
	if status.Details != nil {
		for _, cause := range status.Details.Causes {
			code, err := strconv.Atoi(cause.Message)
			if cause.Reason != "ExitCode" || err != nil {
				continue
			}
			if strings.HasPrefix(status.Message, "command terminated") {
				return code, nil
			}
			return code, errors.New(status.Message)
		}
	}
	return 0, &StatusError{status}
}
