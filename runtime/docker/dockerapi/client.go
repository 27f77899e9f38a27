package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
)

// Deadlines of the calls that answer at once: long enough for an engine on a
// loaded disk, short enough that one that hangs is noticed.
const (
	deadlineQuery  = 20 * time.Second
	deadlineCreate = 60 * time.Second
	deadlineStart  = 120 * time.Second
)

// API is what runtime/docker asks of an engine. Every method is safe for
// concurrent use; errors are classed by the Is functions of this package.
type API interface {
	// Connect checks that the engine answers and agrees on a version with it,
	// again after an upgrade underneath.
	Connect(ctx context.Context) (Version, error)
	Info(ctx context.Context) (Info, error)

	ImageInspect(ctx context.Context, ref string) (Image, error)
	// ImagePull returns the engine's progress stream (JSON lines); errors of the
	// pull itself come inside it. auth is an X-Registry-Auth value or empty.
	ImagePull(ctx context.Context, ref, auth string) (io.ReadCloser, error)
	ImageImport(ctx context.Context, tar io.Reader, ref string) error
	// ImageSave packs an image by its id, so that it has no names in the archive.
	ImageSave(ctx context.Context, id string) (tar io.ReadCloser, err error)
	// ImageLoad takes such an archive; the engine believes what is in it.
	ImageLoad(ctx context.Context, tar io.Reader) error
	ImageTag(ctx context.Context, id, ref string) error
	// ImageRemove removes an image that nothing uses.
	ImageRemove(ctx context.Context, id string) error

	ContainerCreate(ctx context.Context, name string, c *Config, h *HostConfig) (id string, err error)
	ContainerStart(ctx context.Context, id string) error
	ContainerInspect(ctx context.Context, id string) (Inspect, error)
	// ContainerList returns containers in any state that carry the label.
	ContainerList(ctx context.Context, label string) ([]Summary, error)
	ContainerKill(ctx context.Context, id, signal string) error
	ContainerRemove(ctx context.Context, id string, force bool) error
	// ContainerWait returns when the container does not run. What it returns is
	// no proof of anything: a removed container looks like one that succeeded.
	ContainerWait(ctx context.Context, id string) error
	// ContainerLogs returns the last lines of the engine's own log, multiplexed.
	ContainerLogs(ctx context.Context, id string, tail int) (io.ReadCloser, error)
	ContainerStats(ctx context.Context, id string) (io.ReadCloser, error)
	// CopyTo unpacks a tar below a container's path.
	CopyTo(ctx context.Context, id, path string, tar io.Reader) error
	// CopyFrom packs what is at a container's path, which need not run. A path
	// that ends in "/." must be a folder, links to it are followed, and the
	// names in the tar are relative to it.
	CopyFrom(ctx context.Context, id, path string) (tar io.ReadCloser, err error)

	// Events subscribes to the changes of containers with the label, from since
	// on (zero for now). It returns when the engine has taken the subscription.
	Events(ctx context.Context, label string, since time.Time) (*EventStream, error)

	ExecCreate(ctx context.Context, id string, o ExecOptions) (execID string, err error)
	ExecStart(ctx context.Context, execID string, o ExecOptions) (*ExecStream, error)
	ExecInspect(ctx context.Context, execID string) (ExecState, error)
	ExecResize(ctx context.Context, execID string, width, height uint) error

	NetworkInspect(ctx context.Context, name string) (Network, error)
	NetworkCreate(ctx context.Context, name string, o NetworkOptions) error

	Close() error
}

var _ API = (*Client)(nil)

// Client speaks to one engine through docker/docker/client.
type Client struct {
	host string

	mu  sync.Mutex
	cli *client.Client // nil until the engine has answered once
}

// New returns a client of the engine at host ("unix:///var/run/docker.sock").
// It does not connect yet.
func New(host string) (*Client, error) {
	if _, err := client.ParseHostURL(host); err != nil {
		return nil, fmt.Errorf("parse engine address %q: %w", host, err)
	}
	return &Client{host: host}, nil
}

// Connect asks the engine for its version and settles on the newest both know.
func (c *Client) Connect(ctx context.Context) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, deadlineQuery)
	defer cancel()
	// Every step holds one connection while it is created and one while it is
	// started; the default of two idle ones would dial anew for most calls.
	t := &http.Transport{MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second}
	fresh, err := client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{Transport: t, CheckRedirect: client.CheckRedirect}),
		client.WithHost(c.host))
	if err != nil {
		return Version{}, fmt.Errorf("make client of %s: %w", c.host, err)
	}
	ping, err := fresh.Ping(ctx)
	if err != nil {
		return Version{}, errors.Join(err, fresh.Close())
	}
	fresh.NegotiateAPIVersionPing(ping)
	// A client's version must not change while calls are under way, so another
	// version is another client; calls under way end on the old one.
	c.mu.Lock()
	defer c.mu.Unlock()
	old := fresh
	if c.cli == nil || c.cli.ClientVersion() != fresh.ClientVersion() {
		old, c.cli = c.cli, fresh
	}
	if old != nil {
		err = old.Close()
	}
	return Version{API: c.cli.ClientVersion()}, err
}

// get returns the negotiated client.
func (c *Client) get(ctx context.Context) (*client.Client, error) {
	c.mu.Lock()
	cli := c.cli
	c.mu.Unlock()
	if cli != nil {
		return cli, nil
	}
	if _, err := c.Connect(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cli, nil
}

// call runs f with the negotiated client under a deadline.
func call[T any](ctx context.Context, c *Client, d time.Duration, f func(context.Context, *client.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	cli, err := c.get(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return f(ctx, cli)
}

// do is call for what returns nothing.
func do(ctx context.Context, c *Client, d time.Duration, f func(context.Context, *client.Client) error) error {
	_, err := call(ctx, c, d, func(ctx context.Context, cli *client.Client) (struct{}, error) {
		return struct{}{}, f(ctx, cli)
	})
	return err
}

// Info describes the engine and its machine.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (Info, error) { return cli.Info(ctx) })
}

// ImageInspect describes an image the engine has.
func (c *Client) ImageInspect(ctx context.Context, ref string) (Image, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (Image, error) {
		return cli.ImageInspect(ctx, ref)
	})
}

// ImagePull starts a pull; it has no deadline but ctx's.
func (c *Client) ImagePull(ctx context.Context, ref, auth string) (io.ReadCloser, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return cli.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
}

// ImageImport makes a one-layer image of a tar of its root.
func (c *Client) ImageImport(ctx context.Context, tar io.Reader, ref string) error {
	return do(ctx, c, deadlineCreate, func(ctx context.Context, cli *client.Client) error {
		body, err := cli.ImageImport(ctx, image.ImportSource{Source: tar, SourceName: "-"}, ref, image.ImportOptions{})
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
		return err
	})
}

// ImageSave has no deadline but ctx's.
func (c *Client) ImageSave(ctx context.Context, id string) (io.ReadCloser, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return cli.ImageSave(ctx, []string{id})
}

// ImageLoad has no deadline but ctx's. What goes wrong in the engine comes inside
// a successful answer.
func (c *Client) ImageLoad(ctx context.Context, tar io.Reader) error {
	cli, err := c.get(ctx)
	if err != nil {
		return err
	}
	res, err := cli.ImageLoad(ctx, tar, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for lines := json.NewDecoder(res.Body); ; {
		var line struct {
			Error string `json:"error"`
		}
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}

// ImageTag gives an image a name, and takes it from the one that has it.
func (c *Client) ImageTag(ctx context.Context, id, ref string) error {
	return do(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) error { return cli.ImageTag(ctx, id, ref) })
}

// ImageRemove removes an image that nothing uses.
func (c *Client) ImageRemove(ctx context.Context, id string) error {
	return do(ctx, c, deadlineCreate, func(ctx context.Context, cli *client.Client) error {
		_, err := cli.ImageRemove(ctx, id, image.RemoveOptions{PruneChildren: true})
		return err
	})
}

// ContainerCreate makes a container.
func (c *Client) ContainerCreate(ctx context.Context, name string, config *Config, h *HostConfig) (string, error) {
	return call(ctx, c, deadlineCreate, func(ctx context.Context, cli *client.Client) (string, error) {
		r, err := cli.ContainerCreate(ctx, config, h, nil, nil, name)
		return r.ID, err
	})
}

// ContainerStart starts a container, even one that has exited: look first.
func (c *Client) ContainerStart(ctx context.Context, id string) error {
	return do(ctx, c, deadlineStart, func(ctx context.Context, cli *client.Client) error {
		return cli.ContainerStart(ctx, id, container.StartOptions{})
	})
}

// ContainerInspect describes one container, by id or name.
func (c *Client) ContainerInspect(ctx context.Context, id string) (Inspect, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (Inspect, error) {
		return cli.ContainerInspect(ctx, id)
	})
}

// ContainerList returns what carries the label.
func (c *Client) ContainerList(ctx context.Context, label string) ([]Summary, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) ([]Summary, error) {
		return cli.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	})
}

// ContainerKill sends a signal to the container's first process.
func (c *Client) ContainerKill(ctx context.Context, id, signal string) error {
	return do(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) error {
		return cli.ContainerKill(ctx, id, signal)
	})
}

// ContainerRemove deletes a container and the anonymous volumes that came with it.
func (c *Client) ContainerRemove(ctx context.Context, id string, force bool) error {
	return do(ctx, c, deadlineStart, func(ctx context.Context, cli *client.Client) error {
		return cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: force, RemoveVolumes: true})
	})
}

// ContainerWait has no deadline but ctx's.
func (c *Client) ContainerWait(ctx context.Context, id string) error {
	cli, err := c.get(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done, errs := cli.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case <-done:
		return nil
	case err := <-errs:
		return err
	}
}

// ContainerLogs returns the last lines of both streams.
func (c *Client) ContainerLogs(ctx context.Context, id string, tail int) (io.ReadCloser, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return cli.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: fmt.Sprint(tail)})
}

// ContainerStats returns one reading as JSON; the engine takes a second for it.
func (c *Client) ContainerStats(ctx context.Context, id string) (io.ReadCloser, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	r, err := cli.ContainerStatsOneShot(ctx, id)
	return r.Body, err
}

// CopyTo keeps the owners that the tar names.
func (c *Client) CopyTo(ctx context.Context, id, path string, tar io.Reader) error {
	return do(ctx, c, deadlineCreate, func(ctx context.Context, cli *client.Client) error {
		return cli.CopyToContainer(ctx, id, path, tar, container.CopyToContainerOptions{})
	})
}

// CopyFrom has no deadline but ctx's.
func (c *Client) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	r, _, err := cli.CopyFromContainer(ctx, id, path)
	return r, err
}

// Events has no deadline but ctx's.
func (c *Client) Events(ctx context.Context, label string, since time.Time) (*EventStream, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	o := events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", label))}
	if !since.IsZero() {
		o.Since = fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())
	}
	in, errs := cli.Events(ctx, o)
	select {
	case err := <-errs: // refused at once
		return nil, err
	default:
	}
	out := make(chan Event)
	s := &EventStream{Events: out}
	go func() {
		defer close(out)
		for {
			select {
			case err := <-errs:
				s.err = err
				return
			case m := <-in:
				select {
				case out <- event(m):
				case <-ctx.Done():
					s.err = context.Cause(ctx)
					return
				}
			}
		}
	}()
	return s, nil
}

// event drops what follows an action's colon ("exec_start: sh").
func event(m events.Message) Event {
	action, _, _ := strings.Cut(string(m.Action), ":")
	return Event{Action: action, ID: m.Actor.ID, Labels: m.Actor.Attributes, At: time.Unix(0, m.TimeNano)}
}

// ExecCreate prepares a command in a running container.
func (c *Client) ExecCreate(ctx context.Context, id string, o ExecOptions) (string, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (string, error) {
		r, err := cli.ContainerExecCreate(ctx, id, container.ExecOptions{
			Cmd: o.Argv, Env: o.Env, WorkingDir: o.Dir, User: o.User, Tty: o.TTY,
			AttachStdin: o.Stdin, AttachStdout: true, AttachStderr: true, ConsoleSize: consoleSize(o),
		})
		return r.ID, err
	})
}

func consoleSize(o ExecOptions) *[2]uint {
	if !o.TTY || o.Width == 0 || o.Height == 0 {
		return nil
	}
	return &[2]uint{o.Height, o.Width}
}

// ExecStart runs it; the stream lives until it is closed.
func (c *Client) ExecStart(ctx context.Context, execID string, o ExecOptions) (*ExecStream, error) {
	cli, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	r, err := cli.ContainerExecAttach(ctx, execID, container.ExecAttachOptions{Tty: o.TTY, ConsoleSize: consoleSize(o)})
	if err != nil {
		return nil, err
	}
	return &ExecStream{Conn: r.Conn, Out: r.Reader, CloseWrite: r.CloseWrite}, nil
}

// ExecInspect says how it stands.
func (c *Client) ExecInspect(ctx context.Context, execID string) (ExecState, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (ExecState, error) {
		r, err := cli.ContainerExecInspect(ctx, execID)
		return ExecState{Running: r.Running, ExitCode: r.ExitCode, PID: r.Pid}, err
	})
}

// ExecResize changes the terminal's size, in characters.
func (c *Client) ExecResize(ctx context.Context, execID string, width, height uint) error {
	return do(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) error {
		return cli.ContainerExecResize(ctx, execID, container.ResizeOptions{Width: width, Height: height})
	})
}

// NetworkInspect describes a network.
func (c *Client) NetworkInspect(ctx context.Context, name string) (Network, error) {
	return call(ctx, c, deadlineQuery, func(ctx context.Context, cli *client.Client) (Network, error) {
		return cli.NetworkInspect(ctx, name, network.InspectOptions{})
	})
}

// NetworkCreate makes a network.
func (c *Client) NetworkCreate(ctx context.Context, name string, o NetworkOptions) error {
	return do(ctx, c, deadlineCreate, func(ctx context.Context, cli *client.Client) error {
		_, err := cli.NetworkCreate(ctx, name, o)
		return err
	})
}

// Close drops idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cli == nil {
		return nil
	}
	return c.cli.Close()
}
