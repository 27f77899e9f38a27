package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/store"
)

// LogOptions choose what of a pod's log is read.
type LogOptions struct {
	// Container is empty for the pod's first one.
	Container string
	// Follow goes on until the container has ended for good.
	Follow bool
	// Timestamps puts the time before each line.
	Timestamps bool
	// TailLines limits the output to the last lines; negative means all.
	TailLines int64
	// Since drops what is older; the zero time drops nothing.
	Since time.Time
	// Stream is "stdout" or "stderr"; empty means both.
	Stream string
}

// PodLogs writes what a pod's container wrote to w: during the run and as long
// as the pod exists. A pod that wrote nothing yet is no error. Its errors are
// store.ErrNotFound for an unknown pod, store.ErrInvalid for an unknown
// container, ctx's cause, and what w returns.
func (c *Controller) PodLogs(ctx context.Context, namespace, name string, opts LogOptions, w io.Writer) error {
	p, err := c.readPod(ctx, namespace, name)
	if err != nil {
		return err
	}
	if opts.Container == "" {
		opts.Container = p.Spec.Containers[0].Name
	}
	if err := hasContainer(p, opts.Container); err != nil {
		return err
	}
	for restart := restartsOf(p, opts.Container); ; restart++ {
		if opts.Follow {
			if p, err = c.awaitLog(ctx, p, opts.Container, restart); err != nil {
				return err
			}
		}
		begun := c.logFolderExists(p, opts.Container, restart)
		if begun {
			if err := c.copyLog(ctx, p, restart, opts, w); err != nil {
				return err
			}
		}
		// A later start of the container is shown from its beginning.
		opts.TailLines = -1
		if !opts.Follow || !begun {
			return nil
		}
	}
}

func (c *Controller) readPod(ctx context.Context, namespace, name string) (*core.Pod, error) {
	return store.GetAs[*core.Pod](ctx, c.store, store.Key{Kind: KindName, Namespace: namespace, Name: name})
}

func hasContainer(p *core.Pod, name string) error {
	var names []string
	for _, list := range [][]core.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			names = append(names, list[i].Name)
		}
	}
	if slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("pod %s has no container %q, only %s: %w", p.Name, name, strings.Join(names, ", "), store.ErrInvalid)
}

func restartsOf(p *core.Pod, container string) int32 {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Name == container {
			return p.Status.ContainerStatuses[i].RestartCount
		}
	}
	return 0
}

func (c *Controller) controlDir(p *core.Pod, container string, restart int32) string {
	return launch.ControlDir(filepath.Join(c.podsDir, p.UID), controlName(container, restart))
}

func (c *Controller) logFolderExists(p *core.Pod, container string, restart int32) bool {
	info, err := os.Lstat(c.controlDir(p, container, restart))
	return err == nil && info.IsDir()
}

// awaitLog waits until the container has begun that often, or the pod has ended.
func (c *Controller) awaitLog(ctx context.Context, p *core.Pod, container string, restart int32) (*core.Pod, error) {
	w, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName}, Namespace: p.Namespace})
	if err != nil {
		return nil, fmt.Errorf("watch pod %s: %w", title(p), err)
	}
	defer func() { w.Close() }()
	for {
		// The watch is open before the read, so no change falls in between.
		fresh, err := c.readPod(ctx, p.Namespace, p.Name)
		if err != nil {
			return nil, err
		}
		if fresh.UID != p.UID || fresh.Status.Phase.Terminal() || c.logFolderExists(fresh, container, restart) {
			return fresh, nil
		}
		for changed := false; !changed; {
			events, err := w.Next(ctx)
			if errors.Is(err, store.ErrGone) {
				w.Close()
				if w, err = c.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName}, Namespace: p.Namespace}); err == nil {
					break
				}
			}
			if err != nil {
				return nil, fmt.Errorf("watch pod %s: %w", title(p), err)
			}
			for i := range events {
				changed = changed || events[i].Key.Name == p.Name
			}
		}
	}
}

// copyLog writes one container's log as text.
func (c *Controller) copyLog(ctx context.Context, p *core.Pod, restart int32, opts LogOptions, w io.Writer) error {
	ask := host.LogOptions{Follow: opts.Follow && !p.Status.Phase.Terminal(), Since: opts.Since}
	switch {
	case opts.TailLines == 0:
		ask.TailLines = -1
	case opts.TailLines > 0:
		ask.TailLines = int(min(opts.TailLines, 1<<30))
	}
	if opts.Stream != "" {
		ask.Streams = []string{opts.Stream}
	}
	t := logText{w: w, timestamps: opts.Timestamps, fresh: true}
	for entry, err := range c.launchers.OpenLog(ctx, c.controlDir(p, opts.Container, restart), ask) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted while it was read
		}
		if err != nil {
			return fmt.Errorf("read the log of pod %s: %w", title(p), err)
		}
		if err := t.entry(&entry); err != nil {
			return err
		}
	}
	return nil
}

// logText renders entries as the command wrote them.
type logText struct {
	w          io.Writer
	timestamps bool
	fresh      bool // at the start of a line
	buf        []byte
}

func (t *logText) entry(e *host.LogEntry) error {
	t.buf = t.buf[:0]
	switch {
	case e.Dropped > 0:
		if !t.fresh {
			t.buf = append(t.buf, '\n')
		}
		t.buf = fmt.Appendf(t.buf, "[skiff: %d bytes of output are not kept: the log has reached its limit]\n", e.Dropped)
		t.fresh = true
	default:
		if t.fresh && t.timestamps {
			t.buf = e.At.UTC().AppendFormat(t.buf, "2006-01-02T15:04:05.000000000Z07:00 ")
		}
		t.buf = append(t.buf, e.Text...)
		if t.fresh = !e.Partial; t.fresh {
			t.buf = append(t.buf, '\n')
		}
	}
	_, err := t.w.Write(t.buf)
	return err
}

// lastWords is the last line that a container wrote to stderr: in most
// languages it says what went wrong.
func (c *Controller) lastWords(ctx context.Context, dir string) string {
	const most = 300
	var text []byte
	for entry, err := range c.launchers.OpenLog(ctx, dir, host.LogOptions{TailLines: 1, Streams: []string{"stderr"}}) {
		if err != nil {
			break
		}
		text = append(text, entry.Text...)
		if len(text) > most {
			break
		}
	}
	line := strings.TrimSpace(strings.ToValidUTF8(string(text[:min(len(text), most)]), "?"))
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, line)
}
