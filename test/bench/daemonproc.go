package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/listen"
	"github.com/skiff-ml/skiff/server/view"
)

const (
	// readyPatience and runPatience are how long a daemon may take to come up,
	// and a run to end, before something must be wrong with it.
	readyPatience = 30 * time.Second
	runPatience   = 5 * time.Minute
	// readyPoll is small beside what is measured and leaves the CPU to it.
	readyPoll = 500 * time.Microsecond

	apiRoot = "http://localhost/apis/skiff.dev/v1alpha1"
)

// daemon is a `skiff up` of its own, spoken to over its socket as the command
// line does.
type daemon struct {
	cmd    *exec.Cmd
	state  string
	log    string
	ended  chan struct{} // closed after Wait
	client *http.Client
	addr   string // on TCP
	// ready is the time from the start of the process to its first answer of
	// 200 on /readyz.
	ready time.Duration
}

// startDaemon starts the program under test on a state folder and returns when
// it is ready. The caller stops it.
func (b *bench) startDaemon(ctx context.Context, state string, flags ...string) (*daemon, error) {
	if _, err := os.Stat(b.skiff); err != nil {
		return nil, fmt.Errorf("find the program under test: %w; run make build", err)
	}
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	d := &daemon{state: state, addr: addr, log: state + ".log", ended: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close()
	d.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return listen.DialUnix(ctx, state)
	}}}
	d.cmd = exec.CommandContext(ctx, b.skiff, append([]string{"up", "--state-dir", state, "--listen", addr}, flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(os.Interrupt) }
	d.cmd.WaitDelay = readyPatience
	begin := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() { _ = d.cmd.Wait(); close(d.ended) }() // stop waits for it
	if err := d.awaitReady(ctx, addr); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	d.ready = time.Since(begin)
	return d, nil
}

// freeAddress is one that nobody listens on at this moment.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// awaitReady asks over TCP, as a health check does, until the answer is 200.
func (d *daemon) awaitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyPatience, fmt.Errorf("the daemon was not ready within %s", readyPatience))
	defer cancel()
	// A connection each: one that came too early must not hold up the next.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask whether the daemon is ready: %w", err)
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ended before it was ready (%s): %s", d.cmd.ProcessState, tail(d.log))
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), tail(d.log))
		case <-time.After(readyPoll):
		}
	}
}

// tail is the end of a log, for messages.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data[max(0, len(data)-1000):]))
}

// stop ends the daemon politely and returns when it is gone.
func (d *daemon) stop() error {
	d.client.CloseIdleConnections()
	_ = d.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	select {
	case <-d.ended:
		return nil
	case <-time.After(readyPatience):
		d.kill()
		return fmt.Errorf("the daemon did not end within %s of SIGINT: %s", readyPatience, tail(d.log))
	}
}

// kill ends the daemon as a power cut would, as far as the store can tell.
func (d *daemon) kill() {
	d.client.CloseIdleConnections()
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// cpu is the time that the daemon's threads have spent on the processors.
func (d *daemon) cpu() (time.Duration, error) {
	// The kernel's clock of a process: its number, inverted, before three bits that
	// ask for what all threads ran.
	const ran = 2
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^d.cmd.Process.Pid<<3|ran), &at); err != nil {
		return 0, fmt.Errorf("read the daemon's CPU time: %w", err)
	}
	return time.Duration(at.Nano()), nil
}

// request sends a body, or nothing, and returns the answer where it is a success.
func (d *daemon) request(ctx context.Context, method, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := d.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 2000))
		return nil, fmt.Errorf("%s %s: the daemon answers %s: %s", method, url, res.Status, text)
	}
	return res, nil
}

// submit hands a pipeline in, to be run in full, and returns its run's name.
func (d *daemon) submit(ctx context.Context, pipeline []byte) (string, error) {
	body, err := json.Marshal(server.Submission{Package: pipeline, Filename: "pipeline.yaml", DisableCache: true})
	if err != nil {
		return "", fmt.Errorf("encode the submission: %w", err)
	}
	res, err := d.request(ctx, http.MethodPost, apiRoot+"/namespaces/default/runs:submit", body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var run skiff.Run
	if err := json.NewDecoder(res.Body).Decode(&run); err != nil {
		return "", fmt.Errorf("read the run: %w", err)
	}
	return run.Name, nil
}

// await watches a run to its end, which must be a success.
func (d *daemon) await(ctx context.Context, run string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, runPatience, fmt.Errorf("run %s did not end within %s", run, runPatience))
	defer cancel()
	res, err := d.request(ctx, http.MethodGet, apiRoot+"/namespaces/default/runs?watch=true&fieldSelector=metadata.name%3D"+run, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	decoder := json.NewDecoder(res.Body)
	for {
		var event struct {
			Type   string    `json:"type"`
			Object skiff.Run `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			return fmt.Errorf("watch run %s: %w", run, errors.Join(err, context.Cause(ctx)))
		}
		switch status := event.Object.Status; {
		case event.Type == "ERROR":
			return fmt.Errorf("watch run %s: the daemon ended the watch; its log: %s", run, tail(d.log))
		case status.State == skiff.StateSucceeded:
			return nil
		case status.State.Terminal():
			return fmt.Errorf("run %s ended as %s: %s", run, status.State, status.Message)
		}
	}
}

// run is the time from the submission of a pipeline to the news of its success.
func (d *daemon) run(ctx context.Context, pipeline []byte) (time.Duration, error) {
	begin := time.Now()
	name, err := d.submit(ctx, pipeline)
	if err == nil {
		err = d.await(ctx, name)
	}
	return time.Since(begin), err
}

// node reads what the daemon says of itself.
func (d *daemon) node(ctx context.Context) (*view.Node, error) {
	res, err := d.request(ctx, http.MethodGet, apiRoot+"/node", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	node := &view.Node{}
	if err := json.NewDecoder(res.Body).Decode(node); err != nil {
		return nil, fmt.Errorf("read the node: %w", err)
	}
	return node, nil
}

// enginesUp waits until the daemon has looked at the machine and can run steps.
func (d *daemon) enginesUp(ctx context.Context) (*view.Node, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyPatience, fmt.Errorf("the engines were not up within %s", readyPatience))
	defer cancel()
	for {
		node, err := d.node(ctx)
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		if node.Runtime != "" {
			return node, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(readyPoll):
		}
	}
}

// withDaemon gives fn a daemon on a new state folder, whose engines are up.
func (b *bench) withDaemon(ctx context.Context, name string, flags []string, fn func(d *daemon) error) (err error) {
	d, err := b.startDaemon(ctx, filepath.Join(b.dir, name), flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := d.enginesUp(ctx); err != nil {
		return err
	}
	return fn(d)
}
