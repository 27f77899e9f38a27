package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/store"
)

// logOptions reads the published query parameters of a pod's log.
func logOptions(r *http.Request) (LogOptions, error) {
	query := r.URL.Query()
	opts := LogOptions{
		Container: query.Get("container"), TailLines: -1, Stream: strings.ToLower(query.Get("stream")),
		Follow: isTrue(query.Get("follow")), Timestamps: isTrue(query.Get("timestamps")),
	}
	if opts.Stream == "all" {
		opts.Stream = ""
	}
	if opts.Stream != "" && opts.Stream != "stdout" && opts.Stream != "stderr" {
		return opts, kube.BadRequest("stream %q: want stdout, stderr or all", query.Get("stream"))
	}
	if text := query.Get("tailLines"); text != "" {
		lines, err := strconv.ParseInt(text, 10, 64)
		if err != nil || lines < 0 {
			return opts, kube.BadRequest("tailLines %q: want a number of lines, 0 or more", text)
		}
		opts.TailLines = lines
	}
	return opts, nil
}

func isTrue(text string) bool { return text == "1" || strings.EqualFold(text, "true") }

func (s *Server) podLog(w http.ResponseWriter, r *http.Request) {
	opts, err := logOptions(r)
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	name := r.PathValue("name")
	out := newLogWriter(w)
	if err := s.cfg.Logs.PodLogs(r.Context(), r.PathValue("namespace"), name, opts, out); err != nil {
		s.endLog(r.Context(), out, notFoundAs(err, "pods", name))
		return
	}
	out.start()
}

// taskLog writes the log of a task's newest attempt. Where it follows, it waits
// for an attempt that has not begun and goes on with the next one after a retry.
func (s *Server) taskLog(w http.ResponseWriter, r *http.Request) {
	opts, err := logOptions(r)
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	ctx := r.Context()
	key := taskKey(r)
	out := newLogWriter(w)
	watcher := &taskWatch{store: s.cfg.Store, key: key}
	defer watcher.close()
	last := ""
	for {
		var task *skiff.Task
		if opts.Follow {
			out.start()
			task, err = watcher.next(ctx, last)
		} else {
			task, err = getTask(ctx, s.cfg.Store, key)
		}
		if err != nil {
			s.endLog(ctx, out, notFoundAs(err, "tasks.skiff.dev", key.Name))
			return
		}
		if task.Status.Pod != "" && task.Status.Pod != last {
			last = task.Status.Pod
			if err := s.cfg.Logs.PodLogs(ctx, key.Namespace, last, opts, out); err != nil {
				s.endLog(ctx, out, notFoundAs(err, "pods", last))
				return
			}
			// A later attempt is shown from its beginning.
			opts.TailLines = -1
		} else if last == "" && (task.Spec.Type == skiff.TaskDAG || task.Spec.Type == skiff.TaskLoop || task.Spec.Type == skiff.TaskIteration) {
			s.endLog(ctx, out, kube.BadRequest("task %s is a %s: it has no log of its own, the tasks below it have", task.Spec.Path, task.Spec.Type))
			return
		}
		if !opts.Follow || task.Status.State.Terminal() {
			out.start()
			return
		}
	}
}

func taskKey(r *http.Request) store.Key {
	return store.Key{Kind: "tasks.skiff.dev", Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
}

func getTask(ctx context.Context, s store.Interface, key store.Key) (*skiff.Task, error) {
	obj, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return obj.(*skiff.Task), nil
}

// taskWatch waits for news of one task.
type taskWatch struct {
	store   store.Interface
	key     store.Key
	watcher store.Watcher
}

// next returns the task once it has a pod other than last, or has ended.
func (t *taskWatch) next(ctx context.Context, last string) (*skiff.Task, error) {
	for {
		if t.watcher == nil {
			watcher, err := t.store.Watch(ctx, store.WatchOptions{Kinds: []string{t.key.Kind}, Namespace: t.key.Namespace})
			if err != nil {
				return nil, fmt.Errorf("watch task %s: %w", t.key.Name, err)
			}
			t.watcher = watcher
		}
		// The watch is open before the read, so no change falls in between.
		task, err := getTask(ctx, t.store, t.key)
		if err != nil {
			return nil, err
		}
		if (task.Status.Pod != "" && task.Status.Pod != last) || task.Status.State.Terminal() {
			return task, nil
		}
		if err := t.changed(ctx); err != nil {
			return nil, err
		}
	}
}

// changed waits for an event of the task.
func (t *taskWatch) changed(ctx context.Context) error {
	for {
		events, err := t.watcher.Next(ctx)
		if errors.Is(err, store.ErrGone) {
			t.close()
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch task %s: %w", t.key.Name, err)
		}
		for _, event := range events {
			if event.Key == t.key {
				return nil
			}
		}
	}
}

func (t *taskWatch) close() {
	if t.watcher != nil {
		t.watcher.Close()
		t.watcher = nil
	}
}

// endLog reports an error: as a Status while nothing is sent, otherwise by
// breaking the connection, since a log has no other place for it.
func (s *Server) endLog(ctx context.Context, out *logWriter, err error) {
	if !out.started {
		kube.WriteError(out.w, err)
		return
	}
	if ctx.Err() != nil {
		// The client left or the daemon ends: the log simply stops here.
		return
	}
	s.cfg.Logger.Warn("log stream broke off", "error", err)
	panic(http.ErrAbortHandler)
}

// logWriter sends log text as it comes.
type logWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	started bool
}

var _ io.Writer = (*logWriter)(nil)

func newLogWriter(w http.ResponseWriter) *logWriter {
	return &logWriter{w: w, control: http.NewResponseController(w)}
}

// logWriteTimeout drops a client that does not read.
const logWriteTimeout = time.Minute

// start sends the headers, once.
func (l *logWriter) start() {
	if l.started {
		return
	}
	l.started = true
	l.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	l.w.WriteHeader(http.StatusOK)
	_ = l.control.Flush()
}

// Write implements io.Writer; each write reaches the client at once.
func (l *logWriter) Write(p []byte) (int, error) {
	l.start()
	_ = l.control.SetWriteDeadline(time.Now().Add(logWriteTimeout))
	n, err := l.w.Write(p)
	return n, cmp.Or(err, l.control.Flush())
}
