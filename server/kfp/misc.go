package kfp

import (
	"io"
	"net/http"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/store"
)

// healthz is what clients ask first. There is one user as far as this API goes;
// namespaces are taken all the same.
func (a *API) healthz(*http.Request) (any, error) {
	return struct {
		MultiUser     bool   `json:"multi_user"`
		PipelineStore string `json:"pipeline_store"`
	}{false, "database"}, nil
}

// auth answers whoever got here: the server has looked at who asks before.
func (a *API) auth(*http.Request) (any, error) { return empty(), nil }

// filters is a method that upstream has so that its message is in the generated
// clients; it gives nothing.
func (a *API) filters(*http.Request) (any, error) { return empty(), nil }

func (a *API) visualization(*http.Request) (any, error) {
	return nil, refuse(rpcUnimplemented, "visualizations are not made by the server here; read the artifact and draw it in a notebook")
}

func (a *API) report(*http.Request) (any, error) {
	return nil, refuse(rpcUnimplemented, "there are no workflows to report: runs are executed by this daemon itself")
}

// nothing answers for the paths that the API does not have.
func (a *API) nothing(r *http.Request) (any, error) {
	return nil, refuse(rpcNotFound, "there is nothing at %s", r.URL.Path)
}

// nodeLog gives what a task's newest attempt has written.
func (a *API) nodeLog(w http.ResponseWriter, r *http.Request) {
	pod, namespace, err := a.podOf(r)
	if err == nil && a.cfg.PodLogs == nil {
		err = refuse(rpcUnimplemented, "this daemon gives no logs out")
	}
	if err = auth.GateFrom(r.Context()).Settle(err); err != nil {
		a.reply(w, nil, err)
		return
	}
	out := &lateHeader{w: w}
	if err := a.cfg.PodLogs(r.Context(), namespace, pod, out); err != nil {
		if !out.begun {
			a.reply(w, nil, err)
			return
		}
		a.cfg.Logger.Warn("log stream broke off", "pod", pod, "error", err)
		panic(http.ErrAbortHandler)
	}
	out.begin()
}

// podOf is the pod that a log is asked of.
func (a *API) podOf(r *http.Request) (pod, namespace string, err error) {
	found, err := a.findRun(r, r.PathValue("name"))
	if err != nil {
		return "", "", err
	}
	node := r.PathValue("node")
	// An earlier attempt's pod is nobody's newest, but still the run's.
	p, err := store.GetAs[*core.Pod](r.Context(), a.cfg.Store, store.Key{Kind: podsKind, Namespace: found.Namespace, Name: node})
	if err == nil && p.Labels[core.LabelRun] == found.Name {
		return p.Name, found.Namespace, nil
	}
	t, err := a.node(r.Context(), found, node)
	if err != nil {
		return "", "", err
	}
	if t.Status.Pod == "" {
		return "", "", noLog(t)
	}
	return t.Status.Pod, found.Namespace, nil
}

func noLog(t *skiff.Task) error {
	if t.Status.Cached {
		return refuse(rpcNotFound, "task %s took its results from task %s and has no log of its own", taskTitle(t), t.Status.CachedFrom)
	}
	return refuse(rpcNotFound, "task %s has no log: nothing of it was run", taskTitle(t))
}

// lateHeader sends the headers with the first byte, so that an error before it
// can still be one.
type lateHeader struct {
	w     http.ResponseWriter
	begun bool
}

var _ io.Writer = (*lateHeader)(nil)

func (l *lateHeader) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		l.w.WriteHeader(http.StatusOK)
	}
}

// Write implements io.Writer.
func (l *lateHeader) Write(p []byte) (int, error) {
	l.begin()
	return l.w.Write(p)
}
